"""Percentiles and the interval of the median: against the standard library, and by what must be true of any series."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unikeel.bench.statistics import LEAST, Summary, median_interval, percentile, summarize

_VALUES = st.floats(min_value=0, max_value=1e6, allow_nan=False)


@given(st.lists(_VALUES, min_size=1, max_size=60))
def test_p50_is_the_median(samples: list[float]) -> None:
    assert summarize(samples).p50 == pytest.approx(statistics.median(samples))


@given(st.lists(_VALUES, min_size=2, max_size=300))
def test_percentiles_are_those_of_the_standard_library(samples: list[float]) -> None:
    cuts = statistics.quantiles(samples, n=100, method="inclusive")
    for percent in LEAST:
        assert percentile(sorted(samples), percent) == pytest.approx(cuts[percent - 1], abs=1e-6)


@given(st.lists(_VALUES, max_size=260), st.randoms())
def test_a_summary_is_in_order_and_does_not_depend_on_the_order_of_samples(
    samples: list[float], rng: random.Random
) -> None:
    summary = summarize(samples)
    shuffled = list(samples)
    rng.shuffle(shuffled)
    assert summarize(shuffled) == summary
    figures = [value for value in summary[1:7] if value is not None]
    assert figures == sorted(figures)
    if summary.ci is not None:
        assert summary.p50 is not None
        assert summary.ci[0] <= summary.p50 <= summary.ci[1]
        assert set(summary.ci) <= set(samples)


@pytest.mark.parametrize(("name", "percent"), [("p90", 90), ("p95", 95), ("p99", 99)])
def test_a_percentile_is_given_from_its_least_number_of_samples_on(name: str, percent: int) -> None:
    least = {90: 50, 95: 100, 99: 200}[percent]
    assert getattr(summarize([1.0] * (least - 1)), name) is None
    assert getattr(summarize([1.0] * least), name) == 1.0


def test_nothing_gives_nothing() -> None:
    assert summarize([]) == Summary(0, None, None, None, None, None, None, None)
    assert summarize([3.0]) == Summary(1, 3.0, 3.0, None, None, None, 3.0, None)


@pytest.mark.parametrize(
    ("n", "ranks"),
    # Ranks from the tables of the sign test, for instance Conover, Practical Nonparametric Statistics.
    [
        (5, None),
        (6, (1, 6)),
        (10, (2, 9)),
        (20, (6, 15)),
        (30, (10, 21)),
        (50, (18, 33)),
        (100, (40, 61)),
        (200, (86, 115)),
    ],
)
def test_the_interval_is_that_of_the_sign_test(n: int, ranks: tuple[int, int] | None) -> None:
    ordered = [float(value) for value in range(1, n + 1)]
    assert median_interval(ordered) == ranks


def test_the_interval_covers_a_skewed_median_as_often_as_it_says() -> None:
    rng = random.Random(7)
    true_median, trials = 2**0.5, 1000  # of a Pareto distribution with shape 2
    held = 0
    for _ in range(trials):
        interval = median_interval(sorted(rng.paretovariate(2) for _ in range(30)))
        held += interval is not None and interval[0] <= true_median <= interval[1]
    assert held >= 0.94 * trials
