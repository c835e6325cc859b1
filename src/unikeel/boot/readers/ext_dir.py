"""Directories of ext2, ext3 and ext4: blocks of entries, hash trees read as what they also are, inline directories.

Source: Documentation/filesystems/ext4 (directory entries, hash tree directories, inline directories). A hash tree's
inner blocks look like blocks of one unused entry, so reading all blocks in order finds every name; the hashes are
not needed. Every block's checksum is verified where the file system has them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from unikeel.boot.readers.crc import crc32c
from unikeel.boot.readers.ext_inode import FLAG_CASEFOLD, FLAG_INDEX, FLAG_INLINE_DATA, MAP_SIZE, ExtInode
from unikeel.boot.readers.ext_map import file_map
from unikeel.boot.readers.ext_super import ExtSuper
from unikeel.boot.readers.image import Image
from unikeel.errors import BadContent

#: The largest directory that is read, in bytes: some half a million names.
MAX_DIRECTORY = 32 << 20

_HEAD = 8
_TAIL = 12
_TAIL_MARK = b"\0\0\0\0\x0c\0\0\xde"  # an unused entry of twelve bytes and type 0xDE, then the checksum
_ROOT_ENTRIES = 32
_NODE_ENTRIES = 8
_PARENT = 4
_WIDE_BLOCK = 65536


def find(image: Image, fs: ExtSuper, inode: ExtInode, name: bytes) -> int | None:
    """The inode number of the entry ``name``, or None.

    :raises BadContent: the directory is damaged, encrypted, case-folded or larger than :data:`MAX_DIRECTORY`.
    """
    for block in _blocks(image, fs, inode):
        if name in block:  # most blocks can be passed over at the speed of a substring search
            for number, found in _entries(fs, inode, block):
                if found == name:
                    return number
    return None


def entries(image: Image, fs: ExtSuper, inode: ExtInode) -> Iterator[tuple[bytes, int]]:
    """All names with their inode numbers, without ``.`` and ``..``.

    :raises BadContent: as :func:`find`, or a name that no path can hold.
    """
    for block in _blocks(image, fs, inode):
        for number, name in _entries(fs, inode, block):
            if name in {b".", b".."}:
                continue
            if not name or b"/" in name or b"\0" in name:
                raise _damaged(inode, "has an impossible name")
            yield name, number


def _damaged(inode: ExtInode, what: str) -> BadContent:
    return BadContent(f"the directory of inode {inode.info.inode} is damaged: it {what}")


def _blocks(image: Image, fs: ExtSuper, inode: ExtInode) -> Iterator[bytes]:
    """The regions that entries fill, checksums verified and cut off."""
    inode.refuse_encrypted()
    if inode.flags & FLAG_CASEFOLD:
        raise BadContent(
            f"the directory of inode {inode.info.inode} ignores case (feature casefold), which unikeel does not read"
        )
    if inode.flags & FLAG_INLINE_DATA:
        yield inode.map[_PARENT:MAP_SIZE]
        yield inode.inline_tail()
        return
    size, block_size = inode.info.size, fs.block_size
    if size > MAX_DIRECTORY:
        raise BadContent(f"the directory of inode {inode.info.inode} has {size} bytes, more than unikeel reads")
    if size == 0 or size % block_size:
        raise _damaged(inode, f"has {size} bytes, which is no number of blocks")
    for extent in file_map(image, fs, inode):
        if extent.physical is None:
            raise _damaged(inode, "has a hole")
        for done in range(0, extent.length, block_size):
            block = image.metadata(extent.physical + done, block_size, f"the directory of inode {inode.info.inode}")
            yield _verified(fs, inode, block, first=extent.logical + done == 0) if fs.checksums else block


def _verified(fs: ExtSuper, inode: ExtInode, block: bytes, *, first: bool) -> bytes:
    """The block without its checksum, verified; an inner block of a hash tree has no entries but the first two."""
    if _is_inner(fs, inode, block, first=first):
        found, stored = _inner_sum(inode, block, first=first)
        kept = block
    else:
        kept = block[: len(block) - _TAIL]
        if block[len(kept) : -4] != _TAIL_MARK:
            raise _damaged(inode, "has a block without a checksum")
        found, stored = crc32c(inode.seed, kept), int.from_bytes(block[-4:], "little")
    if found != stored:
        raise BadContent(f"the checksum of a block of the directory of inode {inode.info.inode} is wrong")
    return kept


def _is_inner(fs: ExtSuper, inode: ExtInode, block: bytes, *, first: bool) -> bool:
    """Whether a block belongs to the tree itself. Its end cannot tell: the kernel leaves an old leaf's mark there."""
    if not (inode.flags & FLAG_INDEX and fs.has_index()):
        return False
    return first or (block[:4] == b"\0\0\0\0" and _record_length(block, 4) == len(block))


def _inner_sum(inode: ExtInode, block: bytes, *, first: bool) -> tuple[int, int]:
    """The computed and the stored checksum of an inner block: of its used entries and half the tail after all."""
    start = _ROOT_ENTRIES if first else _NODE_ENTRIES
    limit, count = struct.unpack_from("<2H", block, start)
    tail = start + 8 * limit
    if count > limit or tail + 8 > len(block):
        raise _damaged(inode, "has a damaged hash tree")
    covered = block[: start + 8 * count] + block[tail : tail + 4] + bytes(4)
    return crc32c(inode.seed, covered), int.from_bytes(block[tail + 4 : tail + 8], "little")


def _record_length(block: bytes, offset: int) -> int:
    (length,) = struct.unpack_from("<H", block, offset)
    if len(block) < _WIDE_BLOCK - _TAIL:
        return int(length)
    if length in {0, 65535}:  # blocks of 64 KiB: lengths are multiples of four, bits 16 and 17 take the free places
        return _WIDE_BLOCK
    return int((length & 65532) | (length & 3) << 16)


def _entries(fs: ExtSuper, inode: ExtInode, block: bytes) -> Iterator[tuple[int, bytes]]:
    at, size = 0, len(block)
    wide = size >= _WIDE_BLOCK - _TAIL
    unpack = struct.Struct("<IHB").unpack_from
    while at < size:
        if at + _HEAD > size:
            raise _damaged(inode, "has an entry that runs over its block")
        number, length, name_length = unpack(block, at)
        if wide:
            length = _record_length(block, at + 4)
        if length % 4 or length < ((_HEAD + name_length + 3) & ~3) or length < 12 or at + length > size:
            raise _damaged(inode, f"has an entry of length {length}")
        if number:
            if number > fs.inodes:
                raise _damaged(inode, f"names inode {number}")
            yield number, block[at + _HEAD : at + _HEAD + name_length]
        at += length
