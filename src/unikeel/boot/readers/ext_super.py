"""The superblock and the group descriptors of ext2, ext3 and ext4: what is read, what is refused, and by which name.

Source: the kernel's documentation of ext4's on-disk layout (Documentation/filesystems/ext4) and ext4(5). All numbers
are little-endian. The rules for what may be read are those of a read-only mount without journal replay, except that
a file system that needs any recovery is refused, since its plain content is stale.
"""

from __future__ import annotations

import struct

from unikeel.boot.readers.crc import crc16, crc32c
from unikeel.boot.readers.image import Image
from unikeel.errors import BadContent

SUPER_OFFSET = 1024
SUPER_SIZE = 1024
MAGIC = 0xEF53
ROOT_INODE = 2

COMPAT_HAS_JOURNAL = 0x4
COMPAT_DIR_INDEX = 0x20
COMPAT_SPARSE_SUPER2 = 0x200

INCOMPAT_RECOVER = 0x4
INCOMPAT_META_BG = 0x10
INCOMPAT_64BIT = 0x80
INCOMPAT_MMP = 0x100
INCOMPAT_EA_INODE = 0x400
INCOMPAT_CSUM_SEED = 0x2000
INCOMPAT_LARGEDIR = 0x4000

RO_SPARSE_SUPER = 0x1
RO_GDT_CSUM = 0x10
RO_BIGALLOC = 0x200
RO_METADATA_CSUM = 0x400
RO_ORPHAN_PRESENT = 0x10000

#: Incompatible features that change nothing for a reader, or that this reader knows how to read. ``encrypt`` and
#: ``casefold`` allow single inodes to be so; those are refused where they are met.
_READ = {
    0x2: "filetype",
    0x10: "meta_bg",
    0x40: "extent",
    0x80: "64bit",
    0x100: "mmp",
    0x200: "flex_bg",
    0x400: "ea_inode",
    0x2000: "metadata_csum_seed",
    0x4000: "large_dir",
    0x8000: "inline_data",
    0x10000: "encrypt",
    0x20000: "casefold",
}
_REFUSED = {0x1: "compression", 0x8: "journal_dev", 0x1000: "dirdata"}
_EXT3_INCOMPAT = 0x2 | 0x4 | 0x10
_EXT3_RO_COMPAT = 0x1 | 0x2 | 0x4

_STATE_VALID = 1
_STATE_ERROR = 2
_STATE_ORPHAN = 4

_RECOVERY_HINT = "unmount it cleanly or run e2fsck on it, then commit it again"


def needs_recovery(why: str) -> BadContent:
    """The error for a file system whose plain content is stale; ``why`` completes the sentence."""
    return BadContent(f"the ext file system needs recovery: {why}", _RECOVERY_HINT)


