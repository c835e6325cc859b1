"""The daemon's event loop: asyncio's own, with a selector that asks the kernel less often.

asyncio asks for what is readable before each round of callbacks, also where the last round has left more of them: each answer that wakes a coroutine costs such
a question, and a task's start has some dozens. Here the rounds that follow one from the other go on without, up to :data:`ROUNDS` of them.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Final

#: Rounds of callbacks in a row after which the kernel is asked in any case, so that nobody who works on and on keeps others waiting.
ROUNDS: Final = 8

Found = list[tuple[selectors.SelectorKey, int]]


class SparingSelector(selectors.EpollSelector):
    """epoll(7), asked only by those who would wait, and every so often."""

    def __init__(self) -> None:
        super().__init__()
        self._spared = 0

    def select(self, timeout: float | None = None) -> Found:
        """What is ready; nothing, most of the time, if the caller has something to do meanwhile (a time-out of 0)."""
        if timeout is not None and timeout <= 0 and self._spared < ROUNDS:
            self._spared += 1
            return []
        self._spared = 0
        return super().select(timeout)


def new_loop() -> asyncio.AbstractEventLoop:
    """An event loop with such a selector."""
    return asyncio.SelectorEventLoop(SparingSelector())
