"""After how many containers of an image a way that is dear at first has paid: as measured, and by a cost model that is linear in the boot files' size. Pure.

What N containers of an image pay for their boot files is ``first + (N - 1) * later``: the medians of the scenarios ``first`` and ``boot-size``, at equal sizes. Counted is
``acquire`` and, since every command pays it, ``prepare`` before it.
The model takes each of the two as ``fixed + rate * megabytes``, by the median of all slopes (Theil and Sen), which an outlier does not move.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping
from typing import Final

from unikeel.bench.campaign.results import Results, Series
from unikeel.bench.evaluation.sorting import question_of, size_of
from unikeel.bench.inference import Interval, Sampled, quantile
from unikeel.values import NamedTuple

_RESAMPLES: Final = 400
BASELINE: Final = "copy"


class Cost(NamedTuple):
    """What the first container of an image pays, and what each later one pays, in ms."""

    first: float
    later: float

    def of(self, count: int) -> float:
        """What so many pay together."""
        return self.first + (count - 1) * self.later


class Line(NamedTuple):
    """A cost by size: ms, and ms for each megabyte."""

    fixed: float
    rate: float

    def at(self, megabytes: float) -> float:
        """The cost of so many megabytes; never less than nothing."""
        return max(0.0, self.fixed + self.rate * megabytes)


class Model(NamedTuple):
    """A strategy's two lines."""

    first: Line
    later: Line

    def at(self, megabytes: float) -> Cost:
        """The cost of an image with so many megabytes of boot files."""
        return Cost(self.first.at(megabytes), self.later.at(megabytes))


class Point(NamedTuple):
    """From how many containers on a strategy is cheaper than another: as measured with its interval, and by the model; infinite: never."""

    strategy: str
    other: str
    megabytes: int
    measured: float
    interval: Interval
    model: float | None


def after(cost: Cost, other: Cost) -> float:
    """From how many containers on the first is cheaper in all, 1: from the first on; infinite: there is no such number."""
    if cost.first < other.first:
        return 1 if cost.later <= other.later else math.inf
    if cost.later >= other.later:
        return math.inf
    return math.floor((cost.first - other.first) / (other.later - cost.later)) + 2


def samples(results: Results) -> dict[int, dict[str, tuple[Sampled, Sampled]]]:
    """Megabytes → strategy → the samples of the first and of later ones; only what has both."""
    found: dict[int, dict[str, dict[str, Sampled]]] = {}
    for key, series in results.series.items():
        size, question = size_of(key), question_of(key)
        if key.metric == "acquire" and size and key.strategy and question in ("first", "boot-size") and series.values:
            prepare = results.series.get(key._replace(metric="prepare"))
            found.setdefault(size, {}).setdefault(key.strategy, {})[question] = _together(series, prepare)
    return {
        size: {name: (both["first"], both["boot-size"]) for name, both in those.items() if len(both) == 2}
        for size, those in sorted(found.items())
    }


def _together(acquire: Series, prepare: Series | None) -> Sampled:
    """Both of each sample. They are taken together, so what has another number of samples is not its own."""
    sampled = acquire.sampled
    if prepare is None or len(prepare.values) != len(acquire.values):
        return sampled
    return sampled._replace(values=tuple(map(sum, zip(acquire.values, prepare.values, strict=True))))


def costs(results: Results) -> dict[int, dict[str, Cost]]:
    """Megabytes → strategy → its cost, by medians."""
    return {
        size: {name: _cost(*both) for name, both in those.items()} for size, those in samples(results).items() if those
    }


def _cost(first: Sampled, later: Sampled) -> Cost:
    return Cost(*(math.inf if (value := quantile(each, 0.5)) is None else value for each in (first, later)))


def models(found: Mapping[int, Mapping[str, Cost]]) -> dict[str, Model]:
    """The strategies of which there are two sizes or more."""
    names = dict.fromkeys(name for those in found.values() for name in those)
    sizes = {name: [(size, those[name]) for size, those in found.items() if name in those] for name in names}
    return {
        name: Model(
            _line([(size, cost.first) for size, cost in those]), _line([(size, cost.later) for size, cost in those])
        )
        for name, those in sizes.items()
        if len(those) >= 2
    }


def _line(points: list[tuple[int, float]]) -> Line:
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for index, a in enumerate(points) for b in points[index + 1 :]]
    rate = statistics.median(slopes)
    return Line(statistics.median(cost - rate * size for size, cost in points), rate)


def points(results: Results) -> list[Point]:
    """Every strategy that keeps something against copying, and the cache against the shared view, for each size."""
    found, all_costs = samples(results), costs(results)
    fitted = models(all_costs)
    wanted = (("shared-view", BASELINE), ("cache", BASELINE), ("cache", "shared-view"))
    return [
        Point(
            name, other, size, after(all_costs[size][name], all_costs[size][other]), spread(those[name], those[other]),
            after(fitted[name].at(size), fitted[other].at(size)) if name in fitted and other in fitted else None,
        )
        for size, those in found.items()
        for name, other in wanted
        if name in those and other in those
    ]  # fmt: skip


def under_containerd(results: Results) -> dict[str, dict[str, tuple[Sampled, Sampled]]]:
    """Snapshotter → strategy → the samples of the first and of later containers under containerd; only where there is copying, whose first container pays what each pays."""
    found: dict[str, dict[str, dict[str, Sampled]]] = {}
    for key, series in results.series.items():
        if key.scenario in ("warm", "first") and key.metric == "acquire" and key.strategy and series.values:
            found.setdefault(key.snapshotter or "", {}).setdefault(key.strategy, {})[key.scenario] = series.sampled
    pairs = {
        snapshotter: {
            name: (both.get("first", both["warm"]), both["warm"])
            for name, both in those.items()
            if "warm" in both and ("first" in both or name == BASELINE)
        }
        for snapshotter, those in found.items()
    }
    return {snapshotter: those for snapshotter, those in pairs.items() if BASELINE in those and len(those) > 1}


def spread(one: tuple[Sampled, Sampled], other: tuple[Sampled, Sampled]) -> Interval:
    """From which container on the first is cheaper in all, with 95 % certainty: by the bootstrap of all four medians, of the first and of later containers."""
    numbers = random.Random(len(one[0].values))  # noqa: S311 - the same report from the same samples
    found = []
    for _ in range(_RESAMPLES):
        again = [Sampled(tuple(numbers.choices(each.values, k=len(each.values)))) for each in (*one, *other)]
        found.append(after(_cost(again[0], again[1]), _cost(again[2], again[3])))
    found.sort()
    cut = int(_RESAMPLES * 0.025)
    return Interval(found[cut], found[-1 - cut])
