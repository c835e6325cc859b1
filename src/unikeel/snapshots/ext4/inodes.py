"""Inodes: fixed fields, times beyond 2038, device numbers, fast links, and extent trees."""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Sequence

from unikeel.errors import BadContent
from unikeel.snapshots.ext4.layout import BLOCK, INODE_SIZE
from unikeel.snapshots.ext4.nodes import Node
from unikeel.values import NamedTuple

#: A symbolic link shorter than this lies in the inode itself.
FAST_LINK = 60
MAX_LINK_TARGET = BLOCK - 1
MAX_LINKS = 65000
MAX_MAJOR = 1 << 12
MAX_MINOR = 1 << 20
EXTENTS_FLAG = 0x80000
EXTRA_SIZE = 32
_NANOSECOND = 1_000_000_000
_MIN_TIME = -(1 << 31)
_MAX_TIME = (1 << 34) - (1 << 31) - 1
_INODE = struct.Struct("<HHIIIIIHHII4x60sIIII" + "HHHH4x" + "HHIIIII8x")
_EXTENT_HEADER = struct.Struct("<HHHHI")
_EXTENT = struct.Struct("<IHHI")
_INDEX = struct.Struct("<IIHH")
_EXTENT_MAGIC = 0xF30A
_INODE_EXTENTS = 4
_BLOCK_EXTENTS = (BLOCK - 12) // 12


class Mapping(NamedTuple):
    """An inode's 60 bytes of block map, and the blocks of the extent tree as (block number, content)."""

    root: bytes
    tree: list[tuple[int, bytes]]


def extent_tree_blocks(blocks: int) -> int:
    """At most this many blocks does :func:`map_extents` need for a file of so many blocks."""
    # Besides its own limit, an extent may be cut by the copies of the superblock, at most one in every group.
    extents = 2 * (-(-blocks // 32768)) + 2
    if extents <= _INODE_EXTENTS:
        return 0
    total, level = 0, extents
    while level > _INODE_EXTENTS:
        level = -(-level // _BLOCK_EXTENTS)
        total += level
    return total


def map_extents(extents: Sequence[tuple[int, int]], allocate: Callable[[], int]) -> Mapping:
    """Maps a file's blocks, given as (start, length) in the file's order; ``allocate`` gives a block for the tree."""
    entries: list[tuple[int, bytes]] = []
    logical = 0
    for start, length in extents:
        entries.append((logical, _EXTENT.pack(logical, length, 0, start)))
        logical += length
    tree: list[tuple[int, bytes]] = []
    depth = 0
    while len(entries) > _INODE_EXTENTS:
        above = []
        for first in range(0, len(entries), _BLOCK_EXTENTS):
            part = entries[first : first + _BLOCK_EXTENTS]
            block = allocate()
            tree.append((block, _tree_node(part, _BLOCK_EXTENTS, depth).ljust(BLOCK, b"\0")))
            above.append((part[0][0], _INDEX.pack(part[0][0], block, 0, 0)))
        entries = above
        depth += 1
    return Mapping(_tree_node(entries, _INODE_EXTENTS, depth), tree)


def _tree_node(entries: Sequence[tuple[int, bytes]], room: int, depth: int) -> bytes:
    header = _EXTENT_HEADER.pack(_EXTENT_MAGIC, len(entries), room, depth, 0)
    return header + b"".join(entry for _, entry in entries)


def device_map(major: int, minor: int) -> bytes:
    """A device number as ext4 keeps it: the old 16-bit form where it fits, else the new one in the second word.

    :raises BadContent: Linux has no such device number.
    """
    if not (0 <= major < MAX_MAJOR and 0 <= minor < MAX_MINOR):
        raise BadContent(f"there is no device number {major}:{minor}")
    if major < 256 and minor < 256:
        return struct.pack("<II", major << 8 | minor, 0)
    return struct.pack("<III", 0, (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12), 0)


def encode(node: Node, *, size: int, blocks: int, block_map: bytes, flags: int, acl: int, inline: bytes) -> bytes:
    """One inode.

    :param size: bytes of content, by the rules of its type.
    :param blocks: blocks of 4096 bytes that belong to it, those of trees and attributes included.
    :param acl: number of the block with extended attributes, or 0.
    :param inline: what lies behind the fixed part.
    """
    seconds, extra = _time(node.mtime)
    links = node.links
    if links > MAX_LINKS:
        # For directories the dir_nlink feature says: 1 means "not counted". (The kernel keeps it so only in indexed
        # directories; in ours a directory made later sets it to 2, which e2fsck mends and nothing else minds.)
        links = 1
    sectors = blocks * (BLOCK // 512)
    fixed = _INODE.pack(
        node.mode,
        node.uid & 0xFFFF,
        size & 0xFFFFFFFF,
        seconds,
        seconds,
        seconds,
        0,
        node.gid & 0xFFFF,
        links,
        sectors & 0xFFFFFFFF,
        flags,
        block_map,
        0,
        acl,
        size >> 32,
        0,
        sectors >> 32,
        0,
        node.uid >> 16,
        node.gid >> 16,
        EXTRA_SIZE,
        0,
        extra,
        extra,
        extra,
        seconds,
        extra,
    )
    return (fixed + inline).ljust(INODE_SIZE, b"\0")


def is_fast_link(node: Node) -> bool:
    return stat.S_ISLNK(node.mode) and len(node.target) < FAST_LINK


def _time(nanoseconds: int) -> tuple[int, int]:
    """A time as the 32-bit field and the extra one: two more bits of seconds below thirty of nanoseconds."""
    seconds, rest = divmod(nanoseconds, _NANOSECOND)
    if seconds < _MIN_TIME:
        seconds, rest = _MIN_TIME, 0
    elif seconds > _MAX_TIME:
        seconds, rest = _MAX_TIME, 0
    low = seconds & 0xFFFFFFFF
    signed = low - (1 << 32) if low & 0x80000000 else low
    return low, (rest << 2) | (((seconds - signed) >> 32) & 3)
