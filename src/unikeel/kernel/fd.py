"""Descriptors with one owner each."""

from __future__ import annotations

import os
from types import TracebackType

from unikeel.lean import Self


class OwnedFd:
    """A file descriptor that exactly one object owns, and that is closed once.

    Usable as a context manager and wherever Python takes something with ``fileno()``. After :meth:`close` or
    :meth:`release` its number is -1, so that a late use fails with EBADF and never meets a stranger's descriptor.

    :param fd: an open descriptor that the caller hands over; it should be close-on-exec.
    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor's number, -1 once it was closed or released."""
        return self._fd

    def release(self) -> int:
        """Give the descriptor up without closing it; the caller owns it now."""
        fd, self._fd = self._fd, -1
        return fd

    def duplicate(self) -> OwnedFd:
        """A second descriptor of the same open file, close-on-exec. :raise OSError: EMFILE, or EBADF after close."""
        return OwnedFd(os.dup(self._fd))

    def close(self) -> None:
        """Close it. Closing twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"OwnedFd({self._fd})"


def open_path(path: str | bytes, flags: int, *, mode: int = 0o600) -> OwnedFd:
    """``open(2)`` with close-on-exec, owned. :raise OSError: what open(2) says."""
    return OwnedFd(os.open(path, flags | os.O_CLOEXEC, mode))


def link_of(fd: int) -> str:
    """The path by which a descriptor of this process is re-opened (proc(5), ``/proc/self/fd``)."""
    return f"/proc/self/fd/{fd}"
