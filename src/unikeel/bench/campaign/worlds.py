"""Where a campaign's blocks run: this host, or the lab's containerds by the benchmarks that know them. Their samples go to the same journal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import unikeel
from unikeel.bench.campaign.journal import Journal
from unikeel.bench.campaign.plan import Block, Campaign, World
from unikeel.bench.campaign.scenarios import CONTAINERD, EMBEDDED, SCENARIOS
from unikeel.bench.lines import Found
from unikeel.bench.reporting import rotated
from unikeel.bench.rows import Board
from unikeel.bench.running import Stage
from unikeel.errors import InvalidArgument
from unikeel.values import NamedTuple

SAMPLES: Final = os.path.join("build", "samples")
#: On disk, unlike /tmp on many hosts; the stage makes a directory of its own in it.
PARENT: Final = "/var/tmp"  # noqa: S108


class Settings(NamedTuple):
    """Where images come from and state roots are made."""

    samples: str = SAMPLES
    parent: str = PARENT


@contextmanager
def opened(blocks: Sequence[Block], journal: Journal, campaign: Campaign, settings: Settings) -> Iterator[Stage[Block]]:
    """The world of some blocks. :raise UnikeelError: it cannot be made, or left something behind."""
    where = blocks[0].world.where
    if where != EMBEDDED:
        _lab_importable()
    if where == EMBEDDED:
        from unikeel.bench.campaign.embedded import world

        with world.opened(
            blocks, journal, settings.samples, settings.parent, campaign.warm_up, campaign.timeout
        ) as embedded:
            yield embedded
    elif where == CONTAINERD:
        with _containerd(blocks, settings.samples) as stage:
            yield stage
    else:
        with _snapshotter(blocks) as stage:
            yield stage


def _lab_importable() -> None:
    """The lab is no part of the package, but lies beside its sources: a program that was installed from there does not have it on Python's path."""
    project = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(unikeel.__file__))))
    if os.path.exists(os.path.join(project, "lab", "place.py")) and project not in sys.path:
        sys.path.append(project)


@contextmanager
def _containerd(blocks: Sequence[Block], samples: str) -> Iterator[Stage[Block]]:
    from unikeel.bench.containerd import plan, worlds

    known = (*plan.WORLDS, *plan.FURTHER)
    world = next((each for each in known if each.snapshotter == blocks[0].world.snapshotter), None)
    if world is None:
        raise InvalidArgument(
            f"the lab has no containerd with {blocks[0].world.snapshotter}",
            ", ".join(each.snapshotter for each in known),
        )

    def translated(block: Block) -> list[plan.Block]:
        images = tuple(dict.fromkeys(cell.image for cell in block.cells))
        runtimes = tuple(dict.fromkeys(cell.runtime for cell in block.cells if cell.runtime))
        levels = tuple(dict.fromkeys(cell.level for cell in block.cells)) if SCENARIOS[block.group].levels else (0,)
        number = block.first // max(1, block.rounds)
        first, rounds, per_round = block.first, block.rounds, 1
        [group, *_] = SCENARIOS[block.group].groups[CONTAINERD]
        if group == "warm":
            levels = (0,)
        elif group == "first":
            levels, images = (0,), ("bulky",)
        elif group == "siblings":  # which are started once for all samples of a block
            first, rounds, per_round = number, 1, block.rounds
        return [
            plan.Block(world, group, first, rounds, level, per_round, images, block.guess, runtimes)
            for level in rotated(levels, number)
        ]

    inner = [each for block in blocks for each in translated(block)]
    with worlds.opened(inner, samples) as stage:
        yield Translated(
            blocks[0].world,
            lambda block, board, patience: [stage.run(each, board, patience) for each in translated(block)],
        )


@contextmanager
def _snapshotter(blocks: Sequence[Block]) -> Iterator[Stage[Block]]:
    from unikeel.bench.snapshotter import plan, worlds

    known = (*plan.COMPARED, *plan.WORLDS)
    world = next((each for each in known if blocks[0].world.snapshotter in each.contenders), None)
    if world is None:
        raise InvalidArgument(f"the lab has no snapshotter {blocks[0].world.snapshotter}", "see docs/benchmarks.md")

    def translated(block: Block) -> list[plan.Block]:
        found = []
        for name in SCENARIOS[block.group].groups[block.world.where]:
            group = next(each for each in plan.GROUPS if each.name == name)
            many = block.cells[0].level or group.many[1 if world.where == plan.VM else 0]
            found.append(
                plan.Block(world, name, tuple(world.contenders), block.first, block.rounds, many, 0, 0, block.guess)
            )
        return found

    inner = [each for block in blocks for each in translated(block)]
    with worlds.opened(inner) as stage:
        yield Translated(
            blocks[0].world,
            lambda block, board, patience: [stage.run(each, board, patience) for each in translated(block)],
        )


class Translated:
    """A world of another benchmark's, which runs each of our blocks as some of its own."""

    def __init__(self, world: World, run: Callable[[Block, Board, float], list[Found]]) -> None:
        self.world = world
        self._run = run

    def run(self, block: Block, board: Board, patience: float) -> Found:
        """See :meth:`unikeel.bench.running.Stage.run`."""
        found = self._run(block, board, patience)
        about = {name: value for each in found for name, value in each.environment.items()}
        return Found([notice for each in found for notice in each.notices], about, complete=True)
