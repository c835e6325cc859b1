"""Directory blocks: plain linear directories, entries in the order of their names."""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterable

from unikeel.snapshots.ext4.layout import BLOCK
from unikeel.snapshots.ext4.nodes import Node

_ENTRY = struct.Struct("<IHBB")
_DOT_BYTES = 24
#: File types of directory entries, as the ``filetype`` feature has them.
_TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}


def _length(name: bytes) -> int:
    return (8 + len(name) + 3) & ~3


def block_count(names: Iterable[bytes]) -> int:
    """How many blocks :func:`encode` will need for these names in this order."""
    blocks, fill = 1, _DOT_BYTES
    for name in names:
        length = _length(name)
        if fill + length > BLOCK:
            blocks += 1
            fill = 0
        fill += length
    return blocks


def encode(node: Node) -> bytes:
    """The blocks of a directory whose children have their inode numbers and are in the order wanted."""
    entries = [(node.ino, b".", 2), (node.up, b"..", 2)]
    entries += [(child.ino, name, _TYPES[stat.S_IFMT(child.mode)]) for name, child in (node.children or {}).items()]
    blocks: list[bytes] = []
    parts: list[bytes] = []
    fill = 0
    for position, (ino, name, kind) in enumerate(entries):
        length = _length(name)
        following = _length(entries[position + 1][1]) if position + 1 < len(entries) else BLOCK
        last = fill + length + following > BLOCK
        parts.append(_ENTRY.pack(ino, BLOCK - fill if last else length, len(name), kind))
        parts.append(name.ljust(length - 8, b"\0"))
        fill += length
        if last:
            blocks.append(b"".join(parts).ljust(BLOCK, b"\0"))
            parts, fill = [], 0
    return b"".join(blocks)
