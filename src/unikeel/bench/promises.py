"""The promised figures of the main job, and whether a run's rows keep them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from unikeel.bench.rows import Row, find
from unikeel.values import NamedTuple

ACQUIRE_MS: Final = 1.0
COPY_RATIO: Final = 30.0
SIZE_RATIO: Final = 1.2
EXEC_MS: Final = 150.0
IMPORT_MS: Final = 80.0
TAP_MS: Final = 8.0
PLAN_MS: Final = 1.0
_KEPT: Final = ("cache", "shared-view")


class Verdict(NamedTuple):
    """One promise: what, the measured value, kept or not; ``None``: this run did not measure it."""

    promise: str
    measured: str
    kept: bool | None


class Ratio(NamedTuple):
    """The quotient of two medians, and the least and the most it is by their confidence intervals (equal to it without intervals)."""

    value: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.least:.2f}, {self.most:.2f}]"


def ratio(over: Row | None, under: Row | None) -> Ratio | None:
    """How many times the median of ``over`` is that of ``under``; None without figures."""
    if over is None or under is None or over.p50 is None or not under.p50:
        return None
    value = over.p50 / under.p50
    if over.ci is None or under.ci is None or not under.ci[0]:
        return Ratio(value, value, value)
    return Ratio(value, over.ci[0] / under.ci[1], over.ci[1] / under.ci[0])


def warm(rows: Sequence[Row], image: str, strategy: str) -> Row | None:
    """The warm acquire of an image."""
    return find(rows, "acquire", "warm", image, strategy)


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """All promises, in the order of the issue."""
    found = [_slowest(rows, "acquire", f"acquire by {strategy}, warm", ACQUIRE_MS, (strategy,)) for strategy in _KEPT]
    for strategy in _KEPT:
        times = ratio(warm(rows, "bulky", "copy"), warm(rows, "bulky", strategy))
        kept = None if times is None else times.value >= COPY_RATIO
        promise = f"copy / {strategy}, 32 MB of boot files: at least {COPY_RATIO:g}"
        found.append(Verdict(promise, "" if times is None else str(times), kept))
    for strategy in _KEPT:
        times = ratio(warm(rows, "ballast", strategy), warm(rows, "hello", strategy))
        kept = None if times is None else times.value <= SIZE_RATIO
        promise = f"1 GiB image / small image by {strategy}: at most {SIZE_RATIO:g}"
        found.append(Verdict(promise, "" if times is None else str(times), kept))
    found.append(_slowest(rows, "exec", "command to the monitor's exec, warm", EXEC_MS))
    found.append(_slowest(rows, "import", "interpreter and imports", IMPORT_MS))
    found.append(_slowest(rows, "tap", "a guest's tap in a pod's namespace", TAP_MS, scenario="first"))
    found.append(_slowest(rows, "plan", "building a launch plan", PLAN_MS))
    return [*found, _all_sampled(rows)]


def _slowest(
    rows: Sequence[Row],
    metric: str,
    what: str,
    limit: float,
    strategies: Sequence[str | None] = (),
    scenario: str = "warm",
) -> Verdict:
    """Whether the largest median of a metric's rows of a scenario is under a limit."""
    found = [
        (row.p50, f"{row.image}, {row.strategy}, n = {row.n}")
        for row in rows
        if row.metric == metric and row.scenario == scenario and row.p50 is not None
        if not strategies or row.strategy in strategies
    ]
    promise = f"{what}: p50 under {limit:g} ms"
    if not found:
        return Verdict(promise, "", None)
    worst, where = max(found)
    return Verdict(promise, f"{worst:.3f} ms at worst ({where})", worst < limit)


def _all_sampled(rows: Sequence[Row]) -> Verdict:
    failed, taken = sum(row.failures for row in rows), sum(row.n for row in rows)
    return Verdict("no sample failed, no fallback", f"{failed} of {failed + taken}", failed == 0)
