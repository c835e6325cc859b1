"""What may be concluded from samples: intervals of any percentile, and whether two series differ. Pure, without assumptions about the distribution.

A failure is a start of which only this is known: that it was not ready in time. It counts as slower than every sample (it is *censored*), so that a
strategy cannot look fast by failing; a percentile that falls among failures is infinite.

- **Intervals of a percentile** are pairs of order statistics: the number of samples below the true percentile is binomial, whatever the distribution.
  A bootstrap of the p90 of 30 samples covers the truth in some 85 to 90 % of cases only, since it cannot look beyond the greatest sample; order statistics keep
  their word, and say when there are too few samples for any interval.
- **Quotients of medians** have a bootstrap interval, in which medians are well-behaved.
- **Differences** are tested by the Mann-Whitney test, with ties, and with Holm's correction for as many as are looked at together. It asks whether one of the two takes
  longer more often than not, and no more is said.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from typing import Final

from unikeel.bench.statistics import CONFIDENCE
from unikeel.values import NamedTuple

#: The chance of calling a difference one that is none, over all that a report looks at.
LEVEL: Final = 1 - CONFIDENCE
_RESAMPLES: Final = 1000
#: With at most so many ways to divide the samples among two series, all are looked at in place of the normal approximation.
_EXACT: Final = 20_000


class Sampled(NamedTuple):
    """A series: the samples in the order in which they were taken, and how many attempts gave none."""

    values: tuple[float, ...]
    failures: int = 0

    @property
    def attempts(self) -> int:
        """Samples and failures."""
        return len(self.values) + self.failures

    @property
    def ordered(self) -> list[float]:
        """All attempts in ascending order, failures as infinite."""
        return [*sorted(self.values), *[math.inf] * self.failures]


class Interval(NamedTuple):
    """Where the true value is, with :data:`unikeel.bench.statistics.CONFIDENCE`; ``high`` is infinite where only a lower bound is known."""

    low: float
    high: float


def quantile(sampled: Sampled, share: float) -> float | None:
    """A percentile (``share`` 0.5: the median) of all attempts, interpolated as in :func:`unikeel.bench.statistics.percentile`; None without any."""
    ordered = sampled.ordered
    if not ordered:
        return None
    position = (len(ordered) - 1) * share
    below = math.floor(position)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    if low == high or position == below:
        return low
    return low + (high - low) * (position - below)


@lru_cache(maxsize=4096)
def ranks(n: int, share: float, confidence: float = CONFIDENCE) -> tuple[int, int] | None:
    """Ranks (from 1) of the closest pair of order statistics that holds a percentile; None if no pair among ``n`` samples does.

    Of pairs that are equally close, the one that holds it most surely.
    """
    chances = [math.comb(n, count) * share**count * (1 - share) ** (n - count) for count in range(n + 1)]
    sums = [0.0]
    for chance in chances:
        sums.append(sums[-1] + chance)
    best: tuple[int, float, int, int] | None = None
    high = 2
    for low in range(1, n + 1):
        # The percentile lies between the two if at least `low` and at most `high - 1` samples are below it.
        high = max(high, low + 1)
        while high <= n and sums[high] - sums[low] < confidence:
            high += 1
        if high > n:
            break
        found = (high - low, -(sums[high] - sums[low]), low, high)
        best = found if best is None else min(best, found)
    return None if best is None else (best[2], best[3])


def interval(sampled: Sampled, share: float) -> Interval | None:
    """The interval of a percentile; None where there are too few attempts, or not even its lower end is known."""
    found = ranks(sampled.attempts, share)
    if found is None:
        return None
    ordered = sampled.ordered
    low, high = ordered[found[0] - 1], ordered[found[1] - 1]
    return None if math.isinf(low) else Interval(low, high)


class Difference(NamedTuple):
    """Two series compared: how many times the median of the second is that of the first, its interval, and the test's answer.

    :ivar p: the chance of such a difference or a greater one if there is none; after :func:`judged`, corrected for all that were looked at.
    :ivar direction: -1: the first tends to be less, 1: the second, 0: neither.
    """

    ratio: float | None
    interval: Interval | None
    p: float
    direction: int

    @property
    def significant(self) -> bool:
        """Whether it may be called a difference."""
        return self.p < LEVEL


def compare(first: Sampled, second: Sampled) -> Difference:
    """The difference between two series, its ``p`` not yet corrected and without an interval. Either may be empty: then nothing is known."""
    before, after = quantile(first, 0.5), quantile(second, 0.5)
    known = before and after and not math.isinf(before) and not math.isinf(after)
    ratio = after / before if known and before and after else None
    direction, p = mann_whitney(first.ordered, second.ordered)
    return Difference(ratio, None, p, direction)


def judged(differences: Sequence[Difference]) -> list[Difference]:
    """The same with ``p`` corrected by Holm's method, for all of them together."""
    order = sorted(range(len(differences)), key=lambda index: differences[index].p)
    corrected, least = [0.0] * len(differences), 0.0
    for place, index in enumerate(order):
        least = max(least, min(1.0, differences[index].p * (len(differences) - place)))
        corrected[index] = least
    return [difference._replace(p=p) for difference, p in zip(differences, corrected, strict=True)]


