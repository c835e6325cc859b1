"""``memory``: what each of N idle containers of one image holds, in MiB, all together divided by N.

``host``: the keeper and the network helpers (PSS), the tmpfs of copies, memory files: what the strategies differ in. ``monitor``: the monitor without the
guest's memory; ``guest``: that, as far as it was touched; ``boot_copies``: how much of these two are the monitor's own private copies of the boot files,
which no sharing on the host can ever save (:mod:`.duplicates`). ``cached``: page cache of the cache's objects, once for all N,
which the kernel takes back when it needs it. ``slab``: how much the kernel's own memory grew (of the whole host, so on a busy one it is noise).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from unikeel.bench import environment
from unikeel.bench.campaign.embedded import duplicates, starting
from unikeel.bench.reporting import rotated
from unikeel.bench.scenarios.memory import children, copies, memory_files, pss
from unikeel.boot.contract import MIB
from unikeel.engine.settings import Options
from unikeel.errors import UnikeelError

if TYPE_CHECKING:
    from unikeel.bench.campaign.embedded.world import Embedded
    from unikeel.bench.campaign.plan import Block, Cell
    from unikeel.bench.rows import Board

_METRICS: Final = ("host", "monitor", "guest", "boot_copies", "cached", "slab")


def measure(world: Embedded, block: Block, board: Board) -> None:
    """Some rounds."""
    for number in range(block.first, block.first + block.rounds):
        for cell in rotated(block.cells, number):
            _sample(world, cell, board)


def _sample(world: Embedded, cell: Cell, board: Board) -> None:
    key = starting.key(cell, "host", world.stage.runtime, concurrency=None, siblings=cell.level)
    names = [world.name() for _ in range(cell.level)]
    found, failure = dict[str, float](), ""
    world.forget()
    with world.clean() as host:
        try:
            found = _held(world, cell, names)
        except (UnikeelError, OSError) as error:
            failure = str(error)
        for name in names:
            starting.remove(world.stage, name)
        world.stage.forget_boot_files()
    for metric in _METRICS:
        series = board.series(key._replace(metric=metric, unit="MiB"))
        if failure or host.problem:
            series.fail(failure or host.problem)
        else:
            series.add(found[metric])


def _held(world: Embedded, cell: Cell, names: list[str]) -> dict[str, float]:
    """MiB for each container. :raise UnikeelError: not all run, or another strategy served."""
    stage, slab = world.stage, _slab()
    for name in names:
        container = stage.engine.create(
            cell.image, Options(name=name, args=("wait",), boot_files=cell.strategy, network="none")
        )
        container.start(ready="first-output", seconds=world.timeout)
        if container.record.strategy != cell.strategy:
            raise UnikeelError(f"{container.record.strategy} served instead")
    keeper, monitors = stage.keeper(), [stage.engine.container(name).record.pid for name in names]
    if keeper is None:
        raise UnikeelError("there is no keeper, although containers run")
    helpers = [pid for pid in children(keeper) if pid not in monitors]
    ram = sum(_guest(pid) for pid in monitors)
    held = {
        "host": sum(pss(pid) for pid in (keeper, *helpers)) + memory_files(keeper) + copies(stage),
        "monitor": sum(pss(pid) for pid in monitors) - ram,
        "guest": ram,
        "cached": _cached(stage.engine.services.layout.boot),
        "slab": _slab() - slab,
    }
    known = duplicates.pages(stage.boot_contents(cell.image))  # last, since looking touches things
    held["boot_copies"] = sum(duplicates.held(pid, known) for pid in monitors)
    return {metric: size / len(names) / MIB for metric, size in held.items()}


def _guest(pid: int) -> int:
    """Bytes (PSS) of a monitor's largest private mapping: the guest's memory."""
    largest, its = 0, 0
    size = 0
    with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == "Size":
                size = int(value.split()[0])
            elif name == "Pss" and size > largest:
                largest, its = size, int(value.split()[0])
    return its * 1024


def _cached(directory: str) -> int:
    """Bytes of page cache that the cache's objects hold."""
    paths = [os.path.join(root, name) for root, _, found in os.walk(directory) for name in found]
    paths = [path for path in paths if "/copies/" not in path]
    said = environment.output(["fincore", "-b", "-n", "-r", "-o", "RES", *paths]) if paths else ""
    return sum(int(word) for word in said.split() if word.isdigit())


def _slab() -> int:
    for line in environment.read("/proc/meminfo").splitlines():
        if line.startswith("Slab:"):
            return int(line.split()[1]) * 1024
    return 0
