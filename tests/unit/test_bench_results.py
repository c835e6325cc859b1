"""The results in docs/results: `auto` in the code is what they say, two runs agree, and what docs/evaluation.md says of them is in them."""

from __future__ import annotations

import os

import pytest

from unikeel.bench.campaign import plan
from unikeel.bench.campaign.results import Results, read
from unikeel.bench.evaluation import breakeven, comparing, policy
from unikeel.bench.inference import interval, quantile
from unikeel.bench.rows import Key
from unikeel.boot.contract import Choice
from unikeel.boot.policy import automatic

_DIRECTORY = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "docs", "results"
)


@pytest.fixture(scope="module")
def results() -> Results:
    return read([os.path.join(_DIRECTORY, "laptop-1.jsonl.gz")])


@pytest.fixture(scope="module")
def again() -> Results:
    return read([os.path.join(_DIRECTORY, "laptop-2.jsonl.gz")])


def test_auto_is_what_the_results_say_for_every_size(results: Results) -> None:
    found = policy.choices(results)
    assert set(found) == {1, 32, 128}
    assert {Choice(choice) for choice in found.values()} == {
        automatic("ext4", trusted=True, available=frozenset(Choice))
    }


def test_without_the_cache_auto_is_the_next_that_the_results_say(results: Results) -> None:
    rest = frozenset(Choice) - {Choice.CACHE}
    for costs in breakeven.costs(results).values():
        without = {name: cost for name, cost in costs.items() if name != "cache"}
        assert Choice(policy.best(without)) is automatic("ext4", trusted=True, available=rest)


def test_the_first_run_is_complete_and_nothing_in_it_failed(results: Results) -> None:
    assert results.blocks == len(plan.load("laptop").blocks())
    assert [series.key for series in results.series.values() if series.failed] == []


def test_every_significant_difference_has_the_same_sign_in_the_second_run(results: Results, again: Results) -> None:
    found = comparing.agreement(results, again)
    assert (len(found.confirmed), found.contradicted, found.unknown) == (34, [], [])


@pytest.mark.parametrize(
    ("scenario", "image", "strategy", "median"),
    [
        ("boot-size", "boot-32M", "cache", 0.30), ("boot-size", "boot-32M", "shared-view", 0.92), ("boot-size", "boot-32M", "view", 21.4),
        ("boot-size", "boot-32M", "copy", 42.1), ("first", "boot-32M", "cache", 36.1), ("first", "boot-32M", "shared-view", 18.8),
    ],
)  # fmt: skip
def test_figures_of_the_document(results: Results, scenario: str, image: str, strategy: str, median: float) -> None:
    sampled = results.series[Key(scenario, "acquire", "ms", image, strategy, "file", None, 1, 0)].sampled
    value, span = quantile(sampled, 0.5), interval(sampled, 0.5)
    assert value == pytest.approx(median, rel=0.02)
    assert span is not None
    assert span.low <= median <= span.high
