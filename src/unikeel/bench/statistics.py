"""Percentiles and a confidence interval, pure and without assumptions about the distribution.

Percentiles interpolate linearly between the two nearest samples (type 7 of Hyndman and Fan, what spreadsheets and NumPy do), so that p50 is the
usual median. A percentile is given only if enough samples lie beyond it to mean something: :data:`LEAST`.

The interval is for the median: the two order statistics between which it lies with at least 95 % certainty, from the binomial
distribution alone. It is wider than one that trusts a normal distribution, and right for skewed times, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from unikeel.values import NamedTuple

CONFIDENCE: Final = 0.95

#: The fewest samples for which a percentile is given: 5 beyond p90 and p95, 2 beyond p99.
LEAST: Final = {50: 1, 90: 50, 95: 100, 99: 200}


class Summary(NamedTuple):
    """What is said of a series; ``None`` where there are too few samples. ``ci`` is the interval of the median."""

    n: int
    min: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    max: float | None
    ci: tuple[float, float] | None


def percentile(ordered: Sequence[float], percent: float) -> float:
    """A percentile of samples in ascending order, at least one."""
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    low, high = ordered[below], ordered[above]
    return low if low == high else min(max(low + (high - low) * (position - below), low), high)


def median_interval(ordered: Sequence[float]) -> tuple[float, float] | None:
    """The narrowest pair of order statistics, symmetric in rank, that holds the median with :data:`CONFIDENCE`; None if none does."""
    n = len(ordered)
    rank = _lower_rank(n)
    return None if rank == 0 else (ordered[rank - 1], ordered[n - rank])


def _lower_rank(n: int) -> int:
    """The largest rank (from 1) that fewer than 2.5 % of all series of ``n`` have above their true median; 0: there is none."""
    tail = (1 - CONFIDENCE) / 2
    below, rank = 0, 0
    whole = 1 << n
    for count in range(n // 2):
        below += math.comb(n, count)
        if below / whole > tail:
            break
        rank = count + 1
    return rank


def summarize(samples: Sequence[float]) -> Summary:
    """All that is said of a series, in any order."""
    ordered = sorted(samples)
    n = len(ordered)
    if n == 0:
        return Summary(0, None, None, None, None, None, None, None)
    p50, p90, p95, p99 = (percentile(ordered, percent) if n >= least else None for percent, least in LEAST.items())
    return Summary(n, ordered[0], p50, p90, p95, p99, ordered[-1], median_interval(ordered))
