"""Reading a thin pool's metadata: from blocks made here; the lab's tests read those that the kernel makes."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unikeel.boot.readers.crc import crc32c
from unikeel.errors import BadContent, FailedPrecondition
from unikeel.snapshots.pools.thin_metadata import (
    BLOCK,
    Details,
    MetadataDevice,
    devices,
    is_superblock,
    parse_superblock,
)

ROOT = 1
TREE = 2


def sealed(block: bytes, number: int, salt: int) -> bytes:
    block = block.ljust(BLOCK, b"\0")
    block = block[:8] + number.to_bytes(8, "little") + block[16:]
    return (crc32c(0xFFFFFFFF, block[4:]) ^ salt).to_bytes(4, "little") + block[4:]


def superblock(number: int = 0, *, held: int = 0, details: int = TREE, flags: int = 0, blocks: int = 64) -> bytes:
    space = struct.pack("<QQ", 1000, 17).ljust(128, b"\0")
    packed = struct.pack(
        "<IIQ16sQIIQQ128s128sQQIIQ",
        *(0, flags, 0, b"", 27022010, 2, 0, 5, held),
        *(space, b"", 9, details, 128, 8, blocks),
    )
    return sealed(packed, number, 160774)


def node(number: int, keys: list[int], values: list[bytes], *, leaf: bool) -> bytes:
    size = 24 if leaf else 8
    most = 126 if leaf else 252
    head = struct.pack("<IIQIIII", 0, 2 if leaf else 1, 0, len(keys), most, size, 0)
    packed = head + struct.pack(f"<{len(keys)}Q", *keys).ljust(8 * most, b"\0") + b"".join(values)
    return sealed(packed, number, 121107)


def details(mapped: int) -> bytes:
    return struct.pack("<QQII", mapped, 3, 0, 0)


BLOCKS = {
    0: superblock(held=ROOT, flags=1),
    ROOT: superblock(ROOT),
    TREE: node(TREE, [0, 5], [(3).to_bytes(8, "little"), (4).to_bytes(8, "little")], leaf=False),
    3: node(3, [0, 1], [details(1), details(20)], leaf=True),
    4: node(4, [5, 1 << 20], [details(7), details(0)], leaf=True),
}


def written(tmp_path: Path, blocks: dict[int, bytes]) -> str:
    path = tmp_path / "metadata"
    with path.open("wb") as file:
        file.truncate(64 * BLOCK)
        for number, block in blocks.items():
            file.seek(number * BLOCK)
            file.write(block)
    return str(path)


def test_the_devices_of_a_pool(tmp_path: Path) -> None:
    expected = {0: Details(1, 3), 1: Details(20, 3), 5: Details(7, 3), 1 << 20: Details(0, 3)}
    with MetadataDevice(written(tmp_path, BLOCKS)) as device:
        assert device.resting_devices() == expected
        assert device.held_devices() == expected
        found = device.superblock()
    assert (found.needs_check, found.transaction, found.held_root) == (True, 5, ROOT)
    assert (found.block_size, found.data_blocks, found.data_used, found.metadata_blocks) == (1 << 16, 1000, 17, 64)


def test_what_is_not_held_is_not_read(tmp_path: Path) -> None:
    with (
        MetadataDevice(written(tmp_path, {**BLOCKS, 0: superblock()})) as device,
        pytest.raises(FailedPrecondition, match="not held"),
    ):
        device.held_devices()


@pytest.mark.parametrize(
    "change",
    [
        {0: b"\0" * BLOCK},
        {0: superblock()[:-1] + b"x"},
        {0: superblock(details=64)},
        {0: superblock(details=0)},
        {TREE: BLOCKS[3]},
        {TREE: node(TREE, [0], [TREE.to_bytes(8, "little")], leaf=False)},
        {TREE: node(TREE, [0, 5], [(3).to_bytes(8, "little")] * 2, leaf=False)},
        {3: node(3, [1 << 24], [details(1)], leaf=True)},
        {4: node(3, [1], [details(1)], leaf=True)},
        {4: sealed(struct.pack("<IIQIIII", 0, 2, 0, 500, 126, 24, 0), 4, 121107)},
        {4: sealed(struct.pack("<IIQIIII", 0, 2, 0, 1, 400, 24, 0), 4, 121107)},
        {4: sealed(struct.pack("<IIQIIII", 0, 3, 0, 1, 1, 8, 0), 4, 121107)},
    ],
)
def test_damage_is_told(tmp_path: Path, change: dict[int, bytes]) -> None:
    with MetadataDevice(written(tmp_path, {**BLOCKS, **change})) as device, pytest.raises(BadContent):
        device.resting_devices()


def test_a_device_that_ends_too_early(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(superblock() + BLOCKS[ROOT])
    with MetadataDevice(str(path)) as device, pytest.raises(BadContent, match="ends before block 2"):
        device.resting_devices()


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=BLOCK), st.integers(0, BLOCK - 1))
def test_whatever_a_block_holds_is_no_surprise(data: bytes, at: int) -> None:
    """Also behind an intact checksum."""
    head = (data + bytes(BLOCK))[:BLOCK]
    is_superblock(head)
    with pytest.raises(BadContent):
        parse_superblock(head)
    whole = parse_superblock(superblock())
    mixed = sealed((BLOCKS[TREE][:at] + data + BLOCKS[TREE][at + len(data) :])[:BLOCK], TREE, 121107)
    blocks = {**BLOCKS, TREE: mixed}
    with contextlib.suppress(BadContent):
        devices(lambda number: blocks.get(number, bytes(BLOCK)), whole)
