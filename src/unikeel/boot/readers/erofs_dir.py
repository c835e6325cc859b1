"""Directory blocks of erofs: a table of entries in the order of their names, then the names."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from unikeel.errors import BadContent

#: The largest directory that is read, in bytes.
MAX_DIRECTORY = 32 << 20

_ENTRY = 12
_NAME_MAX = 255


def find(content: bytes, block_size: int, name: bytes, what: str) -> int | None:
    """The inode number of the entry ``name`` in a directory's content, or None; ``what`` names the directory.

    :raises BadContent: the block that has the name in it is damaged.
    """
    for start in range(0, len(content), block_size):
        block = content[start : start + block_size]
        if name in block:
            for found, number in _entries(block, what):
                if found == name:
                    return number
    return None


def entries(content: bytes, block_size: int, what: str) -> Iterator[tuple[bytes, int]]:
    """All names with their inode numbers, without ``.`` and ``..``.

    :raises BadContent: a block is damaged, or a name is one that no path can hold.
    """
    for start in range(0, len(content), block_size):
        for name, number in _entries(content[start : start + block_size], what):
            if name in {b".", b".."}:
                continue
            if b"/" in name:
                raise BadContent(f"{what} is damaged: it has an impossible name")
            yield name, number


def _entries(block: bytes, what: str) -> list[tuple[bytes, int]]:
    size = len(block)
    names = int.from_bytes(block[8:10], "little") if size >= _ENTRY else 0
    if names < _ENTRY or names >= size or names % _ENTRY:
        raise BadContent(f"{what} is damaged: its names begin at {names}")
    table = list(struct.iter_unpack("<QHBx", block[:names]))
    starts = [entry[1] for entry in table]
    result: list[tuple[bytes, int]] = []
    for index, (number, start, _) in enumerate(table):
        last = index + 1 == len(table)
        end = size if last else starts[index + 1]
        name = block[start:end]
        if last:
            name = name.partition(b"\0")[0]
        if not start < end <= size or not 0 < len(name) <= _NAME_MAX or b"\0" in name:
            raise BadContent(f"{what} is damaged: an entry has an impossible name")
        if result and result[-1][0] >= name:
            raise BadContent(f"{what} is damaged: its names are out of order")
        result.append((name, number))
    return result
