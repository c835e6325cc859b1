"""``sequential`` and ``writes``: start by a command, wait for the reply, stop, remove; one after the other, cells in turn."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from unikeel.bench.campaign.embedded import starting
from unikeel.bench.reporting import rotated

if TYPE_CHECKING:
    from unikeel.bench.campaign.embedded.world import Embedded
    from unikeel.bench.campaign.plan import Block, Cell
    from unikeel.bench.rows import Board

#: The steps of so many starts of each cell and block are kept.
_SPANS: Final = 2
_FIGURES: Final = ("ready", "exec", "acquire", "prepare", "import", "remove", "written")
_WRITES: Final = ("written",)


def measure(world: Embedded, block: Block, board: Board) -> None:
    """Some rounds."""
    for cell in block.cells:
        warmed(world, cell)
    for number in range(block.first, block.first + block.rounds):
        for cell in rotated(block.cells, number):
            sample(world, cell, board, siblings=0, keep=number - block.first < _SPANS)


def warmed(world: Embedded, cell: Cell) -> None:
    """Starts that do not count, once in a run; if one fails, those that count will, too."""
    for _ in range(count := world.warm_ups(("start", cell.image, cell.strategy))):
        with contextlib.suppress(*starting.FAILURES):
            timeline = starting.start(world.stage, cell.image, cell.strategy, name := world.name(), world.timeout)
            world.journal.warm_up(starting.key(cell, "ready", world.stage.runtime), timeline.milliseconds)
        starting.remove(world.stage, name)
    if count:
        world.settle()


def sample(world: Embedded, cell: Cell, board: Board, *, siblings: int, keep: bool = False) -> None:
    """One start, counted whatever comes of it."""
    ready = starting.key(cell, "ready", world.stage.runtime, siblings=siblings)
    found, failure = None, ""
    with world.clean() as host:
        try:
            found = starting.sampled(world.stage, cell, world.name(), world.timeout)
        except starting.FAILURES as error:
            failure = str(error) or type(error).__name__
    for metric in _WRITES if cell.scenario == "writes" else _FIGURES:
        series = board.series(ready._replace(metric=metric, unit=starting.UNITS.get(metric, "ms")))
        if found is None or failure or host.problem:
            series.fail(failure or host.problem)
        else:
            series.add(found.figures[metric])
    if keep and found is not None:
        world.journal.spans(ready, starting.steps(found.timeline))
