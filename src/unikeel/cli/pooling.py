"""What the commands of the groups ``pool`` and ``snapshot`` have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unikeel.cli.failures import say
from unikeel.errors import NotFound
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.options import Parsed
    from unikeel.cli.session import Session
    from unikeel.records.database import Database
    from unikeel.snapshots.catalog import Catalog, Entry
    from unikeel.snapshots.contract import SnapshotStore
    from unikeel.snapshots.pools.registry import Registry
    from unikeel.snapshots.pools.status import Status
    from unikeel.snapshots.pools.watching import Fill


class Pools:
    """The pools of a state root, and its records, opened when they are first needed."""

    def __init__(self, root: str) -> None:
        from unikeel.engine.layout import Layout
        from unikeel.snapshots.pools.registry import Registry

        self.layout = Layout(root, "")
        self.registry: Registry = Registry(self.layout.pools)
        #: What was cleared up, in sentences.
        self.settled: list[str] = []
        self._closing: list[Callable[[], None]] = []
        self._catalog: Catalog | None = None
        self._database: Database | None = None
        self._stores: dict[tuple[str, str], SnapshotStore] = {}

    def catalog(self) -> Catalog:
        """The records; made if there are none yet. Raises what is wrong with them."""
        if self._catalog is None:
            from unikeel.records.database import Database
            from unikeel.snapshots.catalog import Catalog

            try:
                self._database = Database(self.layout.database)
            except FileNotFoundError:
                raise NotFound(f"there is no state root {self.layout.root}") from None
            self._closing.append(self._database.close)
            self._catalog = Catalog(self._database)
        return self._catalog

    def is_dead(self, token: str) -> bool:
        """Whether the owner of a record is a dead process."""
        from unikeel.records.owners import owner_is_dead

        return owner_is_dead(self.layout.owners, token)

    def named(self, name: str, parsed: Parsed) -> list[Entry]:
        """The snapshots of a name, or all if it is empty, narrowed as the command's options say. :raise NotFound: there is none."""
        consumer, store = parsed.text("consumer"), parsed.text("store")
        found = list(self.catalog().entries(name=name, consumer=consumer, store=store))
        if name and not found:
            raise NotFound(f"snapshot {name!r} does not exist", "`unikeel snapshot ls` shows all")
        return found

    def store(self, entry: Entry) -> SnapshotStore:
        """The store of a snapshot, as its consumer sees it, for looking."""
        from unikeel.snapshots.stores import FILE, StorePlace, open_store

        key = (entry.store, entry.consumer)
        if key not in self._stores:
            self.catalog()
            assert self._database is not None
            place = StorePlace(
                self.layout.snapshots, self._database, "", self.is_dead, 0, pools=self.layout.pools, notice=say
            )
            name = FILE if entry.store == FILE else entry.store.removeprefix("pool:")
            self._stores[key] = open_store(name, place, entry.consumer)
            self._closing.append(self._stores[key].close)
        return self._stores[key]

    def forget(self, store: str) -> None:
        """Drop all records of a store."""
        if os.path.exists(self.layout.database):
            self.catalog().forget(store)

    def close(self) -> None:
        """Close what was opened."""
        while self._closing:
            self._closing.pop()()


@contextmanager
def pools(session: Session, *, make: bool = False) -> Iterator[Pools]:
    """The state root's pools; what a kill left half made is cleared up first, and said.

    :param make: make the state root if it is missing.
    """
    from unikeel.snapshots.pools.lifecycle import settle

    config = session.configuration()
    root = session.state_root(config)
    if make:
        from unikeel.engine.layout import open_layout

        open_layout(root, config.run_root)
    with _closing(Pools(root)) as found:
        found.settled = settle(found.registry, found.forget)
        for sentence in found.settled:
            say(sentence)
        yield found


@contextmanager
def looking(session: Session) -> Iterator[Pools]:
    """The same, with nothing cleared up."""
    with _closing(Pools(session.state_root(session.configuration()))) as found:
        yield found


@contextmanager
def _closing(found: Pools) -> Iterator[Pools]:
    try:
        yield found
    finally:
        found.close()


def described(status: Status) -> dict[str, object]:
    """A :class:`~unikeel.snapshots.pools.status.Status`, as JSON."""
    pool, fill, counts = status.pool, status.fill, status.counts
    return {
        "name": status.name,
        "type": pool.kind.value if pool else "",
        "uuid": pool.uuid if pool else "",
        "state": status.state,
        "data_device": pool.data if pool else "",
        "metadata_device": pool.metadata if pool else "",
        "block_size": pool.block_size if pool else 0,
        "data": _room(fill.data if fill else None),
        "metadata": _room(fill.metadata if fill else None),
        "level": status.verdict.level.name.lower(),
        "snapshots": {
            key: getattr(counts, key) for key in ("committed", "active", "views", "spares", "unfinished", "removed")
        }
        if counts
        else None,
        "consumers": list(counts.consumers) if counts else [],
        "problems": problems(status),
        "pending": list(status.pending),
    }


def problems(status: Status) -> list[str]:
    """What is to be said of a pool, the fill first."""
    return [*([status.verdict.reason] if status.verdict.reason else []), *status.problems]


def _room(fill: Fill | None) -> dict[str, int] | None:
    return {"used": fill.used, "size": fill.total} if fill else None
