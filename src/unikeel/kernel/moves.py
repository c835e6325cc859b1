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
#: Bytes of what a process is told of its cgroups, and of a list of processes that are looked through for ours.
_PLACES: Final = 64 << 10
_MAX: Final = 1 << 20
_under_way: Final = Lock()
_asked: Final = Lock()


class _Mover:
    """A thread that waits to be asked: to start one for each sandbox costs a daemon more than the rest of this."""

    def __init__(self) -> None:
        #: The process whose thread it is: of a fork's there is none.
        self.process = 0
        #: What was told of the process's cgroups the last time, and the list that it was found in.
        self._places = b""
        self._list = ""

    def ask(self) -> None:
        """:raise RuntimeError: there are no more threads."""
        if self.process != os.getpid():
            _asked.acquire(blocking=False)
            start_new_thread(self._serve, ())
            self.process = os.getpid()
        _asked.release()

    def _serve(self) -> None:
        while _asked.acquire():
            try:
                self._move()
            except OSError:
                self._list = ""
            finally:
                _under_way.release()

    def _move(self) -> None:
        places = _read(_OWN, _PLACES)
        if self._list and places == self._places:
            _write(self._list)
            return
        self._places = places
        lists = process_lists(places.decode("utf-8", "surrogateescape"))
        self._list = next((path for path in lists if stay(path, os.getpid())), "")


_mover: Final = _Mover()


def expect_moves() -> None:
    """Have moves in the next milliseconds wait less. Returns at once; without cgroups, or without the right to them, nothing happens."""
    if not _under_way.acquire(blocking=False):
        return
    try:
        _mover.ask()
    except RuntimeError:  # no more threads: a start does not fail for what only makes it quicker
        _under_way.release()


def _read(path: str, most: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, most)
    finally:
        os.close(fd)


def _write(path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"0")
    finally:
        os.close(fd)


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
