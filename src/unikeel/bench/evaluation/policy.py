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
    """Snapshotter → the strategy, from what containers paid for boot files under containerd.

    A strategy counts as paid by the second container unless it is certain to be later (95 %): there are few first containers.
    """
    chosen = {}
    for snapshotter, those in breakeven.under_containerd(results).items():
        baseline = those[breakeven.BASELINE]
        paid = [
            name
            for name, both in those.items()
            if name != breakeven.BASELINE and breakeven.spread(both, baseline).low <= LATEST
        ]
        later = {name: quantile(those[name][1], 0.5) or 0.0 for name in paid}
        chosen[snapshotter] = min(paid, key=lambda name: later[name], default=breakeven.BASELINE)
    return chosen
