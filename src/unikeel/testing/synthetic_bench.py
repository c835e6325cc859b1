"""A runtime that does not exist, with known latencies and failures: what a campaign must find out is known beforehand.

A contender's latency is log-normal, of which each share is in failures of a kind; so every percentile of its attempts is known exactly.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import NormalDist

from unikeel.bench.campaign.journal import Journal, Kind
from unikeel.bench.campaign.plan import Block, Campaign, Cell, Table
from unikeel.bench.lines import Found
from unikeel.bench.reporting import rotated
from unikeel.bench.rows import Board, Key
from unikeel.values import NamedTuple

#: What a failure of each kind says.
MESSAGES: Mapping[Kind, str] = {
    Kind.FAILURE: "`unikeel run` ended with status 1",
    Kind.FALLBACK: "copy served instead (cache: it is not set up here)",
    Kind.TIMEOUT: "the guest was not ready in time",
    Kind.UNCLEAN: "left behind: mount /somewhere",
}


class Truth(NamedTuple):
    """A contender: the median of its latency, its spread (of the logarithm), and the shares of its attempts that fail, by kind."""

    median: float
    spread: float
    failing: Mapping[Kind, float] = {}

    def quantile(self, share: float) -> float:
        """A percentile of its attempts, failures counting as infinitely slow."""
        succeeding = 1 - sum(self.failing.values())
        return (
            math.inf
            if share >= succeeding
            else self.median * math.exp(self.spread * NormalDist().inv_cdf(share / succeeding))
        )

    def attempt(self, numbers: random.Random) -> float | Kind:
        """One attempt."""
        drawn = numbers.random()
        for kind, share in self.failing.items():
            drawn -= share
            if drawn < 0:
                return kind
        return numbers.lognormvariate(math.log(self.median), self.spread)


class Synthetic:
    """The world. ``injected``: how many failures of each kind it has given; ``ends``: called before each sample, where it may be interrupted."""

    def __init__(self, truths: Mapping[str, Truth], seed: int, ends: Callable[[int], None] = lambda _: None) -> None:
        self.truths = truths
        self.injected = dict.fromkeys(Kind, 0)
        self.taken = 0
        self.order: list[str] = []
        self._numbers = random.Random(seed)  # noqa: S311 - the same campaign every time
        self._ends = ends

    @contextmanager
    def opened(self, blocks: Sequence[Block], journal: Journal) -> Iterator[Running]:
        """See :data:`unikeel.bench.campaign.running.Opened`."""
        yield Running(self, blocks[0], journal)

    def sample(self, cell: Cell, board: Board) -> None:
        """One attempt of a cell, which goes where its outcome belongs."""
        self._ends(self.taken)
        self.taken += 1
        self.order.append(cell.strategy)
        series = board.series(key(cell))
        found = self.truths[cell.strategy].attempt(self._numbers)
        if isinstance(found, Kind):
            self.injected[found] += 1
            series.fail(MESSAGES[found])
        else:
            series.add(found)


class Running:
    """The world while it runs."""

    def __init__(self, synthetic: Synthetic, block: Block, journal: Journal) -> None:
        self.world = block.world
        self._synthetic = synthetic
        self._journal = journal

    def run(self, block: Block, board: Board, patience: float) -> Found:
        """See :meth:`unikeel.bench.running.Stage.run`."""
        del patience
        if not block.first:
            for cell in block.cells:
                self._journal.warm_up(key(cell), 1e6)  # a cold start, which must be in no figure
        for number in range(block.first, block.first + block.rounds):
            for cell in rotated(block.cells, number):
                self._synthetic.sample(cell, board)
        return Found([], {}, complete=True)


def key(cell: Cell) -> Key:
    """The series of a cell."""
    return Key(cell.scenario, "ready", "ms", cell.image, cell.strategy, "file", "synthetic", 1, 0)


def campaign(names: Sequence[str], samples: int) -> Campaign:
    """A campaign of these contenders, as strategies of one cell each."""
    cells = tuple(Cell("sequential", name, "hello", 0, "embedded", "file", "") for name in names)
    return Campaign("synthetic", "A runtime that does not exist.", samples, 1, 60.0, 1, (Table(cells, samples),))
