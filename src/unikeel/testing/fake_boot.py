"""Stand-ins for what the boot package needs from others: a holder of views, and a store that makes view snapshots."""

from __future__ import annotations

import os
from collections.abc import Callable

from unikeel.boot.contract import OWN, HostMount, Parent, Reached, nothing_asked
from unikeel.errors import NotFound, Unavailable


class FakeHolder:
    """A :class:`~unikeel.boot.contract.ViewHolder` in this process. With ``away`` set, every call says Unavailable."""

    def __init__(self) -> None:
        self.away = False
        self._held: dict[str, int] = {}

    def _check(self) -> None:
        if self.away:
            raise Unavailable("the holder is away")

    def put(self, name: str, fd: int) -> None:
        """Keep a copy of ``fd``."""
        self._check()
        self.drop(name)
        self._held[name] = os.dup(fd)

    def get(self, name: str) -> int | None:
        """A copy of what is kept."""
        self._check()
        return os.dup(self._held[name]) if name in self._held else None

    def drop(self, name: str) -> None:
        """Let go of it."""
        self._check()
        fd = self._held.pop(name, -1)
        if fd >= 0:
            os.close(fd)

    def names(self) -> list[str]:
        """What is kept."""
        self._check()
        return sorted(self._held)

    def close(self) -> None:
        """Let go of everything."""
        for fd in self._held.values():
            os.close(fd)
        self._held.clear()


class FakeReach:
    """A :class:`~unikeel.boot.contract.Reach` whose views are files in a directory, shared by processes.

    :param parents: name of a committed snapshot → how it is mounted; views show the parent's image, as the store ``file`` does.
    """

    def __init__(self, directory: str, parents: dict[str, tuple[HostMount, ...]], consumer: str = "engine") -> None:
        self._directory = directory
        self._parents = parents
        self._consumer = consumer
        os.makedirs(directory, exist_ok=True)

    @property
    def records(self) -> bool:
        """None."""
        return False

    def serves(self, consumer: str) -> bool:
        """One consumer."""
        return consumer == self._consumer

    def reach(
        self,
        parent: Parent,
        purpose: str,
        container: str = "",
        asked: Callable[[], None] = nothing_asked,
    ) -> Reached:
        """The parent's image, and a file for a view."""
        asked()
        if parent.name not in self._parents:
            raise NotFound(f"no snapshot {parent.name}")
        view = ""
        if purpose == OWN:
            view = self._view(parent.key, container)
            os.close(os.open(os.path.join(self._directory, view), os.O_WRONLY | os.O_CREAT, 0o600))
        return Reached(self._parents[parent.name], view)

    def give_back(self, parent_key: str, purpose: str, container: str = "") -> None:
        """Remove a view."""
        if purpose == OWN:
            try:
                os.unlink(os.path.join(self._directory, self._view(parent_key, container)))
            except FileNotFoundError:
                return

    def tend(self) -> None:
        """Nothing is due."""

    def _view(self, parent_key: str, container: str) -> str:
        return f"{container}-{parent_key[:12]}"

    def names(self) -> list[str]:
        """The views there are."""
        return sorted(os.listdir(self._directory))
