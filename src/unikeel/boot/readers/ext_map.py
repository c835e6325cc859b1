"""Where the blocks of an ext2, ext3 or ext4 file lie: extent trees and indirect block maps.

Source: Documentation/filesystems/ext4 (block map, extent tree). Both are walked in logical order; what lies beyond
the file's size is not looked at, and no block of the map may be used twice, so a walk ends.
"""

from __future__ import annotations

import struct

from unikeel.boot.readers.contract import Extent
from unikeel.boot.readers.crc import crc32c
from unikeel.boot.readers.ext_inode import FLAG_EXTENTS, ExtInode
from unikeel.boot.readers.ext_super import ExtSuper
from unikeel.boot.readers.files import MapBuilder
from unikeel.boot.readers.image import Image
from unikeel.errors import BadContent

#: Pieces of one file above which it is refused: a whole gigabyte of single 4 KiB blocks has as many.
MAX_PIECES = 1 << 18

_EXTENT_MAGIC = 0xF30A
_MAX_DEPTH = 5
_WRITTEN_MOST = 32768
_DIRECT = 12
_BLOCKS_MOST = 1 << 32


def file_map(image: Image, fs: ExtSuper, inode: ExtInode, most: int | None = None) -> list[Extent]:
    """The map of an inode that has blocks, from 0 to its size, holes included.

    :param most: look no further than so many bytes.
    :raises BadContent: the map is damaged, or the file is too fragmented or too large for its format.
    """
    size = inode.info.size if most is None else min(most, inode.info.size)
    builder = MapBuilder(size, MAX_PIECES)
    walker = _ExtentTree if inode.flags & FLAG_EXTENTS else _BlockMap
    walker(image, fs, inode, builder, size).walk()
    return builder.extents()


