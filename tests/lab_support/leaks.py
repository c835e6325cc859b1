"""What a world holds: everything that a container could leave behind, counted."""

from __future__ import annotations

import contextlib
import glob
import os
from typing import NamedTuple

from lab.leftovers import loops_of
from lab_support import cgroups, processes
from lab_support.world import RUN, World
from unikeel.containerd.records import VIEW


class Holdings(NamedTuple):
    """How many of each there are, and the names of those that have some; the memory of daemon and keeper in bytes."""

    counts: dict[str, int]
    names: dict[str, list[str]]
    memory: int


def holdings(world: World) -> Holdings:
    """What is held now."""
    ours = [*world.keepers(), *world.daemons()]
    snapshots = world.api(lambda containerd: containerd.snapshots(world.snapshotter).list())
    names = {
        "mounts": [mount for process in ours for mount in _mounts(process.pid)],
        "leases": [lease.id for lease in world.api(lambda containerd: containerd.leases.list())],
        "snapshots": [snapshot.name for snapshot in snapshots],
        "views": [snapshot.name for snapshot in snapshots if snapshot.kind == VIEW],
        "loop devices": [*loops_of(world.lab.scratch), *_loops_of_removed_files()],
        "dm devices": glob.glob("/sys/block/dm-*"),
        "cgroups": cgroups.below(f"/unikeel-lab-{world.lab.identity}"),
        "directories": os.listdir(world.lab.path(f"{RUN}/daemon/tasks")),
        "processes": [" ".join(process.argv)[:100] for process in processes.processes(world.lab)],
        "bundles": glob.glob(world.lab.path("/run/containerd/io.containerd.runtime.v2.task/*/*")),
    }
    counts = {what: len(found) for what, found in names.items()}
    counts["descriptors"] = sum(len(processes.descriptors(process.pid)) for process in ours)
    counts["threads"] = sum(processes.threads(process.pid) for process in ours)
    return Holdings(counts, names, sum(processes.pss(process.pid) for process in ours))


def growth(before: Holdings, after: Holdings) -> list[str]:
    """What there is more of, one line each. A thread or two may have been started to do things in."""
    allowed = {"threads": 4, "descriptors": 4}
    found = []
    for what, count in after.counts.items():
        if count - before.counts[what] > allowed.get(what, 0):
            new = sorted(set(after.names.get(what, ())) - set(before.names.get(what, ())))
            found.append(f"{what}: {before.counts[what]} before, {count} now: {new[:10]}")
    return found


def _mounts(pid: int) -> list[str]:
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return [line.split(" ")[4] for line in file]


def _loops_of_removed_files() -> list[str]:
    """Loop devices on files that were removed, which may have been any lab's: what is left of them are their names inside."""
    found = []
    for path in glob.glob("/sys/block/loop*/loop/backing_file"):
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="surrogateescape") as file:
            backing = file.read().strip()
            if backing.endswith(" (deleted)") and backing.startswith(("/var/lib/containerd/", "/var/lib/unikeel/")):
                found.append(f"{path}: {backing}")
    return found
