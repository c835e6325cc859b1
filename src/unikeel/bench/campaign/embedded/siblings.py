"""``siblings``: starts while idle containers run; and how much processor time those take meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from unikeel.bench.campaign.embedded import sequential, starting
from unikeel.bench.containerd.inside.processes import processor_ms
from unikeel.bench.reporting import rotated
from unikeel.engine.settings import Options
from unikeel.errors import UnikeelError

if TYPE_CHECKING:
    from unikeel.bench.campaign.embedded.world import Embedded
    from unikeel.bench.campaign.plan import Block
    from unikeel.bench.rows import Board


def measure(world: Embedded, block: Block, board: Board) -> None:
    """Every number of siblings in turn, in another order in each block; with each some rounds over the strategies."""
    for cell in block.cells:
        sequential.warmed(world, cell)
    levels = list(dict.fromkeys(cell.level for cell in block.cells))
    for level in rotated(levels, block.first // max(1, block.rounds)):
        cells = [cell for cell in block.cells if cell.level == level]
        idle = [world.name() for _ in range(level)]
        try:
            for name in idle:
                container = world.stage.engine.create(
                    cells[0].beside or cells[0].image, Options(name=name, args=("wait",))
                )
                container.start(ready="first-output", seconds=world.timeout)
            world.settle()
            pids = [world.stage.engine.container(name).record.pid for name in idle]
            begun, used = time.monotonic(), sum(map(processor_ms, pids))
            for number in range(block.first, block.first + block.rounds):
                for cell in rotated(cells, number):
                    sequential.sample(world, cell, board, siblings=level)
            if pids:
                spent = (sum(map(processor_ms, pids)) - used) / 10 / (time.monotonic() - begun)
                key = starting.key(cells[0]._replace(strategy=""), "siblings_cpu", world.stage.runtime, siblings=level)
                board.series(key).add(spent)
        except UnikeelError as error:
            for cell in cells:
                board.series(starting.key(cell, "ready", world.stage.runtime, siblings=level)).fail(str(error))
        finally:
            for name in idle:
                starting.remove(world.stage, name)
            world.settle()
