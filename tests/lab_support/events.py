"""What ``ctr events`` prints, as it comes."""

from __future__ import annotations

import itertools
import json
from types import TracebackType
from typing import Any, NamedTuple, Self

from lab.place import Place
from lab_support.waiting import PATIENCE, until

_numbers = itertools.count(1)


class Event(NamedTuple):
    """One event."""

    namespace: str
    topic: str
    body: dict[str, Any]

    @property
    def container(self) -> str:
        """The container that it is about, if it is about one."""
        return str(self.body.get("container_id", ""))


class Events:
    """Listens while it is open; a context manager. It listens for sure once it is entered."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._path = f"/var/log/events-{next(_numbers)}"
        self._pid = 0

    def __enter__(self) -> Self:
        self._pid = self._place.spawn(["ctr", "events"], self._path)
        number = 0

        def is_heard() -> bool:
            nonlocal number
            number += 1
            name = f"marker-{self._pid}-{number}"
            self._place.run(["ctr", "namespaces", "create", name])
            self._place.run(["ctr", "namespaces", "remove", name])
            return any(event.topic == "/namespaces/create" for event in self.all())

        until(is_heard, "ctr events hears of a namespace", PATIENCE * self._place.slowness, pause=0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._place.run(["kill", str(self._pid)], check=False)  # it may have ended with containerd

    def all(self) -> list[Event]:
        """Every event so far."""
        # DATE TIME ZONE ZONE NAMESPACE TOPIC BODY
        words = [line.split(" ", 6) for line in self._text().splitlines()]
        return [
            Event(parts[4], parts[5], json.loads(parts[6]))
            for parts in words
            if len(parts) == 7 and parts[5].startswith("/")
        ]

    def topics(self, container: str) -> list[str]:
        """The topics of a container's task, in order, without ``/tasks/``."""
        return [event.topic.removeprefix("/tasks/") for event in self.of(container)]

    def of(self, container: str) -> list[Event]:
        """The events of a container's task, in order."""
        return [event for event in self.all() if event.topic.startswith("/tasks/") and event.container == container]

    def await_topic(self, container: str, topic: str, patience: float = PATIENCE) -> list[str]:
        """Wait for a topic of a container's task; its topics until then."""
        patience *= self._place.slowness
        until(lambda: topic in self.topics(container), f"the event {topic} of {container}", patience)
        return self.topics(container)

    def _text(self) -> str:
        data = self._place.get(self._path)
        return data[: data.rfind(b"\n") + 1].decode(errors="replace")