class ExtSuper:
    """The checked superblock of an image; sizes in bytes unless a name says blocks.

    :raises BadContent: it is damaged, asks for recovery, or has a feature that unikeel does not read.
    """

    __slots__ = (
        "_backup_groups",
        "_compat",
        "_descriptors",
        "_first_meta_bg",
        "_image",
        "_logical_super",
        "_ro_compat",
        "_uuid",
        "block_size",
        "blocks",
        "blocks_per_group",
        "checksum_seed",
        "checksums",
        "cluster_size",
        "desc_size",
        "first_block",
        "first_inode",
        "fstype",
        "groups",
        "incompat",
        "inode_size",
        "inodes",
        "inodes_per_group",
        "inodes_summed",
        "journal_inode",
        "mmp_block",
    )

    blocks: int
    blocks_per_group: int
    desc_size: int
    first_block: int
    first_inode: int
    incompat: int
    inode_size: int
    inodes: int
    inodes_per_group: int
    journal_inode: int
    mmp_block: int
    _compat: int
    _first_meta_bg: int
    _logical_super: int
    _ro_compat: int

    def __init__(self, image: Image) -> None:
        raw = image.metadata(SUPER_OFFSET, SUPER_SIZE, "the superblock")
        self._image = image
        self._descriptors: dict[int, int] = {}
        (self._compat, self.incompat, self._ro_compat) = struct.unpack_from("<3I", raw, 92)
        self._uuid = raw[104:120]
        self.checksums = bool(self._ro_compat & RO_METADATA_CSUM)
        self._check_features()
        self._check_sum(raw)
        self._check_state(raw)
        self._read_geometry(raw)
        self._read_descriptor_layout(raw)
        self.fstype = self._name_format()

    def has_index(self) -> bool:
        """Whether directories may be hash trees."""
        return bool(self._compat & COMPAT_DIR_INDEX)

    def _check_features(self) -> None:
        names = ", ".join(name for bit, name in _REFUSED.items() if self.incompat & bit)
        if names:
            raise BadContent(f"the ext file system has the feature {names}, which unikeel does not read")
        unknown = self.incompat & ~INCOMPAT_RECOVER
        for bit in _READ:
            unknown &= ~bit
        if unknown:
            raise BadContent(f"the ext file system has unknown incompatible features 0x{unknown:x}")

    def _check_sum(self, raw: bytes) -> None:
        self.checksum_seed = 0
        if not self.checksums:
            return
        if raw[373] != 1:
            raise BadContent(f"the superblock's checksum has the unknown type {raw[373]}")
        if crc32c(0xFFFFFFFF, raw[:1020]) != int.from_bytes(raw[1020:], "little"):
            raise BadContent("the superblock's checksum is wrong")
        if self.incompat & INCOMPAT_CSUM_SEED:
            self.checksum_seed = int.from_bytes(raw[624:628], "little")
        else:
            self.checksum_seed = crc32c(0xFFFFFFFF, self._uuid)

    def _check_state(self, raw: bytes) -> None:
        (state,) = struct.unpack_from("<H", raw, 58)
        (orphan,) = struct.unpack_from("<I", raw, 232)
        if self.incompat & INCOMPAT_RECOVER:
            why = "its journal was not replayed"
        elif state & _STATE_ERROR:
            why = "errors are recorded in it"
        elif not state & _STATE_VALID:
            why = "it was not cleanly unmounted"
        elif orphan or state & _STATE_ORPHAN or self._ro_compat & RO_ORPHAN_PRESENT:
            why = "it has orphaned inodes"
        else:
            return
        raise needs_recovery(why)

    def _read_geometry(self, raw: bytes) -> None:
        self.inodes, low = struct.unpack_from("<2I", raw, 0)
        self.first_block, log_block, log_cluster = struct.unpack_from("<3I", raw, 20)
        self.blocks_per_group, clusters, self.inodes_per_group = struct.unpack_from("<3I", raw, 32)
        creator, revision = struct.unpack_from("<2I", raw, 72)
        first_inode, inode_size = struct.unpack_from("<IH", raw, 84)
        if log_block > 6:
            raise BadContent(f"the superblock's block size 2^{10 + min(log_block, 99)} is not one of ext4")
        self.block_size = 1024 << log_block
        high = struct.unpack_from("<I", raw, 336)[0] if self.incompat & INCOMPAT_64BIT else 0
        self.blocks = low | high << 32
        self.first_inode, self.inode_size = (first_inode, inode_size) if revision else (11, 128)
        self.inodes_summed = self.checksums and creator == 0
        cluster_ratio = 1
        if self._ro_compat & RO_BIGALLOC:
            if not log_block <= log_cluster <= 31:
                raise BadContent("the superblock's cluster size is smaller than a block or absurd")
            cluster_ratio = 1 << (log_cluster - log_block)
        self.cluster_size = self.block_size * cluster_ratio
        self._logical_super = 1 if self.block_size == 1024 else 0
        self._check_geometry(cluster_ratio, clusters)

    def _check_geometry(self, cluster_ratio: int, clusters: int) -> None:
        size = self.block_size
        if self.blocks * size > self._image.size:
            raise BadContent(
                f"the ext file system has {self.blocks} blocks of {size} bytes, the image only {self._image.size} bytes"
            )
        per_group = self.blocks_per_group
        if cluster_ratio > 1:
            wrong = clusters * cluster_ratio != per_group or not 0 < clusters <= 8 * size
        else:
            wrong = not 0 < per_group <= 8 * size
        wrong = wrong or self.first_block > self._logical_super or self.first_block >= self.blocks
        wrong = wrong or (cluster_ratio == 1 and self.first_block != self._logical_super)
        wrong = wrong or not 128 <= self.inode_size <= size or bool(self.inode_size & (self.inode_size - 1))
        wrong = wrong or self.first_inode < 11
        wrong = wrong or not size // max(self.inode_size, 1) <= self.inodes_per_group <= 8 * size
        if wrong:
            raise BadContent("the superblock's geometry is damaged")
        self.groups = -(-(self.blocks - self.first_block) // per_group)
        if self.inodes != self.groups * self.inodes_per_group:
            raise BadContent("the superblock's number of inodes does not fit its groups")

    def _read_descriptor_layout(self, raw: bytes) -> None:
        self.desc_size = 32
        if self.incompat & INCOMPAT_64BIT:
            (self.desc_size,) = struct.unpack_from("<H", raw, 254)
            if not 64 <= self.desc_size <= 1024 or self.desc_size & (self.desc_size - 1):
                raise BadContent(f"the superblock's descriptor size {self.desc_size} is not one of ext4")
        (self._first_meta_bg,) = struct.unpack_from("<I", raw, 260)
        self._backup_groups = struct.unpack_from("<2I", raw, 588)
        #: Zero where there is none: no journal or an external one, no multiple mount protection.
        self.journal_inode = struct.unpack_from("<I", raw, 224)[0] if self._compat & COMPAT_HAS_JOURNAL else 0
        self.mmp_block = struct.unpack_from("<Q", raw, 360)[0] if self.incompat & INCOMPAT_MMP else 0

    def _name_format(self) -> str:
        if self.incompat & ~_EXT3_INCOMPAT or self._ro_compat & ~_EXT3_RO_COMPAT:
            return "ext4"
        return "ext3" if self._compat & COMPAT_HAS_JOURNAL else "ext2"

    def inode_table(self, group: int) -> int:
        """The first block of a group's inode table, its descriptor checked; ``group`` is in range.

        :raises BadContent: the descriptor is damaged.
        """
        known = self._descriptors.get(group)
        if known is not None:
            return known
        per_block = self.block_size // self.desc_size
        block = self._descriptor_block(group // per_block)
        if not self.first_block < block < self.blocks:
            raise BadContent(f"the descriptor of group {group} lies outside the file system")
        offset = block * self.block_size + group % per_block * self.desc_size
        raw = self._image.metadata(offset, self.desc_size, f"the descriptor of group {group}")
        self._check_descriptor(group, raw)
        table = int.from_bytes(raw[8:12], "little")
        if self.desc_size >= 64:
            table |= int.from_bytes(raw[40:44], "little") << 32
        length = -(-self.inodes_per_group * self.inode_size // self.block_size)
        if not self.first_block < table <= self.blocks - length:
            raise BadContent(f"the inode table of group {group} lies outside the file system")
        self._descriptors[group] = table
        return table

    def _descriptor_block(self, number: int) -> int:
        """Where the block of descriptors ``number`` lies: after the superblock, or with ``meta_bg`` in its groups."""
        if not self.incompat & INCOMPAT_META_BG or number < self._first_meta_bg:
            return self._logical_super + 1 + number
        group = self.block_size // self.desc_size * number
        block: int = self.first_block + group * self.blocks_per_group + int(self._has_super(group))
        if self.block_size == 1024 and number == 0 and self.first_block == 0:
            block += 1
        return block

    def _has_super(self, group: int) -> bool:
        if group == 0:
            return True
        if self._compat & COMPAT_SPARSE_SUPER2:
            return group in self._backup_groups
        if group == 1 or not self._ro_compat & RO_SPARSE_SUPER:
            return True
        return any(_is_power(group, base) for base in (3, 5, 7))

    def _check_descriptor(self, group: int, raw: bytes) -> None:
        number = group.to_bytes(4, "little")
        stored = int.from_bytes(raw[30:32], "little")
        if self.checksums:
            crc = crc32c(self.checksum_seed, number + raw[:30] + b"\0\0" + raw[32:]) & 0xFFFF
        elif self._ro_compat & RO_GDT_CSUM:
            crc = crc16(0xFFFF, self._uuid + number + raw[:30] + raw[32:])
        else:
            return
        if crc != stored:
            raise BadContent(f"the checksum of the descriptor of group {group} is wrong")


def _is_power(number: int, base: int) -> bool:
    while number > 1 and number % base == 0:
        number //= base
    return number == 1
