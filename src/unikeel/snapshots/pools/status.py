"""What is to be said of a pool: of what it is, how full, what it holds. Looking changes nothing, and works without the record store, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from unikeel.errors import UnikeelError
from unikeel.snapshots.catalog import Catalog, Counts
from unikeel.snapshots.pools.definition import Pool, PoolState
from unikeel.snapshots.pools.means import means_of
from unikeel.snapshots.pools.registry import Registry
from unikeel.snapshots.pools.watching import LIMITS, Level, Limits, PoolFill, Verdict, judge

#: Opens the record store's catalog. Raises what is wrong with it.
Open = Callable[[], Catalog]


class Status(NamedTuple):
    """One pool.

    :ivar pool: ``None``: its definition cannot be read. :ivar fill: ``None``: it is not active. :ivar counts: ``None``: the records cannot be read.
    :ivar problems: sentences without full stops.
    """

    name: str
    pool: Pool | None
    active: bool
    fill: PoolFill | None
    verdict: Verdict
    counts: Counts | None
    problems: tuple[str, ...]

    @property
    def state(self) -> str:
        """In a word: ``active``, ``inactive``, ``creating``, ``destroying`` or ``damaged``."""
        if self.pool is None:
            return "damaged"
        if self.pool.state is not PoolState.READY:
            return self.pool.state.value
        return "active" if self.active else "inactive"


def status_of(registry: Registry, name: str, catalog: Open, limits: Limits = LIMITS) -> Status:
    """Look at a pool. :raise NotFound: there is none."""
    problems: list[str] = []
    try:
        pool = registry.read(name)
    except UnikeelError as error:
        if name not in registry.names():
            raise
        return Status(name, None, False, None, Verdict(Level.FINE), None, (str(error),))
    active, fill = _fill(registry, pool, problems)
    counts = None
    try:
        counts = catalog().counts(pool.store)
    except UnikeelError as error:
        problems.append(str(error))
    verdict = judge(fill, limits) if fill else Verdict(Level.FINE)
    return Status(name, pool, active, fill, verdict, counts, tuple(problems))


def _fill(registry: Registry, pool: Pool, problems: list[str]) -> tuple[bool, PoolFill | None]:
    means = means_of(registry, pool)
    try:
        active = means.is_active()
        return active, means.fill() if active else None
    except (UnikeelError, OSError) as error:
        problems.append(str(error))
        return False, None
