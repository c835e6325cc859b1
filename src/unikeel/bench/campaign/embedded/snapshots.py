"""``prepare`` and ``view``: our snapshot store alone, in this process, without any container."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from unikeel.bench.campaign.embedded import starting
from unikeel.bench.reporting import rotated
from unikeel.errors import UnikeelError

if TYPE_CHECKING:
    from unikeel.bench.campaign.embedded.world import Embedded
    from unikeel.bench.campaign.plan import Block, Cell
    from unikeel.bench.rows import Board


def measure(world: Embedded, block: Block, board: Board) -> None:
    """Some rounds; the first one of a run does not count."""
    if block.first == 0:
        for cell in block.cells:
            _sample(world, cell, None)
    for number in range(block.first, block.first + block.rounds):
        for cell in rotated(block.cells, number):
            _sample(world, cell, board)


def _sample(world: Embedded, cell: Cell, board: Board | None) -> None:
    store, name = world.stage.engine.services.snapshots, world.name()
    key = starting.key(cell, cell.scenario, None)
    parent = world.stage.parent(cell.image)
    try:
        begun = time.perf_counter_ns()
        if cell.scenario == "view":
            store.view(name, parent)
        else:
            store.prepare(name, parent)
        made = time.perf_counter_ns()
        store.remove(name)
        gone = time.perf_counter_ns()
    except UnikeelError as error:
        if board is not None:
            board.series(key).fail(str(error))
        return
    if board is not None:
        board.series(key).add((made - begun) / 1e6)
        board.series(key._replace(metric="remove")).add((gone - made) / 1e6)
