"""Time-outs with one timer among them: each comes at its time and none after its call is done."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from ttrpc_service import run
from unikeel.deadlines import Deadlines

#: When a call is late, in steps of the clock, and whether it is done before.
CALLS = st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=12)


class Clock:
    """A loop's clock that a test moves on, and the timers that were set by it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.now = 0.0
        self.timers: list[asyncio.TimerHandle] = []
        self._loop = loop

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: object) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, (), self._loop)  # type: ignore[arg-type]
        self.timers.append(timer)
        return timer

    def pass_to(self, now: float) -> None:
        """Let time pass, and each timer ring that is due then."""
        self.now = now
        while due := [timer for timer in self.timers if timer.when() <= now or timer.cancelled()]:
            for timer in due:
                self.timers.remove(timer)
                if not timer.cancelled():
                    timer._run()


@given(CALLS)
def test_who_is_late_is_told_once_and_in_time(calls: list[tuple[int, bool]]) -> None:
    loop = asyncio.new_event_loop()
    clock = Clock(loop)
    told: list[tuple[int, float]] = []

    def late(number: int) -> object:
        return lambda: told.append((number, clock.now))

    try:
        deadlines = Deadlines(lambda: clock)  # type: ignore[arg-type,return-value]
        for number, (when, _) in enumerate(calls):
            deadlines.add(number, float(when), late(number))  # type: ignore[arg-type]
        for number, (_, done) in enumerate(calls):
            if done:
                deadlines.remove(number)
        for now in range(22):
            clock.pass_to(float(now))
        assert sorted(told) == [(number, float(when)) for number, (when, done) in enumerate(calls) if not done]
        assert not clock.timers
    finally:
        loop.close()


@given(CALLS)
def test_nobody_is_told_after_the_end(calls: list[tuple[int, bool]]) -> None:
    loop = asyncio.new_event_loop()
    clock = Clock(loop)
    told: list[int] = []
    try:
        deadlines = Deadlines(lambda: clock)  # type: ignore[arg-type,return-value]
        for number, (when, _) in enumerate(calls):
            deadlines.add(number, float(when), lambda: told.append(1))
        deadlines.clear()
        clock.pass_to(30.0)
        assert not told
    finally:
        loop.close()


def test_a_call_that_is_late_does_not_keep_others_from_being_told() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        deadlines = Deadlines()
        over = asyncio.Event()
        deadlines.add("far", loop.time() + 3600, over.set)
        deadlines.add("near", loop.time(), lambda: deadlines.add("next", loop.time(), over.set))
        await over.wait()
        deadlines.clear()

    run(test)
