"""Where things lie: how many blocks, groups and inodes a file system needs, and which blocks are taken.

All bitmaps and inode tables are packed at the front (what ``mke2fs -E packed_meta_blocks=1`` does; the ``flex_bg``
feature allows it), so that the tree's data follows as one run, interrupted only by the superblock's copies.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from unikeel.errors import InvalidArgument, ResourceExhausted

BLOCK = 4096
INODE_SIZE = 256
INODES_PER_BLOCK = BLOCK // INODE_SIZE
GROUP_BLOCKS = 8 * BLOCK
MAX_GROUP_INODES = 8 * BLOCK
DESCRIPTOR_SIZE = 32
#: Inodes 1 to 10 are reserved; the tree's own begin here.
FIRST_INODE = 11
#: One extent maps at most this many blocks.
MAX_EXTENT = 32768
#: Block numbers have 32 bits without the 64bit feature.
MAX_BLOCKS = 1 << 32
_ALIGN = 256
_SMALLEST_LAST_GROUP = 2048
_BYTES_PER_INODE = 16384
_SPARE_INODES = 1024


@dataclass(frozen=True)
class Demand:
    """What a tree needs: its inodes (reserved ones not counted), its data blocks at most, and the free space wanted."""

    inodes: int
    blocks: int
    free_bytes: int


@dataclass(frozen=True)
class Geometry:
    """The sizes of one file system, in blocks of 4096 bytes."""

    blocks: int
    groups: int
    group_inodes: int
    journal_blocks: int

    @property
    def inodes(self) -> int:
        return self.groups * self.group_inodes

    @property
    def descriptor_blocks(self) -> int:
        return _descriptor_blocks(self.groups)

    @property
    def table_blocks(self) -> int:
        """Blocks of one group's inode table."""
        return self.group_inodes // INODES_PER_BLOCK

    def group_size(self, group: int) -> int:
        """Blocks of a group: all have the same number but the last."""
        return min(GROUP_BLOCKS, self.blocks - group * GROUP_BLOCKS)


