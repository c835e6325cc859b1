"""``burst``: many starts at once. ``ready``: each one's, from the beginning of all; ``ready_last``: of the last; ``ready_gap``: between the first and the last."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from unikeel.bench.campaign.embedded import sequential, starting
from unikeel.bench.reporting import rotated
from unikeel.bench.scenarios.starts import check

if TYPE_CHECKING:
    from unikeel.bench.campaign.embedded.world import Embedded
    from unikeel.bench.campaign.plan import Block, Cell
    from unikeel.bench.rows import Board


def measure(world: Embedded, block: Block, board: Board) -> None:
    """Each cell's burst in turn."""
    for cell in block.cells:
        sequential.warmed(world, cell)
    for number in range(block.first, block.first + block.rounds):
        for cell in rotated(block.cells, number):
            _burst(world, cell, board)


def _burst(world: Embedded, cell: Cell, board: Board) -> None:
    each = starting.key(cell, "ready", world.stage.runtime, concurrency=cell.level)
    names = [world.name() for _ in range(cell.level)]
    with world.clean() as host:
        begun = time.monotonic_ns()
        try:
            with ThreadPoolExecutor(cell.level) as pool:
                found = list(pool.map(lambda name: _one(world, cell, name, begun), names))
        finally:
            for name in names:
                starting.remove(world.stage, name)
    if host.problem:  # what was wrong with a start says more than what that has left behind
        found = [value if isinstance(value, str) else host.problem for value in found]
    times = [value for value in found if isinstance(value, float)]
    for value in found:
        if isinstance(value, float):
            board.series(each).add(value)
        else:
            board.series(each).fail(value)
    last, gap = board.series(each._replace(metric="ready_last")), board.series(each._replace(metric="ready_gap"))
    if len(times) == len(found):
        last.add(max(times))
        gap.add(max(times) - min(times))
    else:
        last.fail(f"{len(found) - len(times)} of {len(found)} were not ready")


def _one(world: Embedded, cell: Cell, name: str, begun: int) -> float | str:
    """Milliseconds from the beginning of all, or why it is no sample."""
    try:
        timeline = starting.start(world.stage, cell.image, cell.strategy, name, world.timeout)
        check(timeline, cell.strategy)
    except starting.FAILURES as error:
        return str(error) or type(error).__name__
    ready = timeline.find("ready")
    assert ready is not None
    return (ready.end - begun) / 1e6
