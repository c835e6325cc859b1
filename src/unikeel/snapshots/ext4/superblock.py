"""The superblock, the group descriptors and the journal's superblock."""

from __future__ import annotations

import struct

from unikeel.snapshots.ext4.layout import BLOCK, FIRST_INODE, GROUP_BLOCKS, INODE_SIZE, Geometry
from unikeel.values import NamedTuple

JOURNAL_INODE = 8
#: All of the file system's own times: not 0, which some tools take for "never".
FIXED_TIME = 1
_SUPER_OFFSET = 1024
_HAS_JOURNAL, _EXT_ATTR, _DIR_INDEX = 0x4, 0x8, 0x20
_FILETYPE, _EXTENTS, _FLEX_BG = 0x2, 0x40, 0x200
_SPARSE_SUPER, _LARGE_FILE, _HUGE_FILE, _DIR_NLINK, _EXTRA_ISIZE = 0x1, 0x2, 0x8, 0x20, 0x40
_FEATURES = (
    _HAS_JOURNAL | _EXT_ATTR | _DIR_INDEX,
    _FILETYPE | _EXTENTS | _FLEX_BG,
    _SPARSE_SUPER | _LARGE_FILE | _HUGE_FILE | _DIR_NLINK | _EXTRA_ISIZE,
)
_USER_XATTR_AND_ACL = 0xC
_SIGNED_HASH = 0x1
_HALF_MD4 = 1


class Totals(NamedTuple):
    """What is free in the whole file system, and the journal's block map and size in bytes for the superblock's copy."""

    free_blocks: int
    free_inodes: int
    journal_map: bytes
    journal_size: int


class Group(NamedTuple):
    """One block group's descriptor."""

    block_bitmap: int
    inode_bitmap: int
    inode_table: int
    free_blocks: int
    free_inodes: int
    directories: int


def superblock(geometry: Geometry, uuid: bytes, totals: Totals, group: int) -> bytes:
    """The 1024 bytes of the superblock, or of its copy in ``group``."""
    data = bytearray(1024)

    def put(offset: int, form: str, *values: int | bytes) -> None:
        struct.pack_into("<" + form, data, offset, *values)

    put(0, "IIII", geometry.inodes, geometry.blocks, 0, totals.free_blocks)
    put(16, "IIII", totals.free_inodes, 0, 2, 2)
    put(32, "III", GROUP_BLOCKS, GROUP_BLOCKS, geometry.group_inodes)
    # Never mounted, written at the fixed time; no limit of mounts; clean; errors=continue.
    put(44, "IIHHHHHH", 0, FIXED_TIME, 0, 0xFFFF, 0xEF53, 1, 1, 0)
    put(64, "IIIIHH", FIXED_TIME, 0, 0, 1, 0, 0)
    put(84, "IHH", FIRST_INODE, INODE_SIZE, group)
    put(92, "III16s", *_FEATURES, uuid)
    put(224, "I", JOURNAL_INODE)
    put(236, "16sBB", _hash_seed(uuid), _HALF_MD4, 1)
    put(256, "II", _USER_XATTR_AND_ACL, 0)
    put(264, "I60sII", FIXED_TIME, totals.journal_map, totals.journal_size >> 32, totals.journal_size & 0xFFFFFFFF)
    put(348, "HHI", 32, 32, _SIGNED_HASH)
    put(372, "B", 4)
    return bytes(data)


def first_block(primary: bytes) -> bytes:
    """Block 0: the superblock lies behind 1024 bytes for a boot loader."""
    return (bytes(_SUPER_OFFSET) + primary).ljust(BLOCK, b"\0")


def descriptors(groups: list[Group]) -> bytes:
    """The group descriptor table, padded to whole blocks."""
    table = b"".join(
        struct.pack(
            "<IIIHHH14x", g.block_bitmap, g.inode_bitmap, g.inode_table, g.free_blocks, g.free_inodes, g.directories
        )
        for g in groups
    )
    return table.ljust(-(-len(table) // BLOCK) * BLOCK, b"\0")


def journal_superblock(blocks: int, uuid: bytes) -> bytes:
    """The first block of an empty jbd2 journal (version 2): start 0 says that there is nothing to replay."""
    head = struct.pack(">IIIIIIIIIIII16sI", 0xC03B3998, 4, 0, BLOCK, blocks, 1, 1, 0, 0, 0, 0, 0, uuid, 1)
    return head.ljust(BLOCK, b"\0")


def _hash_seed(uuid: bytes) -> bytes:
    """A fixed seed for directory hashes, of the form of a UUID, different for each file system."""
    import hashlib

    return hashlib.sha256(b"directory hash" + uuid).digest()[:16]
