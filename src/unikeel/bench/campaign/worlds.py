"""Where a campaign's blocks run: this host, or the lab's containerds by the benchmarks that know them. Their samples go to the same journal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import unikeel
from unikeel.bench.campaign.journal import Journal
from unikeel.bench.campaign.plan import Block, Campaign, World
from unikeel.bench.campaign.scenarios import CONTAINERD, EMBEDDED, SCENARIOS, SNAPSHOTTER
from unikeel.bench.lines import Found
from unikeel.bench.reporting import rotated
from unikeel.bench.rows import Board
from unikeel.bench.running import Stage
from unikeel.errors import InvalidArgument
from unikeel.values import NamedTuple

if TYPE_CHECKING:
    from unikeel.bench.containerd.plan import Block as ContainerdBlock
    from unikeel.bench.containerd.plan import World as Containerd
    from unikeel.bench.snapshotter.plan import Block as SnapshotterBlock
    from unikeel.bench.snapshotter.plan import World as Snapshotter

W = TypeVar("W")

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

    world = _known((*plan.WORLDS, *plan.FURTHER), blocks[0].world.snapshotter, lambda each: (each.snapshotter,))
    inner = [each for block in blocks for each in in_containerd(block, world)]
    with worlds.opened(inner, samples) as stage:
        yield Translated(
            blocks[0].world,
            lambda block, board, patience: [stage.run(each, board, patience) for each in in_containerd(block, world)],
        )


def in_containerd(block: Block, world: Containerd) -> list[ContainerdBlock]:
    """A block as those that are run there: one for each level, in another order each time."""
    from unikeel.bench.containerd import plan

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
    guess = block.guess * (plan.SLOWER if world.where == plan.VM else 1)
    return [
        plan.Block(world, group, first, rounds, level, per_round, images, guess, runtimes)
        for level in rotated(levels, number)
    ]


@contextmanager
def _snapshotter(blocks: Sequence[Block]) -> Iterator[Stage[Block]]:
    from unikeel.bench.snapshotter import plan, worlds

    known = (*plan.COMPARED, *plan.WORLDS)
    world = _known(known, blocks[0].world.snapshotter, lambda each: each.contenders)
    inner = [in_snapshotter(block, world) for block in blocks]
    with worlds.opened(inner) as stage:
        yield Translated(
            blocks[0].world,
            lambda block, board, patience: [stage.run(in_snapshotter(block, world), board, patience)],
        )


def in_snapshotter(block: Block, world: Snapshotter) -> SnapshotterBlock:
    """A block as it is run there."""
    from unikeel.bench.snapshotter import plan

    [name] = SCENARIOS[block.group].groups[SNAPSHOTTER]
    group = next(each for each in plan.GROUPS if each.name == name)
    many = block.cells[0].level or group.many[1 if world.where == plan.VM else 0]
    return plan.Block(world, name, tuple(world.contenders), block.first, block.rounds, many, 0, 0, block.guess)


def _known(worlds: Iterable[W], snapshotter: str, names: Callable[[W], Sequence[str]]) -> W:
    """The first world with this snapshotter. :raise InvalidArgument: there is none."""
    worlds = list(worlds)
    for world in worlds:
        if snapshotter in names(world):
            return world
    known = dict.fromkeys(name for world in worlds for name in names(world))
    raise InvalidArgument(f"the lab cannot measure {snapshotter} there", f"it can {', '.join(known)}")


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
