"""The engine's snapshot store as boot files reach into it: a committed snapshot is a file, which needs nothing to be made."""

from __future__ import annotations

from collections.abc import Callable

from unikeel.boot.contract import OWN, HostMount, Parent, Reached, nothing_asked
from unikeel.errors import AlreadyExists, NotFound
from unikeel.snapshots.file_store import FileStore

CONSUMER = "engine"


class StoreReach:
    """A :class:`~unikeel.boot.contract.Reach`. :param store: opens the store when it is first needed."""

    def __init__(self, store: Callable[[], FileStore]) -> None:
        self._store = store

    @property
    def records(self) -> bool:
        """None."""
        return False

    def serves(self, consumer: str) -> bool:
        """Our own only."""
        return consumer == CONSUMER

    def reach(
        self,
        parent: Parent,
        purpose: str,
        container: str = "",
        asked: Callable[[], None] = nothing_asked,
    ) -> Reached:
        """The file itself; for a container's own view, a view snapshot: one of its name that no record knows is a dead process's, and goes first."""
        asked()
        if purpose != OWN:
            return Reached((HostMount(parent.fstype, self._store().disk(parent.name).path),))
        view = _view(parent.key, container)
        try:
            mounts = self._store().view(view, parent.name)
        except AlreadyExists:
            self.give_back(parent.key, purpose, container)
            mounts = self._store().view(view, parent.name)
        return Reached((HostMount(parent.fstype, mounts[0].source),), view)

    def give_back(self, parent_key: str, purpose: str, container: str = "") -> None:
        """Remove the view snapshot; there is nothing else."""
        if purpose == OWN:
            try:
                self._store().remove(_view(parent_key, container))
            except NotFound:
                return

    def tend(self) -> None:
        """Nothing is ever due."""


def _view(parent_key: str, container: str) -> str:
    return f"boot-view-{container}-{parent_key[:12]}"
