"""The log of device-mapper's target log-writes, and its replay up to any entry.

The target logs a write when it is complete, and one that no flush has followed yet only with that flush: so the writes up to a flush are what a disk with a
volatile cache must have after it, and those up to any other entry are what it may have. Format: the kernel's Documentation/admin-guide/device-mapper/log-writes.rst
and the head of drivers/md/dm-log-writes.c.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

MAGIC: Final = 0x6A736677736872
#: struct log_write_super: magic, version, number of entries, bytes of a sector.
_SUPER: Final = struct.Struct("<QQQI")
#: struct log_write_entry: sector, number of sectors, flags, bytes that follow in the entry's own sector.
_ENTRY: Final = struct.Struct("<QQQQ")
FLUSH: Final = 1
FUA: Final = 2
DISCARD: Final = 4
MARK: Final = 8
_PIECE: Final = 1 << 20


class Entry(NamedTuple):
    """One entry: what was written (bytes of the device), where its content lies in the log, and a mark's text."""

    number: int
    offset: int
    length: int
    flags: int
    content: int
    text: str


def entries(log: int) -> Iterator[Entry]:
    """The entries of the log that a descriptor is open on. :raise ValueError: it is none."""
    magic, version, count, sector = _SUPER.unpack(os.pread(log, _SUPER.size, 0))
    if magic != MAGIC or version != 1 or sector % 512 or not sector:
        raise ValueError("this is no log of writes")
    at = sector
    for number in range(count):
        start, length, flags, extra = _ENTRY.unpack(os.pread(log, _ENTRY.size, at))
        text = os.pread(log, extra, at + _ENTRY.size).rstrip(b"\0").decode(errors="replace") if flags & MARK else ""
        at += sector
        content = 0 if flags & (DISCARD | MARK) else length * sector
        yield Entry(number, start * sector, length * sector, flags, at if content else 0, text)
        at += content


def replay(log: int, target: int, entry: Entry) -> None:
    """Do to a file what an entry did to the device."""
    if entry.flags & MARK:
        return
    done = 0
    while done < entry.length:
        size = min(_PIECE, entry.length - done)
        data = bytes(size) if entry.flags & DISCARD else os.pread(log, size, entry.content + done)
        if len(data) < size:
            raise ValueError("the log of writes is cut short")
        done += os.pwrite(target, data, entry.offset + done)


def cuts(found: list[Entry], begin: str, end: str, count: int) -> list[int]:
    """So many numbers of entries between two marks after which the power may go away, evenly spread; every other one is right after a flush.

    :raise ValueError: the marks are not there.
    """
    marks = {entry.text: entry.number for entry in found if entry.flags & MARK}
    if begin not in marks or end not in marks:
        raise ValueError(f"the log has no marks {begin} and {end}, only {', '.join(marks)}")
    among = range(marks[begin] + 1, marks[end])
    flushed = [number for number in among if found[number].flags & (FLUSH | FUA)]
    halves = _spread(flushed, (count + 1) // 2) + _spread(list(among), count // 2)
    return sorted(set(halves))


def _spread(among: list[int], count: int) -> list[int]:
    return [among[(2 * index + 1) * len(among) // (2 * count)] for index in range(count)] if among else []
