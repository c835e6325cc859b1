"""Opening a store by the name that the configuration or a command gives it.

``file`` is the directory ``snapshots`` of the state root; any other name is that of a pool.
"""

from __future__ import annotations

from collections.abc import Callable

from unikeel.errors import NotFound
from unikeel.lean import TYPE_CHECKING, Final
from unikeel.records.database import Database
from unikeel.snapshots.contract import SnapshotStore
from unikeel.snapshots.file_store import FileStore
from unikeel.values import NamedTuple

if TYPE_CHECKING:
    from unikeel.snapshots.pools.opening import OpenPool
    from unikeel.snapshots.spares import SpareLimits
    from unikeel.snapshots.thin.reference import ThinPoolRef

#: The store that every state root has.
FILE: Final = "file"
#: How the consumers that have a socket are called in the records.
_SOCKET: Final = "socket:"


class Spares(NamedTuple):
    """How many snapshots a store may have ready in advance: for one parent, and in all."""

    per_parent: int = 0
    total: int = 0


class StorePlace(NamedTuple):
    """Where a state root keeps its stores, and on whose behalf they are opened.

    :ivar directory: the images of the store ``file``. :ivar pools: what the pools are made of (:mod:`unikeel.snapshots.pools.registry`). :ivar owner: the token of this process. :ivar is_dead: tells whether a token is a
        dead process's. :ivar empty_size: of file systems that are made without a parent, in bytes. :ivar notice: gets warnings about a pool's fill.
    :ivar spares: none unless somebody stays who makes them.
    """

    directory: str
    database: Database
    owner: str
    is_dead: Callable[[str], bool]
    empty_size: int
    pools: str = ""
    notice: Callable[[str], None] = lambda _sentence: None
    spares: Spares = Spares()


def socket_consumer(name: str) -> str:
    """Whose snapshots those are that are made over the socket of this name."""
    return _SOCKET + name


def open_store(name: str, place: StorePlace, consumer: str) -> SnapshotStore:
    """The store of this name, as one consumer sees it; the caller closes it.

    A pool is activated, and held against being taken away until the store is closed.

    :raise NotFound: there is no such store. :raise FailedPrecondition: its content and its records do not belong together, or it is being taken away.
    """
    if name == FILE:
        return FileStore(
            place.directory,
            place.database,
            consumer=consumer,
            owner=place.owner,
            is_dead=place.is_dead,
            empty_size=place.empty_size,
            spares=_limits(place),
        )
    if not place.pools:
        raise NotFound(f"there is no snapshot store {name!r}", f"the store of every state root is {FILE}")
    return _in_pool(name, place, consumer)


def _in_pool(name: str, place: StorePlace, consumer: str) -> SnapshotStore:
    from unikeel.snapshots.pools.opening import open_pool
    from unikeel.snapshots.pools.registry import Registry

    pool = open_pool(Registry(place.pools), name, notice=place.notice)
    try:
        return PoolFileStore(pool, place, consumer) if pool.ref is None else _thin(pool, pool.ref, place, consumer)
    except BaseException:
        pool.close()
        raise


def _thin(pool: OpenPool, ref: ThinPoolRef, place: StorePlace, consumer: str) -> SnapshotStore:
    from unikeel.snapshots.pools.thin_store import PoolThinStore
    from unikeel.snapshots.spares import NO_SPARES

    return PoolThinStore(
        pool,
        ref,
        place.database,
        consumer=consumer,
        owner=place.owner,
        is_dead=place.is_dead,
        empty_size=place.empty_size,
        spares=_limits(place) or NO_SPARES,
    )


def _limits(place: StorePlace) -> SpareLimits | None:
    """What is made ahead; None: nothing, and nothing is imported for it."""
    if not place.spares.total:
        return None
    from unikeel.snapshots.spares import SpareLimits

    return SpareLimits(place.spares.per_parent, place.spares.total)


class PoolFileStore(FileStore):
    """The store in a pool of the kind ``file``; closing it lets go of the pool."""

    def __init__(self, pool: OpenPool, place: StorePlace, consumer: str) -> None:
        from unikeel.snapshots.pools.watching import Level

        self._pool = pool
        super().__init__(
            pool.directory,
            place.database,
            consumer=consumer,
            owner=place.owner,
            is_dead=place.is_dead,
            empty_size=place.empty_size,
            store=pool.pool.store,
            admit=pool.watch.admit,
            spares=_limits(place),
            scarce=lambda: pool.watch.level() is not Level.FINE,
        )

    def close(self) -> None:
        """See the contract."""
        super().close()
        self._pool.close()
