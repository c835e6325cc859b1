"""Inodes of ext2, ext3 and ext4: fields, checksum, and data kept inside the inode.

Source: Documentation/filesystems/ext4 (inodes, inline data, extended attributes).
"""

from __future__ import annotations

import struct

from unikeel.boot.readers.contract import FileInfo
from unikeel.boot.readers.crc import crc32c
from unikeel.boot.readers.ext_super import INCOMPAT_EA_INODE, INCOMPAT_LARGEDIR, ROOT_INODE, ExtSuper
from unikeel.boot.readers.image import Image
from unikeel.errors import BadContent

FLAG_ENCRYPT = 0x800
FLAG_INDEX = 0x1000
FLAG_EXTENTS = 0x80000
FLAG_VERITY = 0x100000
FLAG_EA_INODE = 0x200000
FLAG_INLINE_DATA = 0x10000000
FLAG_CASEFOLD = 0x40000000

#: Bytes of an inode's block map, which also hold short links and the first part of inline data.
MAP_SIZE = 60

_CLASSIC = 128
_XATTR_MAGIC = 0xEA020000
_XATTR_SYSTEM = 7
_TYPE_MASK = 0xF000
_REGULAR = 0x8000
_LINK = 0xA000


class ExtInode:
    """One inode, checked as far as it stands alone."""

    __slots__ = ("_raw", "acl", "flags", "info", "map", "sectors", "seed")

    acl: int
    flags: int
    sectors: int

    def __init__(self, fs: ExtSuper, number: int, raw: bytes) -> None:
        mode, uid = struct.unpack_from("<2H", raw, 0)
        size = int.from_bytes(raw[4:8], "little")
        gid, links, self.sectors, self.flags = struct.unpack_from("<2H2I", raw, 24)
        self.map = raw[40 : 40 + MAP_SIZE]
        (self.acl,) = struct.unpack_from("<I", raw, 104)
        if mode & _TYPE_MASK == _REGULAR or fs.incompat & INCOMPAT_LARGEDIR:
            size |= int.from_bytes(raw[108:112], "little") << 32
        sectors_high, acl_high, uid_high, gid_high = struct.unpack_from("<4H", raw, 116)
        self.sectors |= sectors_high << 32
        self.acl |= acl_high << 32
        self._raw = raw
        self.seed = 0
        self.info = FileInfo(number, size, mode, uid | uid_high << 16, gid | gid_high << 16)
        self._check_extra()
        if fs.inodes_summed:
            self._check_sum(fs)
        elif fs.checksums:
            self.seed = self._seed(fs)
        self._check_use(links)

    def _check_extra(self) -> None:
        extra = self._extra()
        if extra % 4 or _CLASSIC + extra > len(self._raw):
            raise BadContent(f"inode {self.info.inode} is damaged: its extra size is {extra}")

    def _extra(self) -> int:
        return int.from_bytes(self._raw[128:130], "little") if len(self._raw) > _CLASSIC else 0

    def _seed(self, fs: ExtSuper) -> int:
        """The checksum register that every structure of this inode starts from: number and generation."""
        return crc32c(fs.checksum_seed, self.info.inode.to_bytes(4, "little") + self._raw[100:104])

    def _check_sum(self, fs: ExtSuper) -> None:
        raw = self._raw
        self.seed = self._seed(fs)
        wide = self._extra() >= 4
        stored = int.from_bytes(raw[124:126], "little")
        covered = raw[:124] + b"\0\0" + raw[126:]
        if wide:
            stored |= int.from_bytes(raw[130:132], "little") << 16
            covered = covered[:130] + b"\0\0" + covered[132:]
        found = crc32c(self.seed, covered)
        if (found if wide else found & 0xFFFF) != stored:
            raise BadContent(f"the checksum of inode {self.info.inode} is wrong")

    def _check_use(self, links: int) -> None:
        if self.info.mode == 0 or links == 0:
            raise BadContent(f"inode {self.info.inode} is damaged: it is not in use, yet a name leads to it")
        if self.flags & FLAG_EA_INODE:
            raise BadContent(f"inode {self.info.inode} is damaged: it holds an attribute, yet a name leads to it")

    def refuse_encrypted(self) -> None:
        """:raises BadContent: content or names of this inode are encrypted."""
        if self.flags & FLAG_ENCRYPT:
            raise BadContent(f"inode {self.info.inode} is encrypted (feature encrypt), which unikeel does not read")

    def is_short_link(self, fs: ExtSuper) -> bool:
        """Whether a symbolic link's target is in the block map itself."""
        if self.info.mode & _TYPE_MASK != _LINK or self.flags & FLAG_INLINE_DATA:
            return False
        if fs.incompat & INCOMPAT_EA_INODE:
            return 0 < self.info.size < MAP_SIZE
        return self.sectors == (fs.cluster_size >> 9 if self.acl else 0)

    def inline_tail(self) -> bytes:
        """The part of inline data beyond the block map: the value of the attribute ``system.data``.

        :raises BadContent: the attributes in the inode are damaged.
        """
        raw = self._raw
        start = _CLASSIC + self._extra()
        if len(raw) < start + 4 or int.from_bytes(raw[start : start + 4], "little") != _XATTR_MAGIC:
            return b""
        first = at = start + 4
        while at + 4 <= len(raw) and raw[at : at + 4] != b"\0\0\0\0":
            if at + 16 > len(raw):
                break
            name_length, index, offset, inode, size = struct.unpack_from("<BBHII", raw, at)
            if raw[at + 16 : at + 16 + name_length] == b"data" and index == _XATTR_SYSTEM:
                if inode or first + offset + size > len(raw):
                    break
                return raw[first + offset : first + offset + size]
            at += (16 + name_length + 3) & ~3
        else:
            return b""
        raise BadContent(f"inode {self.info.inode} is damaged: its attributes run over its end")

    def inline_data(self) -> bytes:
        """The whole of inline data, ``info.size`` bytes.

        :raises BadContent: the inode is larger than what it holds.
        """
        size = self.info.size
        data = self.map if size <= MAP_SIZE else self.map + self.inline_tail()
        if size > len(data):
            raise BadContent(f"inode {self.info.inode} is damaged: {size} bytes of inline data, {len(data)} found")
        return data[:size]


def read_inode(image: Image, fs: ExtSuper, number: int) -> ExtInode:
    """The inode ``number``: the root or one that an entry may name.

    :raises BadContent: it is out of range, reserved, unused, or damaged.
    """
    if not (number == ROOT_INODE or fs.first_inode <= number <= fs.inodes):
        raise BadContent(f"a directory entry names inode {number}, which is reserved or out of range")
    return _read(image, fs, number)


def read_journal_inode(image: Image, fs: ExtSuper) -> ExtInode:
    """The inode of the journal, which the superblock names.

    :raises BadContent: it is out of range, unused, or damaged.
    """
    number = fs.journal_inode
    if not ROOT_INODE < number <= fs.inodes:
        raise BadContent(f"the superblock names inode {number} as the journal, which is out of range")
    inode = _read(image, fs, number)
    if inode.info.mode & _TYPE_MASK != _REGULAR:
        raise BadContent("the journal's inode is damaged: it is not a regular file")
    return inode


def _read(image: Image, fs: ExtSuper, number: int) -> ExtInode:
    group, index = divmod(number - 1, fs.inodes_per_group)
    offset = fs.inode_table(group) * fs.block_size + index * fs.inode_size
    return ExtInode(fs, number, image.metadata(offset, fs.inode_size, f"inode {number}"))
