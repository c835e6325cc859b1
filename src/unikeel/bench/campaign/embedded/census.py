"""What is on the host because of a state root: mounts, loop devices, processes, containers, snapshots. Before a sample nothing may be left of others; after it, of itself.

Left-over mounts and devices slow down whoever comes next, and made published figures wrong by a factor of two.
"""

from __future__ import annotations

import glob
import os
import time
from typing import Final

from unikeel.bench.containerd.inside.processes import children, name_of
from unikeel.bench.stage import Stage, mounts_under
from unikeel.snapshots.contract import Kind

_PATIENCE: Final = 20.0
_PAUSE: Final = 0.02
#: The command that the keeper runs after a guest's end, and what it runs in turn, are on their way.
_PASSING: Final = ("python", "unikeel", "crun", "runc", "")


def take(stage: Stage) -> frozenset[str]:
    """What there is now, one line for each thing."""
    services = stage.engine.services
    keeper = stage.keeper()
    directory = os.path.dirname(stage.root)
    return frozenset(
        [
            *(f"mount {point}" for point in mounts_under(directory)),
            *(f"device {name}" for name in _loops(directory)),
            *(f"process {pid} ({name})" for pid, name in _processes(keeper)),
            *(f"container {record.name}" for record in services.containers.list()),
            *(f"snapshot {info.name}" for info in services.snapshots.list() if info.kind is not Kind.COMMITTED),
        ]
    )


def left(stage: Stage, before: frozenset[str]) -> frozenset[str]:
    """Wait until there is nothing that was not there before; what still is after some seconds."""
    end = time.monotonic() + _PATIENCE
    while found := take(stage) - before:
        if time.monotonic() > end:
            return found
        time.sleep(_PAUSE)
    return frozenset()


def _processes(keeper: int | None) -> list[tuple[int, str]]:
    found = [(pid, name_of(pid)) for pid in children(keeper)] if keeper else []
    return [(pid, name) for pid, name in found if not name.startswith(_PASSING[:-1]) and name]


def _loops(directory: str) -> list[str]:
    """Loop devices whose files are below a directory."""
    found = []
    for path in glob.glob("/sys/block/loop*/loop/backing_file"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                backing = file.read().strip()
        except OSError:
            continue  # gone meanwhile
        if backing.startswith(directory + "/"):
            found.append(f"{path.split('/')[3]} ({os.path.basename(backing)})")
    return found
