"""A campaign's file, and what follows from it: cells, blocks, rounds. Pure but for reading the file.

    name = "laptop"
    about = "One sentence for the report."
    samples = 30        # of each cell, at least
    warm_up = 2         # samples of each cell that are taken before and are not counted
    timeout = 60        # seconds after which a start counts as failed by time-out
    minutes = 5         # how long it is meant to take; told, not enforced

    [[cells]]           # every combination of these lists is a cell
    scenario = "siblings"
    strategies = ["cache", "copy"]
    images = ["hello"]
    levels = [0, 10]    # the scenario's numbers
    where = "embedded"  # or "containerd", "snapshotter"
    snapshotters = ["file"]
    runtimes = ["io.containerd.unikeel.v2"]   # under containerd: others by name stand beside ours
    beside = "nginx"    # siblings: of which image; by default the cell's own
    samples = 60        # instead of the campaign's

A *cell* is one series of samples of each of its scenario's metrics. Cells of a table of the file are measured in turn, in blocks of a few rounds, so that what
changes on the host meanwhile hits all alike; blocks of all tables alternate, too.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from unikeel.bench.campaign.scenarios import CONTAINERD, EMBEDDED, SCENARIOS, SNAPSHOTTER
from unikeel.errors import BadContent, NotFound
from unikeel.values import NamedTuple

FILES: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "files")
STRATEGIES: Final = ("cache", "shared-view", "view", "copy")
_MOST_BYTES: Final = 1 << 20
#: Rounds of one block. In the lab a block is a process of its own with warm-ups of its own, so it has more.
_ROUNDS: Final[Mapping[str, int]] = {EMBEDDED: 5, CONTAINERD: 15, SNAPSHOTTER: 10}
#: Between two blocks of these containerd is started anew, so that all levels come and go often.
_FEW_ROUNDS: Final[Mapping[str, int]] = {"base-size": 5}
#: Scenarios in which nobody asks for boot files, wherever they run.
_WITHOUT_STRATEGY: Final = ("prepare", "view", "base-size")
_SAMPLES: Final = 30
_LISTS: Final = ("strategies", "images", "levels", "snapshotters", "runtimes")
_SCALARS: Final = ("scenario", "where", "beside", "samples")


class Cell(NamedTuple):
    """One series. ``strategy`` empty and ``level`` 0 where they do not apply; ``beside``: the siblings' image."""

    scenario: str
    strategy: str
    image: str
    level: int
    where: str
    snapshotter: str
    runtime: str
    beside: str = ""

    @property
    def name(self) -> str:
        """Its name in lists and messages."""
        parts = (self.scenario, self.where, self.snapshotter, self.runtime, self.image, self.strategy)
        beside = f"beside {self.beside}" if self.beside else ""
        level = str(self.level) if SCENARIOS[self.scenario].levels else ""
        return "/".join(part for part in (*parts, level, beside) if part)


class World(NamedTuple):
    """Where blocks run, as progress and reports name it."""

    where: str
    snapshotter: str
    root: str = "host"


def within(world: World, name: str) -> bool:
    """Whether a name means a world: ``containerd``, ``devmapper``, ``containerd:devmapper``; an empty one means all."""
    return name in ("", world.where, world.snapshotter, f"{world.where}:{world.snapshotter}")


class Block(NamedTuple):
    """Some rounds of the cells of one table."""

    world: World
    group: str
    number: int
    first: int
    rounds: int
    cells: tuple[Cell, ...]
    guess: float

    @property
    def name(self) -> str:
        """What the journal calls it when it is done."""
        return f"{self.number}:{self.group}:{self.world.where}:{self.world.snapshotter}:{self.first}+{self.rounds}"


class Table(NamedTuple):
    """The cells of one ``[[cells]]`` of the file, and how many samples of each."""

    cells: tuple[Cell, ...]
    samples: int


class Campaign(NamedTuple):
    """A file, read and checked."""

    name: str
    about: str
    samples: int
    warm_up: int
    timeout: float
    minutes: int
    tables: tuple[Table, ...]

    @property
    def cells(self) -> list[Cell]:
        """All of them, each once."""
        return list(dict.fromkeys(cell for table in self.tables for cell in table.cells))

    def only(self, scenarios: Mapping[str, object] | frozenset[str]) -> Campaign:
        """The same with these scenarios alone."""
        tables = (
            table._replace(cells=tuple(c for c in table.cells if c.scenario in scenarios)) for table in self.tables
        )
        return self._replace(tables=tuple(table for table in tables if table.cells))

    def taking(self, samples: int) -> Campaign:
        """The same with so many samples of each cell."""
        return self._replace(samples=samples, tables=tuple(table._replace(samples=samples) for table in self.tables))

    def blocks(self) -> list[Block]:
        """All of it: world after world, in each the tables' blocks in turn."""
        found: list[Block] = []
        for world in dict.fromkeys(_world(cell) for cell in self.cells):
            queues = [list(_blocks(number, table, world)) for number, table in enumerate(self.tables)]
            while any(queues):
                found += [queue.pop(0) for queue in queues if queue]
        return found


def _world(cell: Cell) -> World:
    return World(cell.where, cell.snapshotter)


