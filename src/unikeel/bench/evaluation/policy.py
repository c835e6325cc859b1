"""What `auto` should choose, by results. Pure.

Of the strategies that are cheaper in all than copying from the second container of an image on at the latest, the one whose later containers pay least: a node starts
an image again and again, and nobody should ever be worse off for more than one start than with what everybody did before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from unikeel.bench.campaign.results import Results
from unikeel.bench.evaluation import breakeven
from unikeel.bench.inference import quantile

_WARM_AND_FIRST: Final = ("warm", "first")
#: By then a strategy must have paid against copying.
LATEST: Final = 2


def best(costs: Mapping[str, breakeven.Cost]) -> str:
    """The strategy; copying, where none pays."""
    baseline = costs[breakeven.BASELINE]
    paid = [
        name for name, cost in costs.items() if name != breakeven.BASELINE and breakeven.after(cost, baseline) <= LATEST
    ]
    return min(paid, key=lambda name: costs[name].later, default=breakeven.BASELINE)


def choices(results: Results) -> dict[int, str]:
    """Megabytes of boot files → the strategy, from the scenarios `first` and `boot-size`."""
    return {size: best(costs) for size, costs in breakeven.costs(results).items() if breakeven.BASELINE in costs}


def under_containerd(results: Results) -> dict[str, str]:
    """Snapshotter → the strategy, from what its containers paid for boot files under containerd. A copy costs the first container what it costs each."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for key, series in results.series.items():
        if (
            key.scenario in _WARM_AND_FIRST
            and key.metric == "acquire"
            and key.strategy
            and key.snapshotter
            and series.values
        ):
            median = quantile(series.sampled, 0.5)
            found.setdefault(key.snapshotter, {}).setdefault(key.strategy, {})[key.scenario] = median or 0.0
    chosen = {}
    for snapshotter, strategies in found.items():
        costs = {
            name: breakeven.Cost(both.get("first", both["warm"]), both["warm"])
            for name, both in strategies.items()
            if "warm" in both and ("first" in both or name == breakeven.BASELINE)
        }
        if len(costs) > 1 and breakeven.BASELINE in costs:
            chosen[snapshotter] = best(costs)
    return chosen
