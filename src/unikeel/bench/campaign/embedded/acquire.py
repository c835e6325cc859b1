"""``boot-size``, ``image-size``, ``first``, ``cold``: the boot files alone, in a new process for each sample; no monitor is started.

What comes through the descriptors is compared with the image, as in :mod:`unikeel.bench.scenarios.acquire`, which takes the samples.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from unikeel.bench.campaign.embedded import starting
from unikeel.bench.reporting import rotated
from unikeel.bench.scenarios.acquire import ask, judge

if TYPE_CHECKING:
    from unikeel.bench.campaign.embedded.world import Embedded
    from unikeel.bench.campaign.plan import Block, Cell
    from unikeel.bench.rows import Board

#: Scenarios in which nothing is kept from one sample to the next.
_FIRST: Final = ("first", "cold")


def measure(world: Embedded, block: Block, board: Board) -> None:
    """Some rounds."""
    if block.group not in _FIRST:
        for cell in block.cells:
            _warmed(world, cell)
    for number in range(block.first, block.first + block.rounds):
        for cell in rotated(block.cells, number):
            _sample(world, cell, board)


def _warmed(world: Embedded, cell: Cell) -> None:
    from unikeel.bench.campaign.embedded.world import image_of

    image = image_of(cell)
    for _ in range(count := world.warm_ups(("acquire", image, cell.strategy))):
        answer = ask(world.stage, image, cell.strategy)
        if "ns" in answer:
            world.journal.warm_up(starting.key(cell, "acquire", None, image=image), answer["ns"] / 1e6)
    if count:
        world.settle()


def _sample(world: Embedded, cell: Cell, board: Board) -> None:
    from unikeel.bench.campaign.embedded.world import image_of

    image, first = image_of(cell), cell.scenario in _FIRST
    key = starting.key(cell, "acquire", None, image=image)
    if first:
        world.forget()
    if cell.scenario == "cold":
        _drop_page_cache()
    with world.clean() as host:
        answer = ask(world.stage, image, cell.strategy)
        if first:
            world.stage.forget_boot_files()
    failure = host.problem or judge(answer, cell.strategy, world.stage.expected[image], "first" if first else "warm")
    for metric, field in (("acquire", "ns"), ("prepare", "prepare_ns")):
        series = board.series(key._replace(metric=metric))
        if failure:
            series.fail(failure)
        else:
            series.add(answer[field] / 1e6)


def _drop_page_cache() -> None:
    """The whole host's. :raise OSError: that may not be done here."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("3")
