"""What a native lab must not leave on the host: cgroups, loop devices, mounts, its scratch directory.

A lab names all of it after itself, so that a later one can clean up after one whose test process was killed; which one that is, is known by a lock on the
scratch directory that the lab's first process holds.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import struct
import time
from collections.abc import Iterator
from typing import Final

from lab.paths import PREFIX, cache

_LOOP_GET_STATUS64, _LOOP_CLR_FD = 0x4C05, 0x4C01
_PATIENCE: Final = 10.0
_LOCK: Final = "lock"
#: How long a lab may take from its directory to the lock on it.
_UNCLAIMED_SECONDS: Final = 60.0


def cgroups(identity: str) -> list[str]:
    """The directories of a lab's cgroups, the top of each hierarchy."""
    return [path for point in _hierarchies() if os.path.isdir(path := os.path.join(point, PREFIX + identity))]


def remove(identity: str, patience: float = _PATIENCE) -> list[str]:
    """Remove what a lab that has ended left, as far as it goes away by itself within ``patience``; what did not, one line each.

    The kernel ends the namespaces a little after the last process: loop devices and cgroups are waited for, and only then removed by force.
    """
    scratch = cache("scratch", PREFIX + identity)
    end = time.monotonic() + patience
    left = _found(identity, scratch)
    while left and time.monotonic() < end:
        time.sleep(0.02)
        left = _found(identity, scratch)
    if left:
        for device in loops_of(scratch):
            _detach(device)
    if os.path.isdir(scratch):
        shutil.rmtree(scratch, ignore_errors=True)
        if os.path.exists(scratch):
            left.append(f"scratch {scratch}")
    return left


def claim(scratch: str) -> int:
    """Make a scratch directory with a lock on it; the descriptor that holds the lock, for as long as it or a copy is open.

    The file has its name only when it is locked: a sweep that finds it free has found a lab that is dead, never one that begins.
    """
    os.makedirs(scratch, mode=0o700)
    path = os.path.join(scratch, _LOCK)
    descriptor = os.open(path + ".new", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.rename(path + ".new", path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def sweep() -> None:
    """Clean up after labs whose processes are all gone. Others may do the same at the same time, and labs may begin and end meanwhile."""
    for scratch in glob.glob(cache("scratch", PREFIX + "*")):
        try:
            descriptor = os.open(os.path.join(scratch, _LOCK), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            if _age(scratch) > _UNCLAIMED_SECONDS:
                shutil.rmtree(scratch, ignore_errors=True)
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            remove(os.path.basename(scratch).removeprefix(PREFIX), patience=1)
        finally:
            os.close(descriptor)


def _age(path: str) -> float:
    """Seconds since a directory was changed; 0 if another sweep, or its lab, has just removed it."""
    try:
        return time.time() - os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def _found(identity: str, scratch: str) -> list[str]:
    return [
        *(f"cgroup {path}" for top in cgroups(identity) for path in _remove_cgroup(top)),
        *(f"mount {point}" for point in _mounts_below(scratch)),
        *(f"loop device {device}" for device in loops_of(scratch)),
    ]


def _remove_cgroup(top: str) -> list[str]:
    """Remove a cgroup and all below; those that cannot be."""
    left = []
    for directory, _, _ in os.walk(top, topdown=False):
        try:
            os.rmdir(directory)
        except OSError:
            left.append(directory)
    return left


def _hierarchies() -> Iterator[str]:
    for left, kind in _mountinfo():
        if kind in ("cgroup", "cgroup2"):
            yield left


def _mounts_below(scratch: str) -> list[str]:
    return [point for point, _ in _mountinfo() if point.startswith(scratch + "/")]


def _mountinfo() -> list[tuple[str, str]]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        halves = [line.split(" - ") for line in file]
    return [(left.split(" ")[4], right.split(" ")[0]) for left, right in halves]


def loops_of(scratch: str) -> list[str]:
    """The loop devices on files below a directory: by device and inode, since names in another mount namespace say nothing."""
    attached = {
        _backing(device): device
        for device in glob.glob("/dev/loop[0-9]*")
        if os.path.exists(f"/sys/block/{device[5:]}/loop")
    }
    attached.pop(None, None)
    if not attached:
        return []
    found = []
    for directory, _, names in os.walk(scratch):
        for name in names:
            try:
                status = os.lstat(os.path.join(directory, name))
            except FileNotFoundError:
                continue
            if (device := attached.get((status.st_dev, status.st_ino))) is not None:
                found.append(device)
    return found


def _backing(device: str) -> tuple[int, int] | None:
    """Device and inode of a loop device's file."""
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = bytearray(232)
        fcntl.ioctl(descriptor, _LOOP_GET_STATUS64, status)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    device_number, inode = struct.unpack_from("QQ", status)
    # The kernel's own encoding of a device number in 32 bits, as stat's for small numbers.
    return int(device_number), int(inode)


def _detach(device: str) -> None:
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.ioctl(descriptor, _LOOP_CLR_FD)
    except OSError:
        pass
    finally:
        os.close(descriptor)
