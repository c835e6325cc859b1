"""The superblock of erofs: what is read, what is refused, and by which name.

Source: the on-disk format header of erofs-utils (MIT part), Documentation/filesystems/erofs.rst. Little-endian.
"""

from __future__ import annotations

import struct

from unikeel.boot.readers.crc import crc32c
from unikeel.boot.readers.image import Image
from unikeel.errors import BadContent

SUPER_OFFSET = 1024
INODE_SLOT = 32

_SUPER_SIZE = 128
_COMPAT_CHECKSUM = 0x1

_ZERO_PADDING = 0x1
_COMPRESSION_CONFIGS = 0x2
_DEVICE_TABLE = 0x8
_XATTR_PREFIXES = 0x40
_REFUSED = {0x80: "48bit", 0x100: "metabox"}
_KNOWN = _ZERO_PADDING | _COMPRESSION_CONFIGS | 0x4 | _DEVICE_TABLE | 0x10 | 0x20 | _XATTR_PREFIXES
_LZ4 = 0


class ErofsSuper:
    """The checked superblock of an image; sizes in bytes unless a name says blocks.

    :raises BadContent: it is damaged, or has a feature that unikeel does not read.
    """

    __slots__ = (
        "algorithms",
        "block_bits",
        "block_size",
        "blocks",
        "length",
        "metadata",
        "packed",
        "root",
        "zero_padding",
    )

    block_bits: int
    blocks: int
    packed: int
    root: int

    def __init__(self, image: Image) -> None:
        raw = image.metadata(SUPER_OFFSET, _SUPER_SIZE, "the superblock")
        stored, compat, self.block_bits = struct.unpack_from("<2IB", raw, 4)
        (self.root,) = struct.unpack_from("<H", raw, 14)
        self.blocks, meta = struct.unpack_from("<2I", raw, 36)
        incompat, algorithms, devices = struct.unpack_from("<I2H", raw, 80)
        (self.packed,) = struct.unpack_from("<Q", raw, 96)
        if not 9 <= self.block_bits <= 16 or raw[90]:
            raise BadContent("the erofs superblock's block sizes are damaged")
        self.block_size = 1 << self.block_bits
        self._check_features(incompat, devices if incompat & _DEVICE_TABLE else 0)
        if compat & _COMPAT_CHECKSUM:
            self._check_sum(image, stored)
        self.length = self.blocks << self.block_bits
        self.metadata: int = meta << self.block_bits
        if self.length > image.size:
            raise BadContent(
                f"the erofs file system has {self.blocks} blocks of {self.block_size} bytes,"
                f" the image only {image.size} bytes"
            )
        self.zero_padding = bool(incompat & _ZERO_PADDING)
        self.algorithms = algorithms if incompat & _COMPRESSION_CONFIGS else 1 << _LZ4

    def _check_features(self, incompat: int, devices: int) -> None:
        names = ", ".join(name for bit, name in _REFUSED.items() if incompat & bit)
        if names:
            raise BadContent(f"the erofs file system has the feature {names}, which unikeel does not read")
        if incompat & ~_KNOWN:
            raise BadContent(f"the erofs file system has unknown incompatible features 0x{incompat & ~_KNOWN:x}")
        if devices:
            raise BadContent(f"the erofs file system is spread over {devices} more devices (feature device_table)")

    def _check_sum(self, image: Image, stored: int) -> None:
        """The checksum covers the rest of the superblock's block, itself as zero."""
        length = self.block_size - SUPER_OFFSET if self.block_size > SUPER_OFFSET else self.block_size
        raw = image.metadata(SUPER_OFFSET, length, "the superblock")
        if crc32c(0xFFFFFFFF, raw[:4] + bytes(4) + raw[8:]) != stored:
            raise BadContent("the erofs superblock's checksum is wrong")

    def inode_offset(self, nid: int) -> int:
        """Where the inode ``nid`` begins in the image.

        :raises BadContent: outside the file system.
        """
        offset = self.metadata + nid * INODE_SLOT
        if offset + INODE_SLOT > self.length:
            raise BadContent(f"inode {nid} lies outside the erofs file system")
        return offset
