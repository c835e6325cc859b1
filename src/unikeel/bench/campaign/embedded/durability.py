"""``durability``: calls of our snapshot store in this process, and starts by a command, with all of their flushes and without, in turn (:mod:`unikeel.bench.flushless`).

Before each of them everything that is not on the disk yet is written, out of the time, so that nobody pays for what another left. How many flushes a call makes is counted.
"""

from __future__ import annotations

import contextlib
import os
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final

from unikeel.bench import flushless
from unikeel.bench.campaign.embedded import sequential, starting
from unikeel.bench.reporting import rotated
from unikeel.errors import NotFound, UnikeelError
from unikeel.snapshots.contract import RAW_OR_QCOW2

if TYPE_CHECKING:
    from collections.abc import Callable

    from unikeel.bench.campaign.embedded.world import Embedded
    from unikeel.bench.campaign.plan import Block, Cell
    from unikeel.bench.rows import Board, Key

FLUSHED: Final = "flushed"
UNFLUSHED: Final = "unflushed"
WAYS: Final = (FLUSHED, UNFLUSHED)
_CALLS: Final = ("prepare", "remove", "commit", "view")
_START: Final = ("ready", "exec", "remove")


def measure(world: Embedded, block: Block, board: Board) -> None:
    """Some rounds over both ways; a round before them does not count."""
    for cell in block.cells:
        sequential.warmed(world, cell)
        if block.first == 0:
            for way in WAYS:
                _round(world, cell, way, None)
    for number in range(block.first, block.first + block.rounds):
        for cell in rotated(block.cells, number):
            for way in rotated(WAYS, number):
                _round(world, cell, way, board)


def _round(world: Embedded, cell: Cell, way: str, board: Board | None) -> None:
    _calls(world, cell, way, board)
    _start(world, cell, way, board)


def key_of(cell: Cell, way: str, metric: str, runtime: str | None = None) -> Key:
    """A series; those of the store alone have no runtime and no strategy."""
    strategy = cell.strategy if runtime else ""
    return starting.key(cell._replace(strategy=strategy), metric, runtime)._replace(
        scenario=f"{cell.scenario}, {way}"
    )  # fmt: skip


def _calls(world: Embedded, cell: Cell, way: str, board: Board | None) -> None:
    """Each call of the store once: a writable snapshot as a container gets it, its removal; a Commit of one that is made before; a view of that."""
    store, name = world.stage.engine.services.snapshots, world.name()
    parent = world.stage.parent(cell.image)
    calls: dict[str, Callable[[], object]] = {
        "prepare": lambda: store.prepare(name, parent, formats=RAW_OR_QCOW2),
        "remove": lambda: store.remove(name),
        "commit": lambda: store.commit(f"{name}-committed", f"{name}-active"),
        "view": lambda: store.view(f"{name}-view", f"{name}-committed"),
    }
    left = list(_CALLS)
    try:
        store.prepare(f"{name}-active", parent)
        while left:
            _call(world, key_of(cell, way, left[0]), calls[left[0]], board)
            left.pop(0)
    except (UnikeelError, OSError) as error:
        for metric in left if board is not None else ():
            assert board is not None
            board.series(key_of(cell, way, metric)).fail(str(error))
    finally:
        for made in (name, f"{name}-view", f"{name}-committed", f"{name}-active"):
            with contextlib.suppress(NotFound):
                store.remove(made)


def _call(world: Embedded, key: Key, call: Callable[[], object], board: Board | None) -> None:
    """One call. :raise UnikeelError: it failed."""
    flushes = flushless.Flushes()
    os.sync()
    with _way(world, key.scenario, flushes):
        begun = time.perf_counter_ns()
        call()
        took = time.perf_counter_ns() - begun
    if board is None:
        return
    board.series(key).add(took / 1e6)
    if key.scenario.endswith(f" {FLUSHED}"):
        series = key._replace(scenario=f"{key.scenario}, {key.metric}", metric="flushes", unit="flushes")
        board.series(series).add(flushes.count)


def _way(world: Embedded, scenario: str, flushes: flushless.Flushes) -> AbstractContextManager[None]:
    if scenario.endswith(f" {FLUSHED}"):
        return flushless.counted(flushes)
    return flushless.without(world.stage.engine.services.database)


def _start(world: Embedded, cell: Cell, way: str, board: Board | None) -> None:
    """One start by a command and the removal by this process, counted whatever comes of it."""
    found, failure = None, ""
    scenario = key_of(cell, way, "ready").scenario
    program = flushless.command(flushed=way == FLUSHED)
    os.sync()
    with world.clean() as host:
        try:
            with _way(world, scenario, flushless.Flushes()):
                found = starting.sampled(world.stage, cell, world.name(), world.timeout, program)
        except starting.FAILURES as error:
            failure = str(error) or type(error).__name__
    for metric in _START if board is not None else ():
        assert board is not None
        series = board.series(key_of(cell, way, metric, world.stage.runtime))
        if found is None or failure or host.problem:
            series.fail(failure or host.problem)
        else:
            series.add(found.figures[metric])
