"""The tasks as this process knows them: each record in memory, a lock for those who change it, and who waits for its end.

State, Connect and Pids are answered from here, so that they wait for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from unikeel.engine.tasks import Place, Task, identify
from unikeel.engine.timeline import Timeline
from unikeel.errors import NotFound
from unikeel.model.task_states import TaskState

#: The names of the listeners of places begin with it.
TASKS = "task:"
_DONE = frozenset({TaskState.STOPPED, TaskState.DELETING})
_ABSENT = frozenset({TaskState.CREATING, TaskState.DELETING})


class Live:
    """One task."""

    __slots__ = ("_ended", "lock", "oom_told", "reported", "task", "timeline")

    def __init__(self, task: Task) -> None:
        #: The record as it is on the disk.
        self.task = task
        #: Held by whoever changes it.
        self.lock = asyncio.Lock()
        #: How many kills by the memory limit were told.
        self.oom_told = 0
        #: The steps of its start, while this process knows them.
        self.timeline: Timeline | None = None
        #: Set once the keeper has told the end of its monitor, which may not be recorded yet.
        self.reported = asyncio.Event()
        self._ended = asyncio.Event()
        self.changed(task)

    def changed(self, task: Task) -> Task:
        """The record has changed, and is on the disk."""
        self.task = task
        if task.state in _DONE:
            self._ended.set()
        return task

    async def ended(self) -> Task:
        """Wait for its end; the record then."""
        await self._ended.wait()
        return self.task

    def gone(self) -> None:
        """It is deleted, or was never made: nobody waits any more."""
        self._ended.set()


class Registry:
    """All tasks, and the places that they are of.

    Each place has a socket of its own, because a request does not always say its namespace: containerd 1.7 sends none with it.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, Live] = {}
        self._places: dict[str, Place] = {}
        self._ttrpc: dict[str, str] = {}

    def __iter__(self) -> Iterator[Live]:
        return iter(list(self._tasks.values()))

    def __len__(self) -> int:
        return len(self._tasks)

    # -- places ----------------------------------------------------------------------------------------------------

    def know(self, place: Place, ttrpc: str) -> bool:
        """Know a place, and where its containerd takes events; whether that is news."""
        known = place.short in self._places and self._ttrpc.get(place.containerd) == ttrpc
        self._places[place.short] = place
        self._ttrpc[place.containerd] = ttrpc
        return not known

    def ttrpc(self, containerd: str) -> str:
        """Where a containerd takes events; empty: nowhere that is known."""
        return self._ttrpc.get(containerd, "")

    def place(self, listener: str) -> Place:
        """Which place is served on a listener. :raise NotFound: it is none that we know."""
        found = self._places.get(listener.partition(":")[2])
        if found is None:
            raise NotFound(f"nobody is known to talk on {listener[:80]}")
        return found

    def places(self) -> list[Place]:
        """All that are known."""
        return list(self._places.values())

    def containerds(self) -> set[str]:
        """The addresses of all containerds that are known."""
        return {place.containerd for place in self._places.values()}

    # -- tasks -----------------------------------------------------------------------------------------------------

    def put(self, task: Task) -> Live:
        """Know a task."""
        live = self._tasks[task.ident] = Live(task)
        return live

    def forget(self, live: Live) -> None:
        """A task is deleted, or was never made."""
        if self._tasks.get(live.task.ident) is live:
            del self._tasks[live.task.ident]
        live.gone()

    def by_name(self, ident: str) -> Live | None:
        """By our own name."""
        return self._tasks.get(ident)

    def find(self, place: Place, ident: str) -> Live | None:
        """A task by its place and id, in whatever state."""
        return self._tasks.get(identify(*place, ident))

    def get(self, place: Place, ident: str) -> Live:
        """The same, if it is there for containerd. :raise NotFound: it is not, not yet or not any more."""
        live = self.find(place, ident)
        if live is None or live.task.state in _ABSENT:
            raise NotFound(f"there is no task {ident[:100]} in namespace {place.namespace[:100]}")
        return live
