"""Waiting for a quiet host before a round of samples, so that somebody else's work on a shared machine does not become our figures.

It looks before a round and never inside one: no strategy is favoured, and no sample is thrown away for being slow. Each round brings some
patience, and what it does not need is left for the next ones; when there is none left, the round is taken in the noise. The file says
what happened (``environment.quiet``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from unikeel.bench.rows import Json

_WINDOW: Final = 0.1
_IDLE: Final = 0.8


def idle_share(before: str, after: str) -> float:
    """The share of the processors' time that was idle between two texts of /proc/stat (proc(5): idle and iowait are fields 4 and 5)."""
    first, second = (list(map(int, text.split(maxsplit=11)[1:9])) for text in (before, after))
    spent = [late - early for early, late in zip(first, second, strict=True)]
    return (spent[3] + spent[4]) / sum(spent) if sum(spent) > 0 else 1.0


def _stat() -> str:
    with open("/proc/stat", encoding="ascii") as file:
        return file.readline()


class Quiet:
    """:param patience: seconds that each round adds to what may be waited."""

    def __init__(
        self,
        patience: float,
        *,
        stat: Callable[[], str] = _stat,
        sleep: Callable[[float], None] = time.sleep,
        window: float = _WINDOW,
    ) -> None:
        self._patience = patience
        self._left = 0.0
        self._stat = stat
        self._sleep = sleep
        self._window = window
        self.waited = 0.0
        self.rounds = 0
        self.noisy = 0

    def wait(self) -> None:
        """Return when the host is quiet, or when patience is at its end."""
        self.rounds += 1
        self._left += self._patience
        while self._left > 0:
            before = self._stat()
            self._sleep(self._window)
            if idle_share(before, self._stat()) >= _IDLE:
                return
            self.waited += self._window
            self._left -= self._window
        self.noisy += 1

    def describe(self) -> Json:
        """What happened, for the environment."""
        return {
            "patience_s_per_round": self._patience,
            "waited_s": round(self.waited, 1),
            "rounds": self.rounds,
            "not_quiet": self.noisy,
        }
