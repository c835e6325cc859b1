"""The keeper's process: becomes a subreaper, gets itself a cgroup view that crun can use, and runs the loop.

Started by :mod:`.client` with the lock that says "a keeper lives" as descriptor 3 and the listening socket as descriptor 4: a dying process closes
its descriptors in this order, so that whoever is refused by the socket finds the lock free. In the foreground, as a service's main process, it makes
both by itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import sys

from unikeel.keeper.failpoint import failpoint
from unikeel.keeper.loop import say
from unikeel.keeper.service import Keeper

_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_SLAVE = 0x4000, 0x80000
_MS_PLAIN = 2 | 4 | 8  # nosuid, nodev, noexec
_MNT_DETACH = 2
_ALL_FDS = 1 << 20
_DESCRIPTORS = 1 << 16
_LOCK_SECONDS = 10.0
_HYBRID = "/sys/fs/cgroup/unified"


def _is_hybrid() -> bool:
    """Whether the host has the v1 hierarchies with a cgroup2 mount beside them, which crun refuses."""
    return os.path.exists(_HYBRID + "/cgroup.procs") and not os.path.exists("/sys/fs/cgroup/cgroup.procs")


def _hide_unified(libc: ctypes.CDLL) -> int:
    """In a mount namespace of our own (host mounts still arrive), put an empty directory in place of a hybrid host's cgroup2 mount.

    It takes what crun makes there all the same, which would else lie beneath the host's mount for ever. Returns the host's namespace as a
    descriptor; -1 if we are still in it.
    """
    host = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    if libc.unshare(_CLONE_NEWNS) != 0:
        say(f"no mount namespace of its own: {os.strerror(ctypes.get_errno())}")
        os.close(host)
        return -1
    for result in (
        libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None),
        libc.umount2(_HYBRID.encode(), _MNT_DETACH),
        libc.mount(b"tmpfs", _HYBRID.encode(), b"tmpfs", _MS_PLAIN, b"mode=0755"),
    ):
        if result != 0:
            say(f"cannot hide the cgroup2 mount: {os.strerror(ctypes.get_errno())}")
            break
    return host


def _raise_limit() -> None:
    """There are a few descriptors for each monitor and each command."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, _DESCRIPTORS), hard))


def _separate() -> None:
    """A process of its own, that nobody waits for."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.closerange(5, _ALL_FDS)


def _take_over(directory: str) -> socket.socket:
    """In the foreground: the lock and the listening socket are made here, and what is said goes to the log."""
    from unikeel.keeper.starter import bind, locked, open_log

    log = open_log(directory)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    locked(directory, _LOCK_SECONDS)  # the descriptor is lower than that of the socket, and never closed
    return socket.socket(fileno=bind(directory).detach())  # which can accept


def main(*, foreground: bool = False) -> None:
    """Run until idle; with a daemon, until told to end.

    Arguments: the idle times in seconds (the keeper's, a held view's), the directory of the socket, and of a keeper with a daemon a JSON object:
    ``daemon`` (its command) and ``listen`` (pairs of name and path).

    :param foreground: as a service's main process, which makes its lock and its socket by itself; descriptors from 3 on are the service manager's.
    """
    if not foreground:
        _separate()
    os.chdir("/")
    os.umask(0o077)
    failpoint("keeper.main")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NAME, b"unikeel-keeper", 0, 0, 0)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    directory = sys.argv[3]
    listener = _take_over(directory) if foreground else socket.socket(fileno=4)
    host = _hide_unified(libc) if _is_hybrid() else -1
    _raise_limit()
    if not foreground:
        for fd in (3, 4):
            os.set_inheritable(fd, False)
    keeper = Keeper(idle=float(sys.argv[1]), view_idle=float(sys.argv[2]), host=host)
    if len(sys.argv) > 4:
        _add_daemon(keeper, directory, sys.argv[4])
    failpoint("keeper.ready")
    keeper.run(listener)
    failpoint("keeper.leaving")
    # While the lock is ours, nobody else has made this socket. Who is refused or cut off from here on starts a new keeper.
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(directory, "keeper.sock"))
    os._exit(0)


def _add_daemon(keeper: Keeper, directory: str, text: str) -> None:
    import json

    from unikeel.keeper.supervisor import Daemon, daemon_environment

    wanted = json.loads(text)
    daemon = Daemon(tuple(wanted["daemon"]), daemon_environment(), directory)
    keeper.with_daemon(daemon, [(name, path) for name, path in wanted["listen"]])
