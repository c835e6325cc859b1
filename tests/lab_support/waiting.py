"""Waiting for something to be true, with a deadline; never for time to pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

#: How long anything may take here, in seconds: the machine may be busy, and everything is emulated.
PATIENCE: Final = 60

T = TypeVar("T")


def until(look: Callable[[], T | None], what: str, patience: float = PATIENCE, pause: float = 0.02) -> T:
    """Look again and again until the answer is true in Python's sense; that answer. It fails with ``what`` and the last answer."""
    deadline = time.monotonic() + patience
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not after {patience:g} s; the last look said {found!r}")
        time.sleep(pause)
    return found


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self) -> float:
        """The seconds."""
        return time.monotonic() - self._began
