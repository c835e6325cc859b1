"""The index of a compressed erofs file: which compressed clusters make which bytes.

Source: the on-disk format header of erofs-utils (MIT part) and Documentation/filesystems/erofs.rst. The file is cut
into logical clusters of one block. Each has an entry: a HEAD (or PLAIN, not compressed) entry says where inside the
cluster a new extent begins and at which block its data lies; a NONHEAD entry says that the extent goes on, and the
first one after a head may tell how many blocks the data has. Full indexes have eight bytes an entry; compact ones
pack two entries into eight bytes or sixteen into thirty-two, with one block address for the pack.

The whole index is decoded in order, which is simple and what reading a whole file needs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from unikeel.boot.readers.erofs_inode import COMPRESSED_COMPACT, COMPRESSED_FULL, ErofsInode
from unikeel.boot.readers.erofs_super import ErofsSuper
from unikeel.boot.readers.image import Image
from unikeel.errors import BadContent

#: Logical clusters of one compressed file above which it is refused: 4 GiB of 4 KiB blocks.
MAX_CLUSTERS = 1 << 20

PLAIN, HEAD1, NONHEAD, HEAD2 = range(4)

_HEADER = 8
_FULL_GAP = 8
_BLOCK_COUNT = 1 << 11

_COMPACT_2B = 0x1
_EXTENTS = 0x1
_BIG_1 = 0x2
_BIG_2 = 0x4
_INLINE = 0x8
_INTERLACED = 0x10
_FRAGMENT = 0x20
_KNOWN = 0x3F
_WHOLE_FRAGMENT = 0x80

#: Bounds of one extent that the format sets: 1 MiB compressed, 12 MiB not.
_MOST_STORED = 1 << 20
_MOST_MADE = 12 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """One extent of a compressed file, in bytes.

    ``algorithm`` is the format's number, or None for stored bytes; with ``rotated`` those begin at the offset of
    ``logical`` in their block. With ``fragment`` the bytes are those of the packed inode from ``physical`` on.
    """

    logical: int
    length: int
    physical: int
    stored: int
    algorithm: int | None
    rotated: bool = False
    fragment: bool = False


class _Cluster:
    """One entry of the index: ``offset`` and ``block`` are a head's, ``count`` a first non-head's (zero elsewhere)."""

    __slots__ = ("block", "count", "kind", "offset")

    def __init__(self, kind: int, offset: int, block: int, count: int) -> None:
        self.kind = kind
        self.offset = offset
        self.block = block
        self.count = count


def pieces_of(image: Image, fs: ErofsSuper, inode: ErofsInode) -> list[Piece]:
    """All extents of a compressed inode in order, without gaps from 0 to its size.

    :raises BadContent: the index is damaged or of a kind that is not read.
    """
    return _Index(image, fs, inode).pieces() if inode.info.size else []


class _Index:
    def __init__(self, image: Image, fs: ErofsSuper, inode: ErofsInode) -> None:
        self._image = image
        self._fs = fs
        self._inode = inode
        self._size = inode.info.size
        self._count = -(-self._size >> fs.block_bits)
        if self._count > MAX_CLUSTERS:
            raise BadContent(f"inode {inode.info.inode} has more than {MAX_CLUSTERS} compressed clusters")
        self._start = (inode.tail + 7) & ~7
        self._what = f"the index of inode {inode.info.inode}"
        raw = image.metadata(self._start, _HEADER, self._what)
        self._fragment, self._advise, self._algorithms, bits = struct.unpack("<IHBB", raw)
        self._tail_stored = self._fragment >> 16
        self._tail_at = 0
        self._whole = bool(bits & _WHOLE_FRAGMENT)
        if self._whole:
            self._fragment = int.from_bytes(raw, "little") ^ (1 << 63)
            return
        if self._advise & ~_KNOWN or (inode.layout == COMPRESSED_FULL and self._advise & _EXTENTS):
            raise BadContent(f"{self._what} is of a kind (advice 0x{self._advise:x}) that unikeel does not read")
        if bits:
            raise BadContent(f"{self._what} has logical clusters of several blocks, which unikeel does not read")

    def pieces(self) -> list[Piece]:
        if self._whole:
            return [Piece(0, self._size, self._fragment, 0, None, fragment=True)]
        clusters = self._compact() if self._inode.layout == COMPRESSED_COMPACT else self._full()
        heads = [index for index, cluster in enumerate(clusters) if cluster.kind != NONHEAD]
        if not heads or heads[0] or clusters[0].offset:
            raise self._damaged("does not begin with a head")
        starts = [(index << self._fs.block_bits) + clusters[index].offset for index in heads]
        if starts[-1] >= self._size:  # mkfs.erofs marks the end of an extent in the last cluster so
            del heads[-1], starts[-1]
        ends = [*starts[1:], self._size]
        found = zip(heads, starts, ends, strict=True)
        return [self._piece(clusters, index, start, end - start, last=end == self._size) for index, start, end in found]

    def _damaged(self, what: str) -> BadContent:
        return BadContent(f"{self._what} is damaged: it {what}")

    def _piece(self, clusters: list[_Cluster], index: int, start: int, length: int, *, last: bool) -> Piece:
        head = clusters[index]
        if last and self._advise & _FRAGMENT:
            high = head.block << 32 if self._inode.layout == COMPRESSED_FULL else 0
            return Piece(start, length, self._fragment | high, 0, None, fragment=True)
        if last and self._advise & _INLINE and self._tail_stored:
            physical, stored = self._tail_at, self._tail_stored
            if physical % self._fs.block_size + stored > self._fs.block_size:
                raise self._damaged("has inline data that crosses a block")
        else:
            physical = head.block << self._fs.block_bits
            stored = self._blocks(clusters, index) << self._fs.block_bits
        if length > _MOST_MADE or stored > _MOST_STORED or physical + stored > self._fs.length:
            raise self._damaged("has an extent that is too large or lies outside the file system")
        if head.kind == PLAIN:
            if length > stored:
                raise self._damaged("has more bytes than are stored")
            return Piece(start, length, physical, stored, None, rotated=bool(self._advise & _INTERLACED))
        algorithm = self._algorithms & 15 if head.kind == HEAD1 else self._algorithms >> 4
        return Piece(start, length, physical, stored, algorithm)

    def _blocks(self, clusters: list[_Cluster], index: int) -> int:
        """How many blocks a head's data has."""
        big = self._advise & (_BIG_1 if clusters[index].kind == HEAD1 else _BIG_2)
        if not big or index + 1 >= len(clusters) or clusters[index + 1].kind != NONHEAD:
            return 1
        count = clusters[index + 1].count
        if not count:
            raise self._damaged("does not tell how many blocks an extent has")
        return count

    def _full(self) -> list[_Cluster]:
        start = self._start + _HEADER + _FULL_GAP
        raw = self._image.metadata(start, 8 * self._count, self._what)
        self._tail_at = start + 8 * self._count
        clusters = []
        for advise, offset, block in struct.iter_unpack("<2HI", raw):
            kind = advise & 3
            if kind == NONHEAD:
                count = block & 0xFFFF
                clusters.append(self._nonhead(count & ~_BLOCK_COUNT if count & _BLOCK_COUNT else 0))
            else:
                clusters.append(self._head(kind, offset, block))
        return clusters

    def _head(self, kind: int, offset: int, block: int) -> _Cluster:
        if offset >= self._fs.block_size:
            raise self._damaged("has a head outside its cluster")
        return _Cluster(kind, offset, block, 0)

    def _nonhead(self, count: int) -> _Cluster:
        if count and not self._advise & (_BIG_1 | _BIG_2):
            raise self._damaged("has a count of blocks without the feature for it")
        return _Cluster(NONHEAD, 0, 0, count)

    def _compact(self) -> list[_Cluster]:
        """Packs of two up to a multiple of 32 bytes, packs of sixteen as long as they last, packs of two."""
        if self._fs.block_bits > 14 or bool(self._advise & _BIG_1) != bool(self._advise & _BIG_2):
            raise self._damaged("has compact entries that cannot be")
        start = self._start + _HEADER
        first = ((32 - start % 32) // 4) & 7
        dense = 0
        if self._advise & _COMPACT_2B and first < self._count:
            dense = (self._count - first) // 16 * 16
            if dense and self._fs.block_bits > 12:
                raise self._damaged("has dense entries that cannot be")
        first = min(first, (self._count + 1) // 2 * 2)  # packs are whole, even where their last entry is not used
        rest = max(self._count - first - dense, 0)
        raw = self._image.metadata(start, 4 * first + 2 * dense + -(-rest // 2) * 8, self._what)
        clusters = self._packs(raw[: 4 * first], 2)
        clusters += self._packs(raw[4 * first : 4 * first + 2 * dense], 16)
        clusters += self._packs(raw[4 * first + 2 * dense :], 2)
        self._tail_at = start + len(raw)
        return clusters[: self._count]

    def _packs(self, raw: bytes, entries: int) -> list[_Cluster]:
        size = 8 if entries == 2 else 32
        width = 16 if entries == 2 else 14
        low = max(self._fs.block_bits, 12)
        clusters = []
        for at in range(0, len(raw), size):
            pack = raw[at : at + size]
            bits = int.from_bytes(pack[:-4], "little")
            block = int.from_bytes(pack[-4:], "little")
            words = [bits >> width * index for index in range(entries)]
            decoded = [(word >> low & 3, word & ((1 << low) - 1)) for word in words]
            clusters += self._pack(decoded, block)
        return clusters

    def _pack(self, decoded: list[tuple[int, int]], block: int) -> list[_Cluster]:
        """The entries of one pack; ``block`` is where the data of its first head lies, or before it (see below)."""
        big = bool(self._advise & _BIG_1)
        clusters = []
        for index, (kind, low) in enumerate(decoded):
            if kind == NONHEAD:
                count = low & ~_BLOCK_COUNT if low & _BLOCK_COUNT else 0
                clusters.append(self._nonhead(count))
                block += count
                continue
            if not big:
                block += 1  # without big clusters the address is that of the block before the first
            clusters.append(self._head(kind, low, block & 0xFFFFFFFF))
            counted = index + 1 < len(decoded) and decoded[index + 1][0] == NONHEAD
            if big and not counted:
                block += 1  # else the count that follows moves on
        return clusters