class _Walk:
    """What both kinds of map share: bounds, and blocks of the map that are read once only."""

    def __init__(self, image: Image, fs: ExtSuper, inode: ExtInode, builder: MapBuilder, size: int) -> None:
        self._image = image
        self._fs = fs
        self._inode = inode
        self._builder = builder
        self._used: set[int] = set()
        self._size = fs.block_size
        self._wanted = -(-size // fs.block_size)
        if self._wanted > _BLOCKS_MOST:
            raise self._damaged("is larger than its format allows")

    def _damaged(self, what: str) -> BadContent:
        return BadContent(f"inode {self._inode.info.inode} is damaged: its map {what}")

    def _check_range(self, block: int, count: int) -> None:
        if not self._fs.first_block < block <= self._fs.blocks - count:
            raise self._damaged(f"leads to block {block}, outside the file system")

    def _node(self, block: int) -> bytes:
        self._check_range(block, 1)
        if block in self._used:
            raise self._damaged(f"uses block {block} twice")
        self._used.add(block)
        return self._image.metadata(block * self._size, self._size, f"the map of inode {self._inode.info.inode}")

    def _add(self, logical: int, physical: int, count: int) -> None:
        self._check_range(physical, count)
        if not self._builder.add(logical * self._size, physical * self._size, count * self._size):
            raise BadContent(f"inode {self._inode.info.inode} is in more than {MAX_PIECES} pieces")


class _ExtentTree(_Walk):
    def walk(self) -> None:
        """Walk the tree from the root in the inode."""
        root = self._inode.map
        self._walk_node(root, self._header(root, None), 0, _BLOCKS_MOST)

    def _header(self, node: bytes, depth: int | None) -> tuple[int, int]:
        """Number of entries and depth of a node, which must be ``depth`` where that is known."""
        magic, entries, most, found = struct.unpack_from("<4H", node, 0)
        if magic != _EXTENT_MAGIC or entries > most or 12 + 12 * most > len(node):
            raise self._damaged("has a damaged extent header")
        if found > _MAX_DEPTH or (depth is not None and found != depth):
            raise self._damaged(f"has a node of depth {found} in the wrong place")
        return entries, found

    def _walk_node(self, node: bytes, header: tuple[int, int], low: int, high: int) -> None:
        """Walk a node whose blocks must lie in ``low`` (included) to ``high`` (excluded)."""
        entries, depth = header
        if depth == 0:
            self._leaf(node, entries, low, high)
            return
        keys = [struct.unpack_from("<IIH", node, 12 + 12 * index) for index in range(entries)]
        for index, (key, leaf_low, leaf_high) in enumerate(keys):
            beyond = keys[index + 1][0] if index + 1 < entries else high
            if not low <= key < beyond <= high:
                raise self._damaged("has index entries out of order")
            if key >= self._wanted:
                return
            child = self._child(leaf_low | leaf_high << 32)
            self._walk_node(child, self._header(child, depth - 1), key, beyond)
            low = beyond

    def _child(self, block: int) -> bytes:
        node = self._node(block)
        if self._fs.checksums:
            (most,) = struct.unpack_from("<H", node, 4)
            tail = 12 + 12 * most
            if tail + 4 > len(node):
                raise self._damaged("has a damaged extent header")
            if crc32c(self._inode.seed, node[:tail]) != int.from_bytes(node[tail : tail + 4], "little"):
                raise BadContent(f"the checksum of an extent block of inode {self._inode.info.inode} is wrong")
        return node

    def _leaf(self, node: bytes, entries: int, low: int, high: int) -> None:
        for index in range(entries):
            logical, length, start_high, start_low = struct.unpack_from("<IHHI", node, 12 + 12 * index)
            written = length <= _WRITTEN_MOST
            if not written:
                length -= _WRITTEN_MOST
            if length == 0 or logical < low or logical + length > high:
                raise self._damaged("has extents out of order")
            low = logical + length
            if logical >= self._wanted:
                continue
            physical = start_low | start_high << 32
            if written:
                self._add(logical, physical, length)
            else:
                self._check_range(physical, length)


class _BlockMap(_Walk):
    def walk(self) -> None:
        """Walk the twelve direct blocks and the three trees of indirect ones."""
        pointers = struct.unpack("<15I", self._inode.map)
        per_block = self._size // 4
        if self._wanted > _DIRECT + per_block + per_block**2 + per_block**3:
            raise self._damaged("is too small for the file's size")
        self._run(0, pointers[:_DIRECT])
        start = _DIRECT
        for level in (1, 2, 3):
            self._tree(start, pointers[_DIRECT + level - 1], level)
            start += per_block**level

    def _tree(self, logical: int, block: int, level: int) -> None:
        """The pointers beneath an indirect block, which begin at block ``logical`` of the file."""
        if not block or logical >= self._wanted:
            return
        pointers = struct.unpack(f"<{self._size // 4}I", self._node(block))
        if level == 1:
            self._run(logical, pointers)
            return
        span = (self._size // 4) ** (level - 1)
        for pointer in pointers:
            if logical >= self._wanted:
                return
            self._tree(logical, pointer, level - 1)
            logical += span

    def _run(self, logical: int, pointers: tuple[int, ...]) -> None:
        """Add the blocks that ``pointers`` name, joined where they follow each other."""
        pointers = pointers[: max(self._wanted - logical, 0)]
        start = 0
        while start < len(pointers):
            first = pointers[start]
            count = _length_of_run(pointers, start)
            if first:
                self._add(logical + start, first, count)
            start += count


def _length_of_run(pointers: tuple[int, ...], start: int) -> int:
    """How many pointers from ``start`` on name consecutive blocks, or are zero like the first.

    Compares stretches of doubling length, so that long runs go at the speed of one comparison.
    """
    first, rest = pointers[start], len(pointers) - start
    count = 1
    while count < rest:
        more = min(count, rest - count)
        expected = tuple(range(first + count, first + count + more)) if first else (0,) * more
        if pointers[start + count : start + count + more] != expected:
            break
        count += more
    while count < rest and pointers[start + count] == (first + count if first else 0):
        count += 1
    return count
