"""Inodes of erofs and the maps of files that are not compressed: flat, with an inline tail, or in chunks."""

from __future__ import annotations

import stat
import struct

from unikeel.boot.readers.contract import Extent, FileInfo
from unikeel.boot.readers.erofs_super import ErofsSuper
from unikeel.boot.readers.files import MapBuilder
from unikeel.boot.readers.image import Image
from unikeel.errors import BadContent

FLAT_PLAIN = 0
COMPRESSED_FULL = 1
FLAT_INLINE = 2
COMPRESSED_COMPACT = 3
CHUNKED = 4

#: Pieces of one file above which it is refused.
MAX_PIECES = 1 << 18

_COMPACT_SIZE = 32
_EXTENDED_SIZE = 64
_XATTR_HEADER = 12
_NO_BLOCK = 0xFFFFFFFF
_CHUNK_BITS = 0x1F
_CHUNK_INDEXES = 0x20
_TABLE_PIECE = 1 << 16


class ErofsInode:
    """One inode, checked as far as it stands alone.

    :raises BadContent: it is outside the file system, damaged, or of a format that is not read.
    """

    __slots__ = ("_high", "_union", "info", "layout", "tail")

    def __init__(self, image: Image, fs: ErofsSuper, nid: int) -> None:
        offset = fs.inode_offset(nid)
        what = f"inode {nid}"
        raw = image.metadata(offset, _COMPACT_SIZE, what)
        form, attributes, mode, number = struct.unpack_from("<4H", raw, 0)
        if form & ~0xF:
            raise BadContent(f"{what} has the unknown format bits 0x{form & ~0xF:x}")
        self.layout = form >> 1
        if self.layout > CHUNKED:
            raise BadContent(f"{what} has the unknown data layout {self.layout}")
        if form & 1:
            raw = image.metadata(offset, _EXTENDED_SIZE, what)
            size, self._union, _, uid, gid = struct.unpack_from("<Q4I", raw, 8)
            length, self._high = _EXTENDED_SIZE, number
        else:
            size, _, self._union, _, uid, gid = struct.unpack_from("<4I2H", raw, 8)
            length, self._high = _COMPACT_SIZE, 0
        if stat.S_IFMT(mode) not in _TYPES:
            raise BadContent(f"{what} is damaged: its mode is 0{mode:o}")
        if size >= 1 << 63:
            raise BadContent(f"{what} is damaged: its size is {size}")
        self.info = FileInfo(nid, size, mode, uid, gid)
        #: Where the inode with its attributes ends: the inline tail, the chunk table or the index follows.
        self.tail = offset + length + (_XATTR_HEADER + 4 * (attributes - 1) if attributes else 0)

    def compressed(self) -> bool:
        """Whether the data is compressed."""
        return self.layout in {COMPRESSED_FULL, COMPRESSED_COMPACT}

    def plain_map(self, image: Image, fs: ErofsSuper) -> list[Extent]:
        """The map of an inode that is not compressed, from 0 to its size.

        :raises BadContent: it is damaged or too fragmented.
        """
        builder = MapBuilder(self.info.size, MAX_PIECES)
        if self.info.size:
            if self.layout == CHUNKED:
                self._chunks(image, fs, builder)
            else:
                self._flat(fs, builder)
        return builder.extents()

    def _damaged(self, what: str) -> BadContent:
        return BadContent(f"inode {self.info.inode} is damaged: {what}")

    def _flat(self, fs: ErofsSuper, builder: MapBuilder) -> None:
        size, start = self.info.size, self._union | self._high << 32
        whole = size
        if self.layout == FLAT_INLINE:
            whole = (size - 1) >> fs.block_bits << fs.block_bits
        elif self._union == _NO_BLOCK and self._high in {0, 0xFFFF}:
            return
        if whole:
            begin = start << fs.block_bits
            if begin + whole > fs.length:
                raise self._damaged("its data lies outside the file system")
            builder.add(0, begin, whole)
        if whole < size:
            if self.tail % fs.block_size + size - whole > fs.block_size:
                raise self._damaged("its inline data crosses a block")
            builder.add(whole, self.tail, size - whole)

    def _chunks(self, image: Image, fs: ErofsSuper, builder: MapBuilder) -> None:
        form = self._union & 0xFFFF
        if form & ~(_CHUNK_BITS | _CHUNK_INDEXES):
            raise self._damaged(f"its chunk format 0x{form:x} is unknown (48bit?)")
        bits = fs.block_bits + (form & _CHUNK_BITS)
        unit = 8 if form & _CHUNK_INDEXES else 4
        table = (self.tail + unit - 1) // unit * unit
        count = -(-self.info.size >> bits)
        what = f"the chunk table of inode {self.info.inode}"
        for first in range(0, count, _TABLE_PIECE):
            some = min(_TABLE_PIECE, count - first)
            raw = image.metadata(table + first * unit, some * unit, what)
            blocks = struct.unpack(f"<{some * unit // 4}I", raw)[unit // 4 - 1 :: unit // 4]
            for index, block in enumerate(blocks, first):
                if block != _NO_BLOCK:
                    self._chunk(fs, builder, index << bits, block << fs.block_bits, 1 << bits)

    def _chunk(self, fs: ErofsSuper, builder: MapBuilder, logical: int, physical: int, length: int) -> None:
        length = min(length, self.info.size - logical)
        if physical + length > fs.length:
            raise self._damaged("a chunk lies outside the file system")
        if not builder.add(logical, physical, length):
            raise BadContent(f"inode {self.info.inode} is in more than {MAX_PIECES} pieces")


_TYPES = frozenset({stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK})
