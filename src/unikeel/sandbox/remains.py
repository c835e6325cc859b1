"""What a sandbox can leave when whoever made it was killed: processes, found by their mark, and cgroups, found by their name."""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable, Iterator
from functools import partial

from unikeel.errors import Unavailable, UnikeelError
from unikeel.kernel import pidfd
from unikeel.lean import Final, signal

_CGROUPS: Final = "/sys/fs/cgroup"
#: As in :data:`unikeel.keeper.children.MARK`.
_MARK: Final = "UNIKEEL_CONTAINER"
_ROUNDS: Final = 16
_SECONDS: Final = 10.0
_BETWEEN_SECONDS: Final = 0.005


def cgroup_path(ident: str) -> str:
    """The cgroup of a container's sandbox, in whichever hierarchies the OCI runtime uses."""
    return f"/unikeel-{ident}"


def cgroups(path: str) -> list[str]:
    """The directories of a cgroup that exist, in all hierarchies (one with cgroup2)."""
    hierarchies = (_CGROUPS, *(f"{_CGROUPS}/{name}" for name in _entries(_CGROUPS)))
    # In the keeper's mount namespace there may be an ordinary directory among them.
    real = (place for place in hierarchies if os.path.exists(f"{place}/cgroup.procs"))
    return [place + path for place in real if os.path.isdir(place + path)]


def remove_cgroups(ident: str, path: str = "") -> None:
    """Kill what is in a container's cgroups, and remove them. :raise Unavailable: something in them does not die.

    :param path: where they are, if not at :func:`cgroup_path`.
    """
    for place in cgroups(path or cgroup_path(ident)):
        deadline = time.monotonic() + _SECONDS
        while not _is_removed(place):
            _empty(place)
            if time.monotonic() >= deadline:
                raise Unavailable(f"the cgroup {place} cannot be removed: a process in it does not end")
            # A process that has ended, but whose memory the kernel still frees, is in no list and keeps the cgroup busy; the
            # first version of cgroups offers nothing to wait for.
            select.select((), (), (), _BETWEEN_SECONDS)


def _is_removed(place: str) -> bool:
    try:
        os.rmdir(place)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
        return False
    return True


def _empty(place: str) -> None:
    for name in _entries(place):
        child = os.path.join(place, name)
        if os.path.isdir(child):
            _empty(child)
            _is_removed(child)
    for pid in _members(place):
        _kill(pid, partial(_is_member, place))


def _members(place: str) -> list[int]:
    try:
        with open(os.path.join(place, "cgroup.procs"), encoding="ascii") as file:
            return [int(line) for line in file]
    except FileNotFoundError:
        return []


def _is_member(place: str, pid: int) -> bool:
    return pid in _members(place)


def marked(ident: str) -> Iterator[int]:
    """The processes that were started for a container, and their children that have not executed anything since."""
    for name in _entries("/proc"):
        if name.isdigit() and _is_marked(ident, int(name)):
            yield int(name)


def _is_marked(ident: str, pid: int) -> bool:
    """Whether a process carries a container's mark in its environment."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{_MARK}={ident}".encode() in file.read().split(b"\0")
    except OSError:
        return False


def kill_marked(ident: str) -> None:
    """Kill the processes of a container until there are none: one may have started another meanwhile."""
    for _ in range(_ROUNDS):
        found = list(marked(ident))
        if not found:
            return
        for pid in found:
            _kill(pid, partial(_is_marked, ident))
    raise Unavailable(f"processes of container {ident} do not end: {', '.join(map(str, marked(ident)))}")


def _kill(pid: int, is_right: Callable[[int], bool]) -> None:
    """Kill a process, if it is still the right one once it cannot be mistaken any more, and wait for its end."""
    try:
        process = pidfd.open_pid(pid)
    except (OSError, UnikeelError):
        return
    with process:
        if is_right(pid):
            pidfd.send(process, signal.SIGKILL)
            pidfd.wait_exit(process, _SECONDS)


def _entries(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
