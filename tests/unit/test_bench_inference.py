"""Intervals and tests: against enumeration, against the binomial distribution, and by what must be true of any samples."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unikeel.bench.inference import (
    Difference,
    Interval,
    Sampled,
    compare,
    interval,
    judged,
    mann_whitney,
    quantile,
    ranks,
    ratio_interval,
)

_VALUES = st.lists(st.floats(0.001, 1e6, allow_nan=False), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("n", "share", "expected"),
    [(5, 0.5, None), (6, 0.5, (1, 6)), (30, 0.5, (10, 21)), (28, 0.9, None), (29, 0.9, (21, 29))],
)
def test_ranks(n: int, share: float, expected: tuple[int, int] | None) -> None:
    assert ranks(n, share) == expected


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95])
def test_a_pair_of_ranks_holds_the_percentile_as_surely_as_it_says_and_no_closer_pair_does(share: float) -> None:
    for n in (10, 30, 47, 60, 120):

        def held(low: int, high: int, n: int = n) -> float:
            return sum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(low, high))

        found = ranks(n, share)
        closest = min(
            (high - low for low, high in itertools.combinations(range(1, n + 1), 2) if held(low, high) >= 0.95),
            default=None,
        )
        assert (None if found is None else found[1] - found[0]) == closest
        assert found is None or held(*found) >= 0.95


@pytest.mark.parametrize("n", [29, 30, 45, 60])
def test_p90_is_covered_with_as_few_samples_as_there_may_be(n: int) -> None:
    numbers = random.Random(n)
    truth = math.exp(1.2815515655446004)
    spans = [interval(Sampled(tuple(numbers.lognormvariate(0, 1) for _ in range(n))), 0.9) for _ in range(1500)]
    held = sum(span is not None and span.low <= truth <= span.high for span in spans) / len(spans)
    assert 0.935 <= held <= 0.99


@given(_VALUES, st.integers(0, 10), st.sampled_from([0.5, 0.9]))
def test_a_failure_only_ever_makes_slower(values: list[float], failures: int, share: float) -> None:
    before, after = Sampled(tuple(values), failures), Sampled(tuple(values), failures + 1)
    one, other = quantile(before, share), quantile(after, share)
    assert one is not None
    assert other is not None
    assert one <= other
    assert after.attempts == len(values) + failures + 1


def test_a_percentile_among_failures_is_infinite_and_its_interval_open() -> None:
    sampled = Sampled(tuple(float(value) for value in range(1, 31)), 10)
    assert quantile(sampled, 0.5) == 20.5
    assert quantile(sampled, 0.9) == math.inf
    assert interval(sampled, 0.9) is None or interval(sampled, 0.9) == Interval(30.0, math.inf)
    assert quantile(Sampled((), 3), 0.5) == math.inf
    assert quantile(Sampled(()), 0.5) is None


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.lists(st.integers(0, 6), min_size=1, max_size=5))
def test_few_samples_are_tested_exactly(first: list[int], second: list[int]) -> None:
    def less(one: tuple[int, ...], other: tuple[int, ...]) -> float:
        return sum((a < b) + (a == b) / 2 for a in one for b in other)

    pool, n, m = [*first, *second], len(first), len(second)
    seen = abs(less(tuple(first), tuple(second)) - n * m / 2)
    ways = 0
    for chosen in itertools.combinations(range(n + m), n):
        rest = tuple(pool[index] for index in range(n + m) if index not in chosen)
        ways += abs(less(tuple(pool[index] for index in chosen), rest) - n * m / 2) >= seen - 1e-9
    assert mann_whitney(first, second)[1] == pytest.approx(ways / math.comb(n + m, n))


def test_many_samples_are_tested_as_the_tables_say() -> None:
    # U = 138 for two series of 20 has z = (200 - 138 - 0.5) / sqrt(20 * 20 * 41 / 12) = 1.6636.
    first = list(range(20))
    second = [value + 0.5 + 3.1 for value in range(20)]
    direction, p = mann_whitney(first, second)
    below = sum(a < b for a in first for b in second)
    z = (below - 200 - 0.5) / math.sqrt(20 * 20 * 41 / 12)
    assert direction == -1
    assert p == pytest.approx(math.erfc(z / math.sqrt(2)))


@given(_VALUES, _VALUES)
def test_comparing_the_other_way_round_is_the_same(first: list[float], second: list[float]) -> None:
    one, other = mann_whitney(first, second), mann_whitney(second, first)
    assert one[1] == pytest.approx(other[1])
    assert one[0] == -other[0]
    assert 0 <= one[1] <= 1


def test_failures_tie_with_each_other_and_are_slower_than_anything() -> None:
    fast = Sampled(tuple(100 + value / 10 for value in range(30)))
    failing = Sampled(tuple(90 + value / 10 for value in range(10)), 20)
    found = compare(fast, failing)
    assert (found.direction, found.significant, found.ratio) == (-1, True, None)
    assert not compare(Sampled((), 30), Sampled((), 30)).significant


def test_nothing_and_constants_do_not_differ() -> None:
    assert not compare(Sampled(()), Sampled((1.0, 2.0))).significant
    assert not compare(Sampled((5.0,) * 30), Sampled((5.0,) * 30)).significant


def test_corrected_for_all_that_were_looked_at() -> None:
    found = judged([Difference(None, None, p, 1) for p in (0.01, 0.04, 0.03, 0.005)])
    assert [round(each.p, 6) for each in found] == [0.03, 0.06, 0.06, 0.02]


def test_the_quotient_of_medians_is_covered() -> None:
    numbers = random.Random(5)
    held = 0
    for trial in range(60):
        first = Sampled(tuple(numbers.lognormvariate(0, 0.5) for _ in range(30)))
        second = Sampled(tuple(2 * numbers.lognormvariate(0, 0.5) for _ in range(30)))
        span = ratio_interval(first, second, trial)
        assert span is not None
        held += span.low <= 2 <= span.high
    assert 0.9 <= held / 60 <= 1
