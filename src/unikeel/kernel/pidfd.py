"""Processes as descriptors: a pid that cannot be recycled under us (pidfd_open(2), Linux 5.3; no capability)."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct

from unikeel.errors import InvalidArgument, Unavailable
from unikeel.kernel.fd import OwnedFd
from unikeel.lean import Final, signal
from unikeel.values import NamedTuple

#: struct pidfd_info, version 0: mask, cgroup, pid, tgid, ppid, 8 ids, exit code (include/uapi/linux/pidfd.h).
_INFO: Final = struct.Struct("=2Q11Ii")
_GET_INFO: Final = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11
_INFO_EXIT: Final = 8


class Exit(NamedTuple):
    """How a process ended: its exit code, or the signal that killed it (then ``code`` is 0)."""

    code: int
    signal: int

    @classmethod
    def of_status(cls, status: int) -> Exit:
        """From a wait status (wait(2))."""
        return cls(os.WEXITSTATUS(status), 0) if os.WIFEXITED(status) else cls(0, os.WTERMSIG(status))


def open_pid(pid: int) -> OwnedFd:
    """A descriptor of a living process. :raise ProcessLookupError: there is none. :raise InvalidArgument: pid of 1 or less."""
    if pid <= 1:
        raise InvalidArgument(f"pid {pid} is not a process of ours")
    try:
        return OwnedFd(os.pidfd_open(pid))
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise Unavailable("the kernel lacks pidfd_open (Linux 5.3)", "use Linux 5.15 or later") from error
        raise


def send(pidfd: OwnedFd, number: int) -> bool:
    """Send a signal; False if the process is already gone. :raise PermissionError: it belongs to another user."""
    try:
        signal.pidfd_send_signal(pidfd.fileno(), number)
    except ProcessLookupError:
        return False
    return True


def wait_exit(pidfd: OwnedFd, seconds: float | None = None) -> bool:
    """Wait until the process has ended, whoever's child it is; False when ``seconds`` went by first (None: no limit)."""
    poll = select.poll()
    poll.register(pidfd.fileno(), select.POLLIN)
    return bool(poll.poll(None if seconds is None else max(0, int(seconds * 1000))))


def exit_info(pidfd: OwnedFd) -> Exit | None:
    """How a process that is not our child ended, after its parent reaped it.

    None where the kernel cannot tell (PIDFD_INFO_EXIT is Linux 6.15) or while it has not been reaped.
    """
    request = _INFO.pack(_INFO_EXIT, *[0] * 13)
    try:
        answer = _INFO.unpack(fcntl.ioctl(pidfd.fileno(), _GET_INFO, request))
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.ESRCH):
            return None
        raise
    return Exit.of_status(answer[-1]) if answer[0] & _INFO_EXIT else None
