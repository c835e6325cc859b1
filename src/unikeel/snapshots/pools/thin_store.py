"""The store in a thin pool of the state root: it asks how full the pool is, and lets go of the pool when it is closed."""

from __future__ import annotations

from unikeel.records.database import Database
from unikeel.snapshots.pools.opening import OpenPool
from unikeel.snapshots.pools.watching import Level
from unikeel.snapshots.recorded import IsDead
from unikeel.snapshots.spares import SpareLimits
from unikeel.snapshots.thin.reference import ThinPoolRef
from unikeel.snapshots.thin.store import ThinStore


class PoolThinStore(ThinStore):
    """:param pool: held until :meth:`close`; ``ref`` is what it is as a thin pool. The rest: :class:`ThinStore`."""

    def __init__(
        self,
        pool: OpenPool,
        ref: ThinPoolRef,
        database: Database,
        *,
        consumer: str,
        owner: str,
        is_dead: IsDead,
        empty_size: int,
        spares: SpareLimits,
    ) -> None:
        self._held = pool
        super().__init__(
            ref,
            database,
            consumer=consumer,
            owner=owner,
            is_dead=is_dead,
            empty_size=empty_size,
            admit=pool.watch.admit,
            scarce=lambda: pool.watch.level() is not Level.FINE,
            spares=spares,
        )

    def close(self) -> None:
        """See the contract."""
        super().close()
        self._held.close()
