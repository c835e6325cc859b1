"""``churn``: starts at a steady rate for a time. Each one's time counts from the instant at which it was due: who waits for a jam to clear would not see it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from unikeel.bench.campaign.embedded import sequential, starting
from unikeel.bench.reporting import rotated
from unikeel.bench.scenarios.starts import check

if TYPE_CHECKING:
    from unikeel.bench.campaign.embedded.world import Embedded
    from unikeel.bench.campaign.plan import Block, Cell
    from unikeel.bench.rows import Board

#: How long one goes on for.
_SECONDS: Final = 12.0
#: More than this at once is a jam that will not clear: what is due then fails.
_AT_ONCE: Final = 64


def measure(world: Embedded, block: Block, board: Board) -> None:
    """Each cell's churn in turn."""
    for cell in block.cells:
        sequential.warmed(world, cell)
    for number in range(block.first, block.first + block.rounds):
        for cell in rotated(block.cells, number):
            _churn(world, cell, board)


def _churn(world: Embedded, cell: Cell, board: Board) -> None:
    key = starting.key(cell, "ready", world.stage.runtime, concurrency=None)
    pause = 60 / max(1, cell.level)
    names = [world.name() for _ in range(max(1, int(_SECONDS / pause)))]
    with world.clean() as host:
        begun = time.monotonic_ns()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            due = [begun + int(place * pause * 1e9) for place in range(len(names))]
            found = list(pool.map(lambda name, at: _one(world, cell, name, at), names, due))
        for name in names:
            starting.remove(world.stage, name)
    for value in [host.problem] * len(found) if host.problem else found:
        if isinstance(value, float):
            board.series(key).add(value)
        else:
            board.series(key).fail(value)


def _one(world: Embedded, cell: Cell, name: str, due: int) -> float | str:
    """Wait for the instant; milliseconds from it to the reply, or why it is no sample. The containers are removed at the end: the engine is not for several threads."""
    time.sleep(max(0.0, (due - time.monotonic_ns()) / 1e9))
    try:
        timeline = starting.start(world.stage, cell.image, cell.strategy, name, world.timeout)
        check(timeline, cell.strategy)
    except starting.FAILURES as error:
        return str(error) or type(error).__name__
    ready = timeline.find("ready")
    assert ready is not None
    return (ready.end - due) / 1e6
