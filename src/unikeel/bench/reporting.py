"""What every process that takes samples in a lab does: prints them as lines (:mod:`.lines`), each at once, and waits for a quiet host before a round."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from unikeel.bench import lines
from unikeel.bench.quiet import Quiet
from unikeel.bench.rows import Key

T = TypeVar("T")


class Reporter:
    """:param patience: seconds that each round may wait, on average."""

    def __init__(self, patience: float) -> None:
        self.quiet = Quiet(patience)

    def sample(self, key: Key, value: float) -> None:
        """A sample."""
        print(lines.sample(key, value), flush=True)

    def failure(self, keys: Iterable[Key], error: Exception | str) -> None:
        """No sample, for these series."""
        for key in keys:
            print(lines.failure(key, str(error) or type(error).__name__), flush=True)

    def notice(self, message: str) -> None:
        """Something for the report."""
        print(lines.notice(message))

    def begin_round(self) -> None:
        """Wait for a quiet host."""
        self.quiet.wait()

    def end(self) -> None:
        """Everything was measured."""
        print(lines.end(), flush=True)


def rotated(among: Sequence[T], by: int) -> list[T]:
    """The same in another order for each round: each begins in turn, and every second round goes backwards, so that nobody always comes after the same one."""
    start = by // 2 % len(among) if among else 0
    order = [*among[start:], *among[:start]]
    return order[::-1] if by % 2 else order
