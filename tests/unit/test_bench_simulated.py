"""Campaigns on a runtime whose truth is known: intervals cover it, no difference is made up, real ones are found, and every failure is counted.

The short form is a part of the long form's campaigns, with bounds as wide as so few need; seeds are fixed, so that a result is the same every time.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest

from unikeel.bench.campaign.journal import Journal, Kind
from unikeel.bench.campaign.results import Results, read
from unikeel.bench.campaign.running import run
from unikeel.bench.evaluation import comparing
from unikeel.bench.inference import Interval, interval
from unikeel.testing.synthetic_bench import Synthetic, Truth, campaign

LONG = os.environ.get("UNIKEEL_LONG") == "1"
CAMPAIGNS = 200 if LONG else 30
SAMPLES = 40
#: Two that do not differ, one that does, one that fails in every way.
TRUTHS = {
    "cache": Truth(100, 0.3),
    "shared-view": Truth(100, 0.3),
    "copy": Truth(150, 0.4),
    "view": Truth(100, 0.3, {Kind.FAILURE: 0.02, Kind.FALLBACK: 0.02, Kind.TIMEOUT: 0.015, Kind.UNCLEAN: 0.005}),
}


@pytest.fixture(scope="module")
def simulated() -> Iterator[list[tuple[Synthetic, Results]]]:
    """All campaigns, by the whole way: blocks, boards, a journal on a file, and back."""
    found = []
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        for seed in range(CAMPAIGNS):
            path = os.path.join(directory, f"{seed}.jsonl")
            world, plan = Synthetic(TRUTHS, seed), campaign(list(TRUTHS), SAMPLES)
            with Journal(path, plan) as journal:
                ended = run(plan, journal, world.opened)
            assert (ended.left, ended.incomplete) == (0, False)
            found.append((world, read([path])))
        yield found


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_intervals_cover_the_truth_as_often_as_they_say(
    simulated: list[tuple[Synthetic, Results]], share: float
) -> None:
    for strategy, truth in TRUTHS.items():
        spans = [
            interval(series.sampled, share)
            for _, results in simulated
            for series in results.series.values()
            if series.key.strategy == strategy
        ]
        assert len(spans) == CAMPAIGNS
        held = sum(span is not None and _covers(span, truth.quantile(share)) for span in spans) / CAMPAIGNS
        assert (0.9 if LONG else 0.8) <= held <= (0.99 if LONG else 1), (strategy, share, held)


def _covers(span: Interval, truth: float) -> bool:
    return span.low <= truth <= span.high


def test_no_difference_is_made_up_and_a_real_one_is_found(simulated: list[tuple[Synthetic, Results]]) -> None:
    made_up, found = 0, 0
    for _, results in simulated:
        said = {
            frozenset((pair.first.key.strategy, pair.second.key.strategy)): pair.difference
            for pair in comparing.tested(results)
        }
        assert len(said) == 6
        made_up += said[frozenset(("cache", "shared-view"))].significant
        found += said[frozenset(("cache", "copy"))].significant
    assert made_up <= 0.08 * CAMPAIGNS
    assert found >= 0.9 * CAMPAIGNS


def test_every_failure_is_counted_and_nothing_else(simulated: list[tuple[Synthetic, Results]]) -> None:
    for world, results in simulated:
        counted = dict.fromkeys(Kind, 0)
        for series in results.series.values():
            for kind, count in series.failed.items():
                counted[kind] += count
            assert series.sampled.attempts == SAMPLES
            assert series.warm_ups == (1e6,)
            assert 1e6 not in series.values
        assert counted == world.injected
        assert world.taken == SAMPLES * len(TRUTHS)
    if LONG:
        assert all(sum(world.injected[kind] for world, _ in simulated) for kind in Kind)


def test_contenders_take_turns(simulated: list[tuple[Synthetic, Results]]) -> None:
    for world, _ in simulated:
        rounds = [world.order[at : at + len(TRUTHS)] for at in range(0, len(world.order), len(TRUTHS))]
        assert all(sorted(each) == sorted(TRUTHS) for each in rounds)
        assert len({each[0] for each in rounds}) == len(TRUTHS), "one always comes first"
