"""The world of embedded scenarios: a state root with the images of its cells, for one run of a campaign."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Final

from unikeel.bench import environment
from unikeel.bench.campaign.embedded import census, images
from unikeel.bench.campaign.journal import Journal
from unikeel.bench.campaign.plan import Block, Cell, World
from unikeel.bench.campaign.scenarios import EMBEDDED, SCENARIOS
from unikeel.bench.lines import Found
from unikeel.bench.rows import Board
from unikeel.bench.stage import Stage
from unikeel.errors import UnikeelError

#: Scenarios whose level is a size, and the images that it stands for.
_SIZED: Final[dict[str, Callable[[int], str]]] = {
    "image-size": images.whole,
    "boot-size": images.boot,
    "first": images.boot,
    "cold": images.boot,
}


def image_of(cell: Cell) -> str:
    """The image that a cell's samples are of."""
    return _SIZED[cell.scenario](cell.level) if cell.scenario in _SIZED and cell.level else cell.image


class Cleanliness:
    """What was wrong with the host before or after a sample; empty: nothing. Such a sample is a failure, whatever it took."""

    problem = ""


class Embedded:
    """The world while it runs: what the scenarios' modules work with.

    :ivar warm: what is warm now. :ivar seen: what has had its warm-up in this run. :ivar baseline: what is on the host between two samples.
    """

    def __init__(self, stage: Stage, world: World, journal: Journal, warm_up: int, timeout: float) -> None:
        self.stage = stage
        self.world = world
        self.journal = journal
        self.warm_up = warm_up
        self.timeout = timeout
        self.warm: set[object] = set()
        self.seen: set[object] = set()
        self.baseline = census.take(stage)
        self._names = 0

    def name(self) -> str:
        """A word that no container had yet."""
        self._names += 1
        return f"bench-{os.getpid()}-{self._names}"

    def settle(self) -> None:
        """What is there now belongs there: a shared view that is kept, siblings."""
        self.baseline = census.take(self.stage)

    def run(self, block: Block, board: Board, patience: float) -> Found:
        """See :meth:`unikeel.bench.running.Stage.run`."""
        del patience  # the run has waited before the block
        group = SCENARIOS[block.group].groups[EMBEDDED][0]
        measure: Callable[[Embedded, Block, Board], None] = import_module(f"{__package__}.{group}").measure
        measure(self, block, board)
        return Found(
            [], {"host": environment.describe(self.stage.engine.services)} if block.first == 0 else {}, complete=True
        )

    def warm_ups(self, kind: object) -> int:
        """How many samples that do not count go before the next one of a kind: as many as the campaign says, one if only what was kept is gone, or none."""
        if kind in self.warm:
            return 0
        count = 1 if kind in self.seen else max(1, self.warm_up)
        self.warm.add(kind)
        self.seen.add(kind)
        return count

    def forget(self) -> None:
        """Nothing cached, nothing mounted; nothing is warm then."""
        self.stage.forget_boot_files()
        self.warm.clear()
        self.settle()

    @contextmanager
    def clean(self) -> Iterator[Cleanliness]:
        """A sample: the host must be as it is between samples when it begins, and again when it has ended. What was wrong is known after the block."""
        found = Cleanliness()
        if extra := census.left(self.stage, self.baseline):
            found.problem = f"the host was not clean before: {', '.join(sorted(extra))}"
            self.settle()
        yield found
        if extra := census.left(self.stage, self.baseline):
            found.problem = f"left behind: {', '.join(sorted(extra))}"
            self.settle()


@contextmanager
def opened(
    blocks: Sequence[Block], journal: Journal, samples: str, parent: str, warm_up: int, timeout: float
) -> Iterator[Embedded]:
    """The world of these blocks; all of it is gone afterwards.

    :param samples: what ``make samples`` filled. :param parent: where the state root is made, on disk.
    :raise NotFound: a sample image is not there. :raise UnikeelError: the host does not allow it.
    """
    cells = [cell for block in blocks for cell in block.cells]
    wanted = list(dict.fromkeys(name for cell in cells for name in (image_of(cell), cell.beside) if name))
    loaded = [name for name in wanted if images.sized(name) is None]
    with Stage(samples, parent, loaded) as stage:
        for name in wanted:
            if name in loaded:
                stage.load(name)
            else:
                stage.expected[name] = images.make(stage.engine, name, os.path.join(samples, "hello.tar"))
        yield Embedded(stage, blocks[0].world, journal, warm_up, timeout)
    for notice in stage.notices:
        journal.write({"notice": notice})
        if notice.startswith("the bench left"):
            raise UnikeelError(notice)
