"""How far a run is, and how long it will take: from what its blocks have taken so far, and a guess for those of which there is none yet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

_MINUTE: Final = 60


class World(Protocol):
    """Where blocks run: a lab on a root, and the snapshotter that it is named after. Worlds are compared and hashed."""

    @property
    def root(self) -> str:
        """The lab's root."""
        ...

    @property
    def snapshotter(self) -> str:
        """Its name in rows and reports."""
        ...


class Block(Protocol):
    """Some rounds of one group of samples in one world, from the round ``first`` on; ``guess`` is how many seconds they may take."""

    @property
    def world(self) -> World:
        """Where."""
        ...

    @property
    def group(self) -> str:
        """What."""
        ...

    @property
    def first(self) -> int:
        """The number of the first round."""
        ...

    @property
    def rounds(self) -> int:
        """How many."""
        ...

    @property
    def guess(self) -> float:
        """Seconds."""
        ...


class Estimate:
    """Seconds that are left. Blocks of one group and world take about the same for each round; guesses are corrected by how wrong they were."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._left = list(blocks)
        self._taken: dict[tuple[str, str], tuple[float, int]] = {}
        self._guessed = self._real = 0.0

    def done(self, block: Block, seconds: float) -> None:
        """A block has ended."""
        self._left.remove(block)
        taken, rounds = self._taken.get(_kind(block), (0.0, 0))
        self._taken[_kind(block)] = (taken + seconds, rounds + block.rounds)
        self._guessed += block.guess
        self._real += seconds

    def left(self) -> float:
        """What is left."""
        wrong = self._real / self._guessed if self._guessed else 1.0
        return sum(self._of(block, wrong) for block in self._left)

    def _of(self, block: Block, wrong: float) -> float:
        taken, rounds = self._taken.get(_kind(block), (0.0, 0))
        return taken / rounds * block.rounds if rounds else block.guess * wrong


def _kind(block: Block) -> tuple[str, str]:
    return block.world.snapshotter, block.group


def duration(seconds: float) -> str:
    """A length of time, as people say it."""
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    minutes = round(seconds / _MINUTE)
    return f"{minutes} min" if minutes < _MINUTE else f"{minutes // _MINUTE} h {minutes % _MINUTE} min"


class Progress:
    """Tells it on standard error: on a terminal in one line that changes, elsewhere one line for each group of each world.

    :param blocks: the whole run.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        *,
        shown: bool | None = None,
        write: Callable[[str], object] = sys.stderr.write,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._terminal = sys.stderr.isatty() if shown is None else shown
        self._write = write
        self._clock = clock
        self._estimate = Estimate(blocks)
        self._all, self._done, self._told, self._began = len(blocks), 0, "", 0.0

    def step(self, what: str) -> None:
        """Something that is no block begins."""
        if self._terminal:
            self._line(f"{what} …")

    def begin(self, block: Block) -> None:
        """A block begins."""
        self._began = self._clock()
        what = f"{block.world.snapshotter}: {block.group}"
        left = f"block {self._done + 1} of {self._all}, about {duration(self._estimate.left())} left"
        if self._terminal:
            self._line(f"{what} from round {block.first + 1}; {left}")
        elif what != self._told:
            self._write(f"bench: {what}; {left}\n")
        self._told = what

    def end(self, block: Block) -> None:
        """It has ended, however."""
        self._done += 1
        self._estimate.done(block, self._clock() - self._began)

    def where(self) -> str:
        """How far it is, for a run that ends early."""
        return f"{self._done} of {self._all} blocks"

    def clear(self) -> None:
        """Make room for something else."""
        if self._terminal:
            self._write("\r\033[K")

    def _line(self, text: str) -> None:
        self._write(f"\r\033[K{text}")
        sys.stderr.flush()
