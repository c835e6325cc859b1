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


# -- the campaign `lab` ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab() -> Results:
    return read([os.path.join(_DIRECTORY, "lab-1.jsonl.gz")])


def test_auto_under_containerd_is_what_the_results_say_for_every_snapshotter(lab: Results) -> None:
    found = policy.under_containerd(lab)
    assert set(found) == {"blockfile", "erofs", "overlayfs", "unikeel", "devmapper"}
    assert {Choice(choice) for choice in found.values()} == {automatic("", trusted=True, available=frozenset(Choice))}


def test_every_significant_difference_of_the_lab_has_the_same_sign_in_its_second_run(lab: Results) -> None:
    found = comparing.agreement(lab, read([os.path.join(_DIRECTORY, "lab-2.jsonl.gz")]))
    assert (len(found.confirmed), found.contradicted, found.unknown) == (110, [], [])


@pytest.mark.parametrize("strategy", ["cache", "shared-view"])
def test_thirty_siblings_cost_at_most_a_fifth(strategy: str) -> None:
    """On a quiet machine: docs/results/siblings-1.jsonl.gz."""
    series = read([os.path.join(_DIRECTORY, "siblings-1.jsonl.gz")]).series
    alone, beside = (
        series[Key("siblings", "ready", "ms", "hello", strategy, "file", "crun", 1, count)] for count in (0, 30)
    )
    assert [alone.failed, beside.failed, len(alone.values), len(beside.values)] == [{}, {}, 30, 30]
    before, after = quantile(alone.sampled, 0.5), quantile(beside.sampled, 0.5)
    assert before is not None
    assert after is not None
    assert after <= 1.2 * before


@pytest.mark.parametrize(
    ("key", "median"),
    [
        (Key("warm", "acquire", "ms", "bulky", "cache", "blockfile", None, 1, 0), 0.58),
        (Key("warm", "acquire", "ms", "bulky", "view", "devmapper", None, 1, 0), 1271),
        (Key("layers, lowest", "acquire", "ms", "layers-20-first", "shared-view", "erofs", None, 1, 0), 185),
        (Key("image-size", "acquire", "ms", "image-2000M", "cache", "file", None, 1, 0), 1.03),
        (Key("serial", "prepare", "ms", None, None, "thin", None, 1), 131),
        (Key("crowd", "prepare_last", "ms", None, None, "devmapper", None, 32), 24300),
    ],
)
def test_figures_of_the_documents_that_are_of_the_lab(lab: Results, key: Key, median: float) -> None:
    assert quantile(lab.series[key].sampled, 0.5) == pytest.approx(median, rel=0.02)


# -- runs of single questions ----------------------------------------------------------------------------------------


def _runs(name: str, *numbers: int) -> Results:
    return read([os.path.join(_DIRECTORY, f"{name}-{number}.jsonl.gz") for number in numbers])


def test_what_crash_safety_costs_has_the_same_sign_in_both_runs() -> None:
    found = comparing.agreement(_runs("durability", 1), _runs("durability", 2))
    assert (len(found.confirmed), found.contradicted, found.unknown) == (4, [], [])


@pytest.mark.parametrize(("metric", "flushed", "unflushed"), [("prepare", 6.62, 0.60), ("commit", 5.10, 0.36)])
def test_what_crash_safety_costs(metric: str, flushed: float, unflushed: float) -> None:
    series = _runs("durability", 1, 2).series
    for way, median in (("flushed", flushed), ("unflushed", unflushed)):
        key = Key(f"durability, {way}", metric, "ms", "hello", None, "file", None, 1, 0)
        assert len(series[key].values) == 60
        assert quantile(series[key].sampled, 0.5) == pytest.approx(median, rel=0.02)


@pytest.mark.parametrize(
    ("run", "key", "median"),
    [
        ("thin", Key("warm", "view_mount", "ms", "bulky", None, "thin", None, 1, 0), 72.6),
        ("thin", Key("warm", "acquire", "ms", "bulky", "cache", "thin", None, 1, 0), 10.5),
        ("snapshotters", Key("serial", "prepare", "ms", None, None, "btrfs", None, 1), 12.1),
        ("snapshotters", Key("serial", "commit", "ms", None, None, "btrfs", None, 1), 75.4),
    ],
)
def test_figures_of_single_runs(run: str, key: Key, median: float) -> None:
    assert quantile(_runs(run, 1).series[key].sampled, 0.5) == pytest.approx(median, rel=0.02)


def test_no_number_of_siblings_makes_a_difference() -> None:
    pairs = [
        pair for pair in comparing.tested(_runs("siblings", 2)) if pair.first.key.siblings != pair.second.key.siblings
    ]
    assert {pair.second.key.siblings for pair in pairs} == {1, 5, 10, 30}
    assert not any(pair.difference.significant for pair in pairs)


def test_five_layers() -> None:
    series = _runs("layers", 1).series
    for layer, median in (("whole", 30.2), ("lowest", 268)):
        key = Key(f"layers, {layer}", "acquire", "ms", "layers-5-first", "shared-view", "blockfile", None, 1, 0)
        assert quantile(series[key].sampled, 0.5) == pytest.approx(median, rel=0.02)
