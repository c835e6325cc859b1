"""One process serves the snapshots of a state root: it holds a lock, and a second one is refused.

The lock is the kernel's, of an open file description (fcntl(2), F_OFD_SETLK), so it goes with the process, whatever ended it; asking who has it takes nothing from
anybody. Engine commands use the store beside it: they take no claim.
"""

from __future__ import annotations

import fcntl
import os
import struct
from types import TracebackType

from unikeel.errors import FailedPrecondition, of_system
from unikeel.lean import Final, Self

_FILE: Final = "snapshotter.lock"
#: struct flock: kind, whence, start, length (0: to the end), process; and what the compiler adds.
_LOCK: Final = struct.Struct("hhqqi4x")
_EXCLUSIVE: Final = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


class Claim:
    """The claim on a state root, from construction to :meth:`close`; a context manager.

    :raise FailedPrecondition: another process has it; the message tells which.
    """

    def __init__(self, root: str) -> None:
        self._fd = _open(root)
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _EXCLUSIVE)
        except OSError:
            error = _taken(root, self._fd)
            self.close()
            raise error from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Give it up. Closing twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_unclaimed(root: str) -> None:
    """:raise FailedPrecondition: another process serves the snapshots of this state root; the message tells which."""
    fd = _open(root)
    try:
        if _LOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _EXCLUSIVE))[0] != fcntl.F_UNLCK:
            raise _taken(root, fd)
    finally:
        os.close(fd)


def _open(root: str) -> int:
    try:
        return os.open(os.path.join(root, _FILE), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise of_system(error) from error


def _taken(root: str, fd: int) -> FailedPrecondition:
    holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
    return FailedPrecondition(
        f"the snapshots of {root} are served by process {holder} already",
        "stop that one first, or give this one a state root of its own with --root",
    )