def _descriptor_blocks(groups: int) -> int:
    return -(-groups * DESCRIPTOR_SIZE // BLOCK)


def backup_groups(groups: int) -> list[int]:
    """The groups that hold a superblock and descriptors (the ``sparse_super`` rule): 0, 1 and powers of 3, 5 and 7."""
    found = {0, 1}
    for base in (3, 5, 7):
        power = base
        while power < groups:
            found.add(power)
            power *= base
    return sorted(group for group in found if group < groups)


def journal_blocks(blocks: int) -> int:
    """Size of the journal for a file system of so many blocks; grows about as ``mke2fs`` has it, 64 MiB at most."""
    for limit, size in ((32768, 1024), (262144, 4096), (524288, 8192)):
        if blocks < limit:
            return size
    return 16384


def plan(demand: Demand) -> Geometry:
    """The smallest file system that holds the demand: content, journal, and a tenth of the content more than the free
    space asked for.

    :raises ResourceExhausted: 16 TiB would not do.
    """
    free = -(-demand.free_bytes // BLOCK) + demand.blocks // 10
    spare = max(_SPARE_INODES, demand.inodes // 4, free * BLOCK // _BYTES_PER_INODE)
    inodes = FIRST_INODE - 1 + demand.inodes + spare
    groups, total = -(-inodes // MAX_GROUP_INODES), 0
    while True:
        journal = journal_blocks(max(total, demand.blocks + free))
        # So many groups there have to be, be it for the blocks' sake or for the inodes'.
        least = (groups - 1) * GROUP_BLOCKS + _SMALLEST_LAST_GROUP
        total = max(_total(groups, inodes, demand.blocks + free + journal), least)
        if total > MAX_BLOCKS:
            raise ResourceExhausted(f"a file system of {total * BLOCK} bytes is over ext4's limit of 16 TiB")
        needed = -(-total // GROUP_BLOCKS)
        if needed == groups and journal_blocks(total) <= journal:
            return Geometry(total, groups, _group_inodes(inodes, groups), journal)
        groups = needed


def plan_fixed(size: int) -> Geometry:
    """The geometry of an empty file system in ``size`` bytes (a few at the end may stay unused).

    :raises InvalidArgument: the size is below 16 MiB or above 16 TiB.
    """
    blocks = size // BLOCK
    if not 4096 <= blocks <= MAX_BLOCKS:
        raise InvalidArgument(f"an ext4 image cannot have {size} bytes", "choose a size from 16 MiB to 16 TiB")
    rest = blocks % GROUP_BLOCKS
    if blocks > GROUP_BLOCKS and 0 < rest < _SMALLEST_LAST_GROUP:
        blocks -= rest
    groups = -(-blocks // GROUP_BLOCKS)
    return Geometry(blocks, groups, _group_inodes(blocks * BLOCK // _BYTES_PER_INODE, groups), journal_blocks(blocks))


def _group_inodes(inodes: int, groups: int) -> int:
    per_group = -(-inodes // groups)
    return min(-(-per_group // INODES_PER_BLOCK) * INODES_PER_BLOCK, MAX_GROUP_INODES)


def _total(groups: int, inodes: int, content: int) -> int:
    table = _group_inodes(inodes, groups) // INODES_PER_BLOCK
    copies = len(backup_groups(groups))
    # A table is contiguous, so one may have to be moved behind a copy of the superblock, leaving a gap before it.
    gaps = copies * table
    total = copies * (1 + _descriptor_blocks(groups)) + groups * (2 + table) + gaps + content
    total = -(-total // _ALIGN) * _ALIGN
    rest = total % GROUP_BLOCKS
    if 0 < rest < _SMALLEST_LAST_GROUP:
        total += _SMALLEST_LAST_GROUP - rest
    return total


class Allocator:
    """Hands out blocks in ascending order, going round the superblock's copies, and remembers what is used."""

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        length = 1 + geometry.descriptor_blocks
        self._reserved = [(g * GROUP_BLOCKS, g * GROUP_BLOCKS + length) for g in backup_groups(geometry.groups)]
        self._next_reserved = 1
        self._cursor = length
        self._used = [(0, length)]

    def run(self, count: int) -> int:
        """The first of ``count`` contiguous blocks; a gap that is too small stays free."""
        while self._cursor + count > self._limit():
            self._skip()
        start = self._cursor
        self._take(count)
        return start

    def extents(self, count: int) -> list[tuple[int, int]]:
        """``count`` blocks as (start, length) pairs, none longer than an extent may be."""
        result = []
        while count:
            room = self._limit() - self._cursor
            if room <= 0:
                self._skip()
                continue
            length = min(count, room, MAX_EXTENT)
            result.append((self._cursor, length))
            self._take(length)
            count -= length
        return result

    def used_ranges(self) -> list[tuple[int, int]]:
        """All blocks in use as sorted, disjoint (start, end) pairs; the superblock's copies are among them."""
        merged: list[tuple[int, int]] = []
        for start, end in sorted(self._used + self._reserved[1:]):
            if merged and merged[-1][1] >= start:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    def _limit(self) -> int:
        if self._next_reserved < len(self._reserved):
            return self._reserved[self._next_reserved][0]
        return self._geometry.blocks

    def _skip(self) -> None:
        if self._next_reserved >= len(self._reserved):
            raise ResourceExhausted("the file system is too small for its content")
        self._cursor = self._reserved[self._next_reserved][1]
        self._next_reserved += 1

    def _take(self, count: int) -> None:
        start, end = self._used[-1]
        if end == self._cursor:
            self._used[-1] = (start, end + count)
        else:
            self._used.append((self._cursor, self._cursor + count))
        self._cursor += count


def bitmap(ranges: list[tuple[int, int]], first: int, size: int) -> bytes:
    """One block of bitmap for ``size`` bits from ``first``: the ranges are set, and so is what lies behind the size."""
    value = ((1 << (GROUP_BLOCKS - size)) - 1) << size
    index = max(bisect_right(ranges, (first, 0)) - 1, 0)
    for start, end in ranges[index:]:
        low, high = max(start, first) - first, min(end, first + size) - first
        if start >= first + size:
            break
        if low < high:
            value |= ((1 << (high - low)) - 1) << low
    return value.to_bytes(BLOCK, "little")


def clear_bits(block: bytes) -> int:
    """How many bits of a bitmap are 0: what is free."""
    return 8 * BLOCK - int.from_bytes(block, "little").bit_count()
