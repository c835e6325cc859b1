"""What is to be said of a pool: of what it is, how full, what it holds. Looking changes nothing, and works without the record store, too."""

from __future__ import annotations

from unikeel.errors import UnikeelError
from unikeel.snapshots.catalog import Counts
from unikeel.snapshots.pools.checking import examine
from unikeel.snapshots.pools.definition import Pool, PoolState
from unikeel.snapshots.pools.examining import IsDead, Open, evidence
from unikeel.snapshots.pools.means import means_of
from unikeel.snapshots.pools.registry import Registry
from unikeel.snapshots.pools.watching import LIMITS, Level, Limits, PoolFill, Verdict, judge
from unikeel.values import NamedTuple


class Status(NamedTuple):
    """One pool.

    :ivar pool: ``None``: its definition cannot be read. :ivar fill: ``None``: it is not active. :ivar counts: ``None``: the records cannot be read.
    :ivar problems: sentences without full stops. :ivar pending: what a store will clear up by itself.
    """

    name: str
    pool: Pool | None
    active: bool
    fill: PoolFill | None
    verdict: Verdict
    counts: Counts | None
    problems: tuple[str, ...]
    pending: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """In a word: ``active``, ``inactive``, ``creating``, ``destroying`` or ``damaged``."""
        if self.pool is None:
            return "damaged"
        if self.pool.state is not PoolState.READY:
            return self.pool.state.value
        return "active" if self.active else "inactive"


def status_of(registry: Registry, name: str, catalog: Open, is_dead: IsDead, limits: Limits = LIMITS) -> Status:
    """Look at a pool, and if it is active into it. :raise NotFound: there is none."""
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
    pending: tuple[str, ...] = ()
    if active and counts and pool.state is PoolState.READY:
        report = examine(pool, evidence(registry, pool, catalog, is_dead))
        problems += [problem for problem in report.problems if not (fill and fill.trouble and fill.trouble in problem)]
        pending = report.pending
    return Status(name, pool, active, fill, verdict, counts, tuple(problems), pending)


def usable(registry: Registry, name: str) -> tuple[str, str]:
    """How full a pool is, as words, and what is wrong with it, empty: nothing; without looking into it."""
    problems: list[str] = []
    try:
        pool = registry.find(name)
    except UnikeelError as error:
        return "", str(error)
    active, fill = _fill(registry, pool, problems)
    if fill is None:
        return "not active now" if not active else "", "; ".join(problems)
    text = f"{fill.data.percent:.0f} % of its data is used"
    return text, "; ".join([*problems, *filter(None, [judge(fill).reason])])


def _fill(registry: Registry, pool: Pool, problems: list[str]) -> tuple[bool, PoolFill | None]:
    means = means_of(registry, pool)
    try:
        active = means.is_active()
        return active, means.fill() if active else None
    except (UnikeelError, OSError) as error:
        problems.append(str(error))
        return False, None
