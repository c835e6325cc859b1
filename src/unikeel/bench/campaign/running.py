"""A campaign's run: what is not in its journal yet, block by block, each sample on disk before the next one."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from unikeel.bench.campaign.journal import Journal
from unikeel.bench.campaign.plan import Block, Campaign, within
from unikeel.bench.rows import Board
from unikeel.bench.running import Run, Stage
from unikeel.errors import InvalidArgument
from unikeel.values import NamedTuple

Opened = Callable[[Sequence[Block], Journal], AbstractContextManager[Stage[Block]]]


class Ended(NamedTuple):
    """How a run ended. ``left``: blocks that are still to do; ``incomplete``: some could not be run."""

    left: int
    incomplete: bool
    interrupted: str
    notices: list[str]


def run(
    campaign: Campaign, journal: Journal, opened: Opened, *, patience: float = 0, minutes: float = 0, world: str = ""
) -> Ended:
    """Go on with a campaign. Ctrl-C and SIGTERM end it between two steps; nothing that was measured is lost.

    :param opened: makes the world of some blocks; it may tell the journal of warm-ups and steps.
    :param patience: seconds to wait for a quiet host, per block on average. :param minutes: end after the block that is
        under way then; 0: do all. :param world: only the blocks of these worlds (:func:`unikeel.bench.campaign.plan.within`); the others are left.
    :raise UnikeelError: the first world cannot be made. :raise InvalidArgument: no sample would be taken.
    """
    everything = campaign.blocks()
    if not everything:
        raise InvalidArgument("the campaign has no cells", "name scenarios that it has: `unikeel bench list`")
    if not any(within(block.world, world) for block in everything):
        known = ", ".join(dict.fromkeys(f"{block.world.where}:{block.world.snapshotter}" for block in everything))
        raise InvalidArgument(f"the campaign has no world {world}", f"it has {known}")
    left = [block for block in everything if block.name not in journal.done]
    todo = [block for block in left if within(block.world, world)]
    if not todo:
        return Ended(len(left), incomplete=False, interrupted="", notices=[])
    done = 0

    def finished(block: Block) -> None:
        nonlocal done
        journal.write({"done": block.name})
        done += 1

    end = time.monotonic() + minutes * 60
    work = Run(
        todo,
        lambda blocks: opened(blocks, journal),
        patience,
        board=Board(journal),
        done=finished,
        enough=lambda: bool(minutes) and time.monotonic() > end,
    )
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        found = work.measure()
    finally:
        signal.signal(signal.SIGTERM, before)
    journal.write({"environment": found.document.environment})
    for notice in dict.fromkeys(found.notices):
        journal.write({"notice": notice})
    return Ended(len(left) - done, found.incomplete, found.interrupted, list(dict.fromkeys(found.notices)))


def _terminated(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
