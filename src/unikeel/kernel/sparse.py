"""Copying a file without its holes and without its zeroes.

``lseek`` with SEEK_DATA and SEEK_HOLE (lseek(2)) finds what the file system has blocks for; within that, blocks of 4 KiB that are
all zero are skipped, too. ``copy_file_range`` is not used: it moves zeroes like anything else, and where it
would be quick, a reflink is quicker.

The disk is set to work while the rest is still being read: to leave all of the writing to the flush that follows takes twice as long.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from unikeel.lean import Final

_CHUNK: Final = 1 << 20
_GRAIN: Final = 4096
_ZEROES: Final = bytes(_CHUNK)
#: sync_file_range(2): begin to write what is dirty, and do not wait for it.
_BEGIN: Final = 2


def data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that are not holes, as (start, end), each in bytes; at most up to ``size``."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        if start >= size:
            return
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, end


def sparse_copy(source: int, target: int) -> int:
    """Copy a whole file into an empty one; zeroes become holes. Returns the number of bytes written.

    :param source: open for reading; its position moves.
    :param target: open for writing, empty.
    :raise OSError: reading or writing failed, such as no space; the target is then incomplete.
    """
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    room = bytearray(_CHUNK)
    buffer = memoryview(room)
    written = 0
    for start, end in data_ranges(source, size):
        position = start
        while position < end:
            got = os.preadv(source, [buffer[: min(_CHUNK, end - position)]], position)
            if got == 0:
                raise OSError(errno.EIO, "the file became shorter while it was copied")
            is_dense = got >= _GRAIN and room.find(_ZEROES[:_GRAIN], 0, got) < 0  # mostly: then no grain is looked at
            written += (_write_all if is_dense else _write_nonzero)(target, buffer[:got], position)
            begin_writing(target, position, got)
            position += got
    return written


def begin_writing(fd: int, start: int, length: int) -> None:
    """Have the kernel begin to write a part of a file, in bytes, to its disk. Only a hint: what fails is told by the flush that follows."""
    import ctypes

    from unikeel.kernel.libc import library

    library().sync_file_range(fd, ctypes.c_int64(start), ctypes.c_int64(length), _BEGIN)


def _write_nonzero(target: int, data: memoryview, position: int) -> int:
    """Write the runs of grains that hold anything, each run in one call."""
    if _is_zero(data):
        return 0
    written, start = 0, -1
    for offset in range(0, len(data), _GRAIN):
        grain = data[offset : offset + _GRAIN]
        if _is_zero(grain):
            if start >= 0:
                written += _write_all(target, data[start:offset], position + start)
            start = -1
        elif start < 0:
            start = offset
    if start >= 0:
        written += _write_all(target, data[start:], position + start)
    return written


def _is_zero(data: memoryview) -> bool:
    """As bytes, which compare by memcmp; a view compares item by item, 16 times as slow."""
    return data.tobytes() == _ZEROES[: len(data)]


def _write_all(target: int, data: memoryview, position: int) -> int:
    done = 0
    while done < len(data):
        done += os.pwrite(target, data[done:], position + done)
    return done
