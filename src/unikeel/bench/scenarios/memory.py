"""``host_memory``: what a running container costs the host beyond its monitor, with N idle ones running by the same strategy.

Scenario ``idle``: without a network, which such a guest gets by default; ``idle-network``: with one, and so with a helper process each.

Counted, for all N together and divided by N: the keeper's and the network helpers' proportional set size (so that a library that many use is
counted once), the tmpfs that holds copies, and memory files that the keeper holds. Not counted: the monitors themselves, and the
page cache of files on disk, which the kernel takes back when it needs it.
"""

from __future__ import annotations

import os
from typing import Final

from unikeel.bench.plan import Plan, Progress
from unikeel.bench.rows import Board, Key, Series
from unikeel.bench.stage import SNAPSHOTTER, STRATEGIES, Stage
from unikeel.boot.contract import MIB
from unikeel.engine.settings import Options
from unikeel.errors import UnikeelError

_ROUNDS: Final = 3
_SIBLINGS: Final = 8
_SIBLINGS_QUICK: Final = 2
_IMAGES: Final = ("hello", "bulky")
#: Scenario → the network asked for.
_SCENARIOS: Final = {"idle": "none", "idle-network": "user"}


def measure(stage: Stage, plan: Plan, board: Board, progress: Progress) -> None:
    """Start N containers, look, remove them; for each strategy in turn, several rounds."""
    if not plan.wants("host_memory"):
        return
    count = plan.count(_ROUNDS)
    siblings = _SIBLINGS_QUICK if plan.quick else _SIBLINGS
    for number in range(count):
        for image in plan.of(_IMAGES):
            for strategy in STRATEGIES:
                progress.at(f"memory of {siblings} x {image}, {strategy}", number, count)
                for scenario, network in _SCENARIOS.items():
                    key = Key(
                        scenario, "host_memory", "MiB", image, strategy, SNAPSHOTTER, stage.runtime, None, siblings
                    )
                    options = Options(args=("wait",), boot_files=strategy, network=network)
                    _take(stage, board.series(key), image, options, siblings)


def _take(stage: Stage, series: Series, image: str, options: Options, siblings: int) -> None:
    try:
        series.add(_one(stage, image, options, siblings))
    except (UnikeelError, OSError) as error:
        series.fail(str(error))
    finally:
        stage.remove_containers()
        stage.forget_boot_files()


def _one(stage: Stage, image: str, options: Options, siblings: int) -> float:
    """MiB per container while ``siblings`` of them run."""
    for _ in range(siblings):
        container = stage.engine.create(image, options)
        container.start(ready="first-output")
        served = container.record.strategy
        if served != options.boot_files:
            raise UnikeelError(f"{served} served instead")
    keeper = stage.keeper()
    if keeper is None:
        raise UnikeelError("there is no keeper, although containers run")
    monitors = {container.record.pid for container in stage.engine.containers()}
    if len(monitors) != siblings:
        raise UnikeelError(f"{len(monitors)} containers run instead of {siblings}")
    processes = [keeper, *(pid for pid in children(keeper) if pid not in monitors)]
    held = sum(pss(pid) for pid in processes) + memory_files(keeper) + copies(stage)
    return held / siblings / MIB


def pss(pid: int) -> int:
    """A process's proportional set size in bytes; 0 if it has gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def children(pid: int) -> list[int]:
    """The processes that a process is the parent of."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def memory_files(pid: int) -> int:
    """Bytes in memory files (memfd) that a process has open, each file once."""
    found: dict[int, int] = {}
    directory = f"/proc/{pid}/fd"
    for name in os.listdir(directory):
        try:
            if os.readlink(f"{directory}/{name}").startswith("/memfd:"):
                info = os.stat(f"{directory}/{name}")
                found[info.st_ino] = info.st_blocks * 512
        except FileNotFoundError:
            continue
    return sum(found.values())


def copies(stage: Stage) -> int:
    """Bytes of memory in the files of the tmpfs that holds copies (it has no bound, so it does not say itself how full it is)."""
    path = os.path.join(stage.engine.services.layout.boot, "copies")
    if not os.path.ismount(path):
        return 0
    sizes = (os.stat(os.path.join(root, name)).st_blocks for root, _, names in os.walk(path) for name in names)
    return sum(sizes) * 512