def _blocks(number: int, table: Table, world: World) -> Iterator[Block]:
    cells = tuple(cell for cell in table.cells if _world(cell) == world)
    if not cells:
        return
    scenario = SCENARIOS[cells[0].scenario]
    heavy = scenario.seconds >= 2 and cells[0].where == EMBEDDED
    size = 1 if heavy else _FEW_ROUNDS.get(cells[0].scenario, _ROUNDS[cells[0].where])
    for first in range(0, table.samples, size):
        rounds = min(size, table.samples - first)
        guess = sum(_seconds(cell) for cell in cells) * rounds
        yield Block(world, cells[0].scenario, number, first, rounds, cells, guess)


def _seconds(cell: Cell) -> float:
    """What a sample of a cell is guessed to take; siblings are started once for a block."""
    seconds = SCENARIOS[cell.scenario].seconds
    if cell.scenario == "burst":
        return seconds * max(1, cell.level) / 8
    return seconds + (0.06 * cell.level if cell.scenario == "siblings" else 0)


def names() -> list[str]:
    """The campaigns that come with unikeel."""
    return sorted(name.removesuffix(".toml") for name in os.listdir(FILES) if name.endswith(".toml"))


def load(reference: str) -> Campaign:
    """A campaign by the path of its file, or by the name of one that comes with unikeel.

    :raise NotFound: there is none. :raise BadContent: it is wrong; the message says where.
    """
    path = reference if os.sep in reference or reference.endswith(".toml") else os.path.join(FILES, reference + ".toml")
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise NotFound(f"there is no campaign {reference}", f"known are {', '.join(names())}, or a path") from error
    if len(data) > _MOST_BYTES:
        raise BadContent(f"{path} has more than {_MOST_BYTES} bytes")
    try:
        return parse(tomllib.loads(data.decode("utf-8")), path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadContent(f"{path}: {error}") from None


def parse(values: Mapping[str, Any], where: str = "campaign") -> Campaign:
    """A campaign from a parsed file. :raise BadContent: it is wrong."""
    known = {"name": str, "about": str, "samples": int, "warm_up": int, "timeout": int, "minutes": int, "cells": list}
    for key, value in values.items():
        if key not in known:
            raise BadContent(f"{where}: there is no key {key!r}", f"known are {', '.join(known)}")
        if type(value) is not known[key]:
            raise BadContent(f"{where}: {key} must be of the type {known[key].__name__}")
    samples = _positive(values.get("samples", _SAMPLES), f"{where}: samples")
    tables = [
        _table(table, samples, f"{where}: cells {number}") for number, table in enumerate(values.get("cells", ()), 1)
    ]
    if not tables or not values.get("name"):
        raise BadContent(f"{where}: a campaign needs a name and cells")
    return Campaign(
        values["name"], values.get("about", ""), samples, max(0, values.get("warm_up", 2)),
        float(_positive(values.get("timeout", 60), f"{where}: timeout")), values.get("minutes", 0), tuple(tables),
    )  # fmt: skip


def _table(table: object, samples: int, where: str) -> Table:
    if not isinstance(table, dict):
        raise BadContent(f"{where} is not a table")
    for key, value in table.items():
        if key not in (*_LISTS, *_SCALARS):
            raise BadContent(f"{where}: there is no key {key!r}", f"known are {', '.join((*_SCALARS, *_LISTS))}")
        if key in _LISTS and not (isinstance(value, list) and value and all(_fits(key, item) for item in value)):
            raise BadContent(f"{where}: {key} must be a list of {'whole numbers' if key == 'levels' else 'text'}")
    scenario = SCENARIOS.get(table.get("scenario", ""))
    if scenario is None:
        raise BadContent(
            f"{where}: there is no scenario {table.get('scenario')!r}", f"known are {', '.join(SCENARIOS)}"
        )
    place = table.get("where", EMBEDDED)
    if place not in scenario.groups:
        raise BadContent(
            f"{where}: {table['scenario']} cannot run at {place!r}", f"it can at {', '.join(scenario.groups)}"
        )
    return Table(
        tuple(_cells(table, scenario.usual, place)), _positive(table.get("samples", samples), f"{where}: samples")
    )


def _cells(table: Mapping[str, Any], usual: tuple[int, ...], where: str) -> Iterator[Cell]:
    """Every combination. The order is that of the lists, strategies last, so that neighbours in a round are the ones to be compared."""
    strategies = table.get(
        "strategies", STRATEGIES if where != SNAPSHOTTER and table["scenario"] not in _WITHOUT_STRATEGY else [""]
    )
    defaults = {EMBEDDED: ["file"], CONTAINERD: ["blockfile"], SNAPSHOTTER: ["file"]}
    for snapshotter in table.get("snapshotters", defaults[where]):
        for runtime in table.get("runtimes", [""]):
            for image in table.get("images", ["hello"]):
                for level in table.get("levels", usual or (0,)):
                    for strategy in strategies:
                        yield Cell(
                            table["scenario"], strategy, image, level, where, snapshotter, runtime, table.get("beside", "")
                        )  # fmt: skip


def _fits(key: str, value: object) -> bool:
    if key != "levels":
        return isinstance(value, str) and bool(value) and (key != "strategies" or value in STRATEGIES)
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1_000_000


def _positive(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 100_000:
        raise BadContent(f"{where} must be a whole number from 1 to 100000")
    return value
