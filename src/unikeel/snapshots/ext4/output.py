"""Sparse writing: neighbouring pieces are joined into large writes, and long runs of zeroes are never written."""

from __future__ import annotations

import errno
import os
from types import TracebackType

from unikeel.errors import ResourceExhausted
from unikeel.lean import Self
from unikeel.snapshots.ext4.layout import BLOCK

_BUFFER = 1 << 20
#: A run of zeroes shorter than this is written: a hole there would cost more than it saves.
_HOLE = 4 * BLOCK
_ZERO = bytes(BLOCK)


def name_of(fd: int) -> str:
    """What an open file is called, for messages."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return f"file descriptor {fd}"


class NoSpace:
    """A context manager that turns "no space", "quota" and "file too large" into :class:`ResourceExhausted`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise ResourceExhausted(
                f"cannot write {name_of(self._fd)}: {error.strerror}", "free some space and try again"
            ) from error


def write_sparse(fd: int, offset: int, data: bytes) -> None:
    """Writes ``data``, whose beginning is block-aligned in the file, leaving out long runs of zero blocks.

    The file must read as zeroes there already.
    """
    start, position, size = 0, 0, len(data)
    while position < size:
        end = position
        while end < size and data.startswith(_ZERO, end):
            end += BLOCK
        if end == position:
            position += BLOCK
            continue
        if end - position >= _HOLE or (position == start and end >= size):
            _write(fd, offset + start, data[start:position])
            start = end
        position = end
    _write(fd, offset + start, data[start:])


def _write(fd: int, offset: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        offset += count
        view = view[count:]


class Output:
    """Collects pieces that follow each other (each a whole number of blocks, or padded to it by the caller)."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._start = 0
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, offset: int, data: bytes) -> None:
        """Puts ``data`` at ``offset``; it may reach the file only with :meth:`flush`."""
        if offset != self._start + self._size or self._size >= _BUFFER:
            self.flush()
            self._start = offset
        self._pieces.append(data)
        self._size += len(data)

    def flush(self) -> None:
        if self._pieces:
            data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            write_sparse(self._fd, self._start, data)
        self._start += self._size
        self._pieces = []
        self._size = 0
