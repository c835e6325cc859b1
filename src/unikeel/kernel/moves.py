"""Having the kernel ready to move a process into a cgroup.

Whoever makes a sandbox moves its first process into its cgroups, and the first move after a quiet while waits for an RCU grace period, 6 to 15 ms on an idle
host (``cgroup_threadgroup_rwsem`` in the kernel's kernel/cgroup/cgroup.c is a per-CPU semaphore, whose writer waits for all readers of old). Moves that
follow soon after another wait for nothing. So a process that is about to have a sandbox made moves *itself*, to where it is already, while it prepares
the rest: the sandbox is there 10 ms and more earlier, and nothing else is changed.
"""

from __future__ import annotations

import os
from _thread import start_new_thread
from collections.abc import Iterator

from unikeel.lean import Final, Lock

_OWN: Final = "/proc/self/cgroup"
_ROOT: Final = "/sys/fs/cgroup"
_UNIFIED: Final = f"{_ROOT}/unified"
#: Bytes of a list of processes that are looked through for ours.
_MAX: Final = 1 << 20
_under_way: Final = Lock()


def expect_moves() -> None:
    """Have moves in the next milliseconds wait less. Returns at once; without cgroups, or without the right to them, nothing happens."""
    if not _under_way.acquire(blocking=False):
        return
    try:
        start_new_thread(_move, ())
    except RuntimeError:  # no more threads: a start does not fail for what only makes it quicker
        _under_way.release()


def _move() -> None:
    try:
        with open(_OWN, encoding="utf-8", errors="surrogateescape") as file:
            places = file.read()
        any(stay(path, os.getpid()) for path in process_lists(places))
    except OSError:
        return
    finally:
        _under_way.release()


def process_lists(places: str) -> Iterator[str]:
    """Where the cgroups of a process, as /proc/PID/cgroup tells them (cgroups(7)), usually have their lists of processes."""
    for line in places.splitlines():
        _, controllers, path = line.split(":", 2)
        if ".." in path.split("/"):
            continue  # above what this process may see
        for mounted in (f"{_ROOT}/{controllers.removeprefix('name=')}",) if controllers else (_ROOT, _UNIFIED):
            yield f"{mounted}{path.rstrip('/')}/cgroup.procs"


def stay(path: str, pid: int) -> bool:
    """Move this process to a cgroup that it is in; whether it was. In a namespace, a path can name another one, which is left alone."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if str(pid).encode() not in os.read(fd, _MAX).split():
            return False
        os.write(fd, b"0")
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
