"""The stores whose answers are tried, on a state root on the disk that loses its power."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from lab_support.power.disks import tool
from unikeel.records.database import Database
from unikeel.records.owners import Owner
from unikeel.snapshots import file_store
from unikeel.snapshots.catalog import Catalog
from unikeel.snapshots.contract import SnapshotStore
from unikeel.snapshots.stores import FILE, StorePlace, open_store

CONSUMER: Final = "power"
THIN: Final = "thin"
#: The store of files on a file system where they share blocks.
XFS: Final = "xfs"
_SIZE: Final = 32 << 20
#: The thin pool's name, on two parts of the disk.
_POOL: Final = "power"


class Opened(NamedTuple):
    """A store; ``is_dead`` for its reconciliation; ``left``: what is left of content when it has no snapshots any more, one line each."""

    store: SnapshotStore
    is_dead: Callable[[str], bool]
    left: Callable[[], list[str]]


@contextmanager
def opened(kind: str, root: str) -> Iterator[Opened]:
    """The store of this kind. :raise UnikeelError: it refuses."""
    # A cut that the machine outlives is a boot's end all the same.
    vars(file_store)["boot_id"] = lambda: os.urandom(8).hex()
    owners = os.path.join(root, "owners")
    os.makedirs(owners, exist_ok=True)
    owner, database = Owner(owners), Database(os.path.join(root, "state.db"))
    try:
        found = _KINDS[kind](root, database, owner)
        try:
            yield found
        finally:
            found.store.close()
            if kind == THIN:
                _taken_down()
    finally:
        database.close()
        owner.close()


def _place(root: str, database: Database, owner: Owner) -> StorePlace:
    pools = os.path.join(root, "pools")
    return StorePlace(os.path.join(root, "snapshots"), database, owner.token, owner.is_dead, _SIZE, pools)


def _file(root: str, database: Database, owner: Owner) -> Opened:
    place = _place(root, database, owner)
    store = open_store(FILE, place, CONSUMER)
    return Opened(
        store, owner.is_dead, lambda: sorted(name for name in os.listdir(place.directory) if name.endswith(".img"))
    )


def _thin(root: str, database: Database, owner: Owner) -> Opened:
    from unikeel.kernel.devmapper import Control
    from unikeel.snapshots.pools.registry import Registry
    from unikeel.snapshots.thin.contents import thin_numbers
    from unikeel.snapshots.thin.reference import IDENTITY_ID, pool_ref

    place = _place(root, database, owner)
    registry = Registry(place.pools)
    if _POOL not in registry.names():
        devices = ["--data", "/dev/mapper/power-data", "--metadata", "/dev/mapper/power-meta"]
        tool("env", f"UNIKEEL_ROOT={root}", "unikeel", "pool", "create", _POOL, *devices)
    store = open_store(_POOL, place, CONSUMER)
    ref = pool_ref(_POOL, registry.find(_POOL).uuid)

    def left() -> list[str]:
        recorded = {entry.id for entry in Catalog(database).entries(store=ref.store, own=True)}
        with Control() as control:
            return [str(number) for number in sorted(thin_numbers(control, ref) - recorded - {IDENTITY_ID})]

    return Opened(store, owner.is_dead, left)


def _taken_down() -> None:
    """What a reboot does to the pool's devices: their tables are gone, nothing else is changed."""
    names = [line.split()[0] for line in tool("dmsetup", "ls").splitlines() if line.startswith(f"unikeel-{_POOL}")]
    for name in sorted(names, reverse=True):
        tool("dmsetup", "remove", "--retry", name)


_KINDS: Final[dict[str, Callable[[str, Database, Owner], Opened]]] = {FILE: _file, XFS: _file, THIN: _thin}


def file_system(kind: str) -> str:
    """What a store's state root lies on."""
    return "xfs" if kind == XFS else "ext4"
