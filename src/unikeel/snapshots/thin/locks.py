"""One at a time for each device, in this process and in all others of the state root.

Making a device active or inactive is more than one step; who does so holds the device's lock: in a process a mutex, between processes a lock of one byte of a
file, at the device's number (fcntl(2), open file description locks). The kernel drops it with its holder, whatever killed that one.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from unikeel.lean import Final

#: struct flock: type, whence, start, length, pid.
_FLOCK: Final = struct.Struct("hh4xqqi4x")
_SET_AND_WAIT: Final = 38  # F_OFD_SETLKW
_STRIPES: Final = 64


def lock_file(database: str, pool: str) -> str:
    """The file of a pool's locks, beside the record store at this path."""
    return f"{database}.pool-{pool}.lock"


class DeviceLocks:
    """The locks of one pool's devices. :param path: the file, which is made if it is missing."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]

    @contextmanager
    def hold(self, number: int) -> Iterator[None]:
        """Hold the lock of one device. Who holds one asks for no other."""
        with self._stripes[number % _STRIPES]:
            self._lock(fcntl.F_WRLCK, number)
            try:
                yield
            finally:
                self._lock(fcntl.F_UNLCK, number)

    def _lock(self, kind: int, number: int) -> None:
        fcntl.fcntl(self._fd, _SET_AND_WAIT, _FLOCK.pack(kind, os.SEEK_SET, number, 1, 0))

    def close(self) -> None:
        """Close the file. Closing twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
