"""Sizes and places: the plan always has room for what was asked, and blocks are handed out once."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unikeel.errors import ResourceExhausted
from unikeel.snapshots.ext4 import layout
from unikeel.snapshots.ext4.layout import BLOCK, FIRST_INODE, GROUP_BLOCKS, Allocator, Demand, Geometry

DEMANDS = st.builds(
    Demand, inodes=st.integers(1, 3_000_000), blocks=st.integers(0, 1 << 24), free_bytes=st.integers(0, 1 << 40)
)


def placed(geometry: Geometry) -> Allocator:
    """An allocator after the bitmaps, tables and the journal have their places, as in a real image."""
    allocator = Allocator(geometry)
    for _ in range(2 * geometry.groups):
        allocator.run(1)
    for _ in range(geometry.groups):
        allocator.run(geometry.table_blocks)
    allocator.extents(geometry.journal_blocks)
    return allocator


@settings(max_examples=100, deadline=None)
@given(DEMANDS)
def test_plan_holds_the_demand(demand: Demand) -> None:
    geometry = layout.plan(demand)
    assert geometry.groups == -(-geometry.blocks // GROUP_BLOCKS)
    assert geometry.inodes >= demand.inodes + FIRST_INODE - 1 + 1024
    assert geometry.group_inodes <= layout.MAX_GROUP_INODES
    assert geometry.group_size(geometry.groups - 1) >= 2048
    allocator = placed(geometry)
    allocator.extents(demand.blocks)
    used = sum(end - start for start, end in allocator.used_ranges())
    assert (geometry.blocks - used) * BLOCK >= demand.free_bytes
    assert allocator.used_ranges()[-1][1] <= geometry.blocks


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2_000_000), st.lists(st.tuples(st.booleans(), st.integers(1, 70_000)), max_size=12))
def test_blocks_are_handed_out_once_and_never_a_copy_of_the_superblock(
    inodes: int, wishes: list[tuple[bool, int]]
) -> None:
    geometry = layout.plan(Demand(inodes, 70_000 * 24, 0))
    allocator = Allocator(geometry)
    length = 1 + geometry.descriptor_blocks
    taken = [(group * GROUP_BLOCKS, length) for group in layout.backup_groups(geometry.groups)]
    for contiguous, count in wishes:
        part = [(allocator.run(min(count, 2048)), min(count, 2048))] if contiguous else allocator.extents(count)
        assert contiguous or sum(size for _, size in part) == count
        assert all(size <= layout.MAX_EXTENT for _, size in part)
        taken += part
    taken.sort()
    for (start, size), (following, _) in pairwise(taken):
        assert start + size <= following
    assert sum(end - start for start, end in allocator.used_ranges()) == sum(size for _, size in taken)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 40_000), max_size=30), st.integers(0, 20_000), st.integers(1, 20_000))
def test_bitmap_has_exactly_the_bits_of_the_ranges(numbers: set[int], first: int, size: int) -> None:
    ranges = [(number, number + 1) for number in sorted(numbers)]
    value = int.from_bytes(layout.bitmap(ranges, first, size), "little")
    expected = {number - first for number in numbers if first <= number < first + size}
    assert {bit for bit in range(size) if value >> bit & 1} == expected
    assert value >> size == (1 << (GROUP_BLOCKS - size)) - 1
    assert layout.clear_bits(layout.bitmap(ranges, first, size)) == size - len(expected)


def test_copies_of_the_superblock_are_where_the_kernel_looks() -> None:
    assert layout.backup_groups(1) == [0]
    assert layout.backup_groups(130) == [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]


def test_demands_beyond_the_format() -> None:
    with pytest.raises(ResourceExhausted, match="16 TiB"):
        layout.plan(Demand(1, 1 << 32, 0))


def test_full_file_system_says_so() -> None:
    allocator = Allocator(Geometry(8192, 1, 1024, 1024))
    with pytest.raises(ResourceExhausted, match="too small"):
        allocator.extents(8192)
