"""A store of ours filled with snapshots from within this process, as the daemon would make them, without a call for each: thousands are a matter of minutes so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Final

from unikeel.bench.snapshotter import ours
from unikeel.bench.snapshotter.inside.session import Contender
from unikeel.bench.snapshotter.plan import SIZE_MIB
from unikeel.engine.layout import Layout
from unikeel.records.database import Database
from unikeel.records.owners import Owner
from unikeel.snapshots.contract import SnapshotStore
from unikeel.snapshots.stores import StorePlace, open_store, socket_consumer

#: How many are made at once.
_AT_ONCE: Final = 8


def fill(contender: Contender, parent: str, names: list[str]) -> None:
    """Make a writable snapshot of each of these names, as containerd's at its socket. :raise UnikeelError: one cannot be made."""
    with _opened(contender) as store, ThreadPoolExecutor(_AT_ONCE) as pool:
        for made in [pool.submit(store.prepare, name, parent) for name in names]:
            made.result()


@contextmanager
def _opened(contender: Contender) -> Iterator[SnapshotStore]:
    """The contender's store, beside its daemon."""
    layout = Layout(os.path.dirname(contender.records), "")
    owner = Owner(layout.owners)
    try:
        with closing(Database(layout.database)) as database:
            place = StorePlace(layout.snapshots, database, owner.token, owner.is_dead, SIZE_MIB << 20, layout.pools)
            with closing(open_store(ours.store(contender.name), place, socket_consumer(ours.SOCKET))) as store:
                yield store
    finally:
        owner.close()
