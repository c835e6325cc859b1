"""Content for a device: what a file holds, its holes left out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unikeel.errors import InvalidArgument
from unikeel.kernel.devmapper import wire
from unikeel.kernel.sparse import data_ranges
from unikeel.lean import Final

_CHUNK: Final = 1 << 20
_ZEROES: Final = bytes(64 << 10)


@contextmanager
def filled_file(directory: str, fill: Callable[[int], object]) -> Iterator[tuple[int, int]]:
    """A file without a name that ``fill`` has written to, and its size in whole sectors; gone afterwards, however this process ends.

    :raise InvalidArgument: it is empty.
    """
    fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fill(fd)
        size = os.fstat(fd).st_size
        if size == 0:
            raise InvalidArgument("an image is empty")
        yield fd, size + -size % wire.SECTOR
    finally:
        os.close(fd)


def copy_onto(source: int, device: int) -> None:
    """Copy a file onto a new device, which reads as zeroes; on the disk when this returns. Runs of 64 KiB of zeroes are left out."""
    grain = len(_ZEROES)
    for start, end in data_ranges(source, os.fstat(source).st_size):
        position = start
        while position < end:
            data = os.pread(source, min(_CHUNK, end - position), position)
            if not data:
                break
            for offset in range(0, len(data), grain):
                piece = data[offset : offset + grain]
                if piece != _ZEROES[: len(piece)]:
                    _write_all(device, piece, position + offset)
            position += len(data)
    os.fsync(device)


def _write_all(fd: int, data: bytes, position: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, position)
        position += count
        view = view[count:]