def mann_whitney(first: Sequence[float], second: Sequence[float]) -> tuple[int, float]:
    """Which of the two tends to be less (-1: the first), and the two-sided p of the Mann-Whitney test.

    Exact for few samples; else the normal approximation, with its corrections for ties and continuity.
    """
    n, m = len(first), len(second)
    if not n or not m:
        return 0, 1.0
    placed, ties = _midranks([*first, *second])
    mean = n * m / 2
    excess = sum(placed[:n]) - n * (n + 1) / 2 - mean
    direction = (excess > 0) - (excess < 0)
    if math.comb(n + m, n) <= _EXACT:
        return direction, _exact(placed, n, abs(excess))
    total = n + m
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance <= 0:
        return 0, 1.0
    return direction, min(1.0, math.erfc(max(0.0, abs(excess) - 0.5) / math.sqrt(2 * variance)))


def _exact(placed: Sequence[float], n: int, excess: float) -> float:
    """The share of all ways to choose the first series that are at least as far from the mean."""
    expected = sum(placed) * n / len(placed)
    found = [abs(sum(chosen) - expected) >= excess - 1e-9 for chosen in combinations(placed, n)]
    return sum(found) / len(found)


def _midranks(values: Sequence[float]) -> tuple[list[float], float]:
    """Each value's rank, equal ones sharing theirs; and the sum of t³ - t over groups of t equal ones."""
    order = sorted(range(len(values)), key=values.__getitem__)
    placed, ties, begin = [0.0] * len(values), 0.0, 0
    while begin < len(order):
        end = begin
        while end < len(order) and values[order[end]] == values[order[begin]]:
            end += 1
        for index in order[begin:end]:
            placed[index] = (begin + 1 + end) / 2
        ties += (end - begin) ** 3 - (end - begin)
        begin = end
    return placed, ties


def ratio_interval(first: Sampled, second: Sampled, seed: int = 0) -> Interval | None:
    """The bootstrap's percentile interval of the quotient of medians, second over first; None if too many resamples have a median among failures."""
    numbers = random.Random(seed)  # noqa: S311 - the same report from the same samples is what is wanted
    series = (first.ordered, second.ordered)
    found = sorted(
        _quotient(*(_median(numbers.choices(each, k=len(each))) for each in series)) for _ in range(_RESAMPLES)
    )
    cut = int(_RESAMPLES * LEVEL / 2)
    low, high = found[cut], found[-1 - cut]
    return None if math.isinf(low) else Interval(low, high)


def _quotient(before: float, after: float) -> float:
    return 0.0 if math.isinf(before) else math.inf if not before else after / before


def _median(values: list[float]) -> float:
    values.sort()
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2
