"""The stores whose answers are tried, on a state root on the disk that loses its power."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from unikeel.records.database import Database
from unikeel.records.owners import Owner
from unikeel.snapshots.contract import SnapshotStore
from unikeel.snapshots.file_store import FileStore

CONSUMER: Final = "power"
_SIZE: Final = 32 << 20


class Opened(NamedTuple):
    """A store; ``is_dead`` for its reconciliation; ``left``: what is left of content when it has no snapshots any more, one line each."""

    store: SnapshotStore
    is_dead: Callable[[str], bool]
    left: Callable[[], list[str]]


@contextmanager
def opened(kind: str, root: str) -> Iterator[Opened]:
    """The store of this kind. :raise UnikeelError: it refuses."""
    owners = os.path.join(root, "owners")
    os.makedirs(owners, exist_ok=True)
    owner, database = Owner(owners), Database(os.path.join(root, "state.db"))
    try:
        found = _KINDS[kind](root, database, owner)
        try:
            yield found
        finally:
            found.store.close()
    finally:
        database.close()
        owner.close()


def _file(root: str, database: Database, owner: Owner) -> Opened:
    directory = os.path.join(root, "snapshots")
    store = FileStore(
        directory, database, consumer=CONSUMER, owner=owner.token, is_dead=owner.is_dead, empty_size=_SIZE
    )
    return Opened(store, owner.is_dead, lambda: sorted(name for name in os.listdir(directory) if name.isdigit()))


_KINDS: Final[dict[str, Callable[[str, Database, Owner], Opened]]] = {"file": _file}
