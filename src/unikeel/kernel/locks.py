"""Locks between processes, as long as their holder lives: ``flock`` on a file (flock(2))."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from unikeel.kernel.fd import OwnedFd


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the lock at ``path``, waiting for it; the file is made if it is missing.

    The file may be taken away by who holds its lock (:func:`forget`); then the one that is there now is locked.
    """
    while True:
        fd = OwnedFd(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        with fd:
            fcntl.flock(fd.fileno(), fcntl.LOCK_EX)
            if os.fstat(fd.fileno()).st_nlink:
                yield
                return


def forget(path: str) -> None:
    """Take a lock's file away if nobody holds it."""
    try:
        fd = OwnedFd(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW))
    except FileNotFoundError:
        return
    with fd:
        try:
            fcntl.flock(fd.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if os.fstat(fd.fileno()).st_nlink:
            os.unlink(path)
