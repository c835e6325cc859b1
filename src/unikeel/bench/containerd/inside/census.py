"""What must be gone after a sample: mounts, block devices, processes, cgroups; snapshots, leases and tasks of containerd."""

from __future__ import annotations

import asyncio
import glob
import os
import time
from collections.abc import Iterable
from typing import Final, TypeAlias

from unikeel.bench.containerd.inside.processes import named
from unikeel.containerd.client import Containerd
from unikeel.kernel import loop
from unikeel.kernel.fd import OwnedFd

#: Kinds of processes that belong to a task.
_PROCESSES: Final = ("qemu-system", "containerd-shim", "crun", "runc", "passt", "busybox", "sleep")
#: What a snapshotter mounts for itself, and keeps (erofs: each layer).
_SNAPSHOTTERS: Final = "/var/lib/containerd/io.containerd.snapshotter."
#: How the kernel shows a file that has no name any more.
_DELETED: Final = "(deleted)"
_PATIENCE: Final = 30.0
_PAUSE: Final = 0.05

Census: TypeAlias = frozenset[str]


async def take(containerd: Containerd, snapshotter: str) -> Census:
    """What there is now, one line for each thing."""
    snapshots = await containerd.snapshots(snapshotter).list()
    leases, tasks = await containerd.leases.list(), await containerd.tasks.list()
    return frozenset(
        [
            *(f"mount {point}" for point in mount_points(_read("/proc/self/mountinfo"))),
            *(f"device {name}" for name in _devices()),
            *(f"process {pid} ({name})" for pid, name in named(*_PROCESSES).items()),
            *(f"snapshot {snapshot.name}" for snapshot in snapshots),
            *(f"lease {lease.id}" for lease in leases),
            *(f"task {task.id or task.container}" for task in tasks),
        ]
    )


async def gone(before: Census, containerd: Containerd, snapshotter: str) -> str:
    """Wait until there is nothing that was not there before; what still is after some seconds, empty if nothing is."""
    end = time.monotonic() + _PATIENCE
    while left := await take(containerd, snapshotter) - before:
        if time.monotonic() > end:
            return "left behind: " + ", ".join(sorted(left))
        await asyncio.sleep(_PAUSE)
    return ""


def mount_points(mountinfo: str) -> list[str]:
    """The mount points in the text of /proc/self/mountinfo, but for those that are a snapshotter's own."""
    points = [line.split(" ")[4] for line in mountinfo.splitlines() if line]
    return [point for point in points if not point.startswith(_SNAPSHOTTERS)]


def _devices() -> Iterable[str]:
    """Loop devices with a file of this world's, and device-mapper devices."""
    for directory in sorted(glob.glob("/sys/block/dm-*/dm")):
        yield _read(os.path.join(directory, "name")).strip() or directory
    for directory in sorted(glob.glob("/sys/block/loop*/loop")):
        path = _read(os.path.join(directory, "backing_file")).strip()
        if path.endswith(_DELETED) or is_ours(os.path.join("/dev", directory.split("/")[3]), path):
            yield path or directory


def is_ours(device: str, path: str) -> bool:
    """Whether a loop device's file is the one that has this path here: the device may be another lab's, whose paths are the same as ours."""
    try:
        info = os.stat(path)
        with OwnedFd(os.open(device, os.O_RDONLY | os.O_CLOEXEC)) as opened:
            status = loop.status_of(opened)
    except OSError:
        return False  # not here, or gone meanwhile
    return status is not None and status.backs(info)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
