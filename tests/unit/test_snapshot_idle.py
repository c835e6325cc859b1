"""When a store counts as idle, by a clock of the test's own."""

from __future__ import annotations

import pytest

from unikeel.snapshots.idle import PATIENCE, QUIET, Idleness


class Clock:
    """Seconds that the test lets go by."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def idleness(clock: Clock) -> Idleness:
    return Idleness(clock)


def test_a_store_that_nobody_called_is_idle(clock: Clock, idleness: Idleness) -> None:
    assert idleness.put_off(clock.now) == 0


def test_work_waits_for_a_while_after_a_call(clock: Clock, idleness: Idleness) -> None:
    with idleness.calling():
        clock.now += 1
    assert idleness.put_off(clock.now) == pytest.approx(QUIET)
    clock.now += QUIET / 2
    assert idleness.put_off(clock.now) == pytest.approx(QUIET / 2)
    clock.now += QUIET
    assert idleness.put_off(clock.now) == 0


def test_a_call_that_fails_has_ended(clock: Clock, idleness: Idleness) -> None:
    with pytest.raises(ValueError, match="x"), idleness.calling():
        raise ValueError("x")
    clock.now += 2 * QUIET
    assert idleness.put_off(clock.now) == 0


def test_work_waits_for_all_calls(clock: Clock, idleness: Idleness) -> None:
    with idleness.calling():
        with idleness.calling():
            pass
        clock.now += 2 * QUIET
        assert idleness.put_off(clock.now) == pytest.approx(QUIET)


def test_a_store_that_is_never_idle_does_its_work_all_the_same(clock: Clock, idleness: Idleness) -> None:
    wanted = clock.now
    with idleness.calling():
        clock.now = wanted + PATIENCE - 0.1
        assert idleness.put_off(wanted) == pytest.approx(0.1)
        clock.now = wanted + PATIENCE
        assert idleness.put_off(wanted) == 0
