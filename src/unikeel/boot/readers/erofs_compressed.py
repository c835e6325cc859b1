"""Content of compressed erofs files: stored, lz4, lzma, deflate, and fragments of the packed inode."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator

from unikeel.boot.readers.contract import OpenFile
from unikeel.boot.readers.erofs_index import Piece, pieces_of
from unikeel.boot.readers.erofs_inode import ErofsInode
from unikeel.boot.readers.erofs_super import ErofsSuper
from unikeel.boot.readers.files import PiecewiseFile
from unikeel.boot.readers.image import Image
from unikeel.boot.readers.lz4 import decompress as lz4
from unikeel.errors import BadContent

_LZ4, _LZMA, _DEFLATE, _ZSTD = range(4)
_NAMES = {_LZ4: "lz4", _LZMA: "lzma", _DEFLATE: "deflate", _ZSTD: "zstd"}
_READ = frozenset({_LZ4, _LZMA, _DEFLATE})
_LEAST_DICTIONARY = 4096
_PROPERTIES = 225
#: No compressor adds more to its input than an eighth and this many bytes; what lies behind belongs to a longer extent that shares the
#: data, and is not read: the work for a file then follows its size, whatever its index says.
_SLACK = 1 << 14


def compressed_file(image: Image, fs: ErofsSuper, inode: ErofsInode) -> OpenFile:
    """A compressed regular file, directory or link, ready to be read.

    :raises BadContent: its index is damaged, or its compression is one that is not read.
    """
    pieces = pieces_of(image, fs, inode)
    packed: list[Piece] = []
    if any(piece.fragment for piece in pieces):
        packed = _packed_pieces(image, fs, inode)
    for piece in (*pieces, *packed):
        _check_algorithm(fs, inode, piece)
    return _Compressed(image, fs, inode, pieces, packed)


def _packed_pieces(image: Image, fs: ErofsSuper, inode: ErofsInode) -> list[Piece]:
    """The extents of the packed inode, which holds the fragments of others."""
    if not fs.packed or fs.packed == inode.info.inode:
        raise BadContent(f"inode {inode.info.inode} is damaged: it has a fragment where there can be none")
    packed = ErofsInode(image, fs, fs.packed)
    if not packed.compressed():
        found = packed.plain_map(image, fs)
        return [Piece(e.logical, e.length, -1 if e.physical is None else e.physical, e.length, None) for e in found]
    pieces = pieces_of(image, fs, packed)
    if any(piece.fragment for piece in pieces):
        raise BadContent(f"inode {fs.packed} is damaged: the packed inode has fragments of its own")
    return pieces


def _check_algorithm(fs: ErofsSuper, inode: ErofsInode, piece: Piece) -> None:
    if piece.algorithm is None:
        return
    name = _NAMES.get(piece.algorithm, f"algorithm {piece.algorithm}")
    if piece.algorithm not in _READ:
        raise BadContent(
            f"inode {inode.info.inode} is compressed with {name}, which unikeel does not read",
            "build the image without -z, or with lz4, lzma or deflate",
        )
    if not fs.algorithms >> piece.algorithm & 1:
        raise BadContent(f"inode {inode.info.inode} is damaged: {name} is not announced in the superblock")


class _Compressed(PiecewiseFile):
    """See :func:`compressed_file`."""

    __slots__ = ("_fs", "_image", "_packed", "_pieces")

    def __init__(
        self, image: Image, fs: ErofsSuper, inode: ErofsInode, pieces: list[Piece], packed: list[Piece]
    ) -> None:
        super().__init__(inode.info)
        self._image = image
        self._fs = fs
        self._pieces = pieces
        self._packed = packed

    def pieces(self) -> Iterator[bytes]:
        """The content, one extent after the other."""
        for piece in self._pieces:
            if piece.fragment:
                yield from self._fragment(piece)
            else:
                yield self._made(piece)

    def cost(self) -> int:
        """The file's own bytes, and all of every extent of the packed inode that a fragment touches."""
        total = self.info.size
        for wanted in self._pieces:
            if wanted.fragment:
                end = wanted.physical + wanted.length
                touched = (p for p in self._packed if p.logical < end and wanted.physical < p.logical + p.length)
                total += sum(piece.length for piece in touched if piece.algorithm is not None)
        return total

    def _fragment(self, wanted: Piece) -> Iterator[bytes]:
        """The bytes of the packed inode from ``wanted.physical`` on."""
        at, end = wanted.physical, wanted.physical + wanted.length
        for piece in self._packed:
            if piece.logical <= at < piece.logical + piece.length and at < end:
                stop = min(end, piece.logical + piece.length)
                for start in range(at, stop, _SLICE) if piece.algorithm is None else (at,):
                    until = min(stop, start + _SLICE) if piece.algorithm is None else stop
                    yield self._part(piece, start - piece.logical, until - piece.logical)
                at = stop
        if at < end:
            raise BadContent(f"inode {self.info.inode} is damaged: its fragment lies outside the packed inode")

    def _part(self, piece: Piece, start: int, end: int) -> bytes:
        if piece.algorithm is None and not piece.rotated:
            if piece.physical < 0:
                return bytes(end - start)
            return self._image.data(piece.physical + start, end - start, "a file's data")
        return self._made(piece)[start:end]

    def _made(self, piece: Piece) -> bytes:
        """The bytes of an extent that is no fragment."""
        if piece.algorithm is None:
            return self._stored(piece, self._image.data(piece.physical, piece.stored, "a file's data"))
        most = self._fs.block_size + piece.length + piece.length // 8 + _SLACK
        source = self._image.data(piece.physical, min(piece.stored, most), "a file's compressed data")
        if piece.algorithm != _LZ4 or self._fs.zero_padding:
            source = self._unpadded(source)
        made = _DECODERS[piece.algorithm](source, piece.length)
        if len(made) != piece.length:
            raise BadContent(
                f"inode {self.info.inode} is damaged: {piece.length} compressed bytes give {len(made)} bytes"
            )
        return made

    def _unpadded(self, source: bytes) -> bytes:
        """The data is pushed to the end of its blocks, so that the first one may begin with zeroes."""
        first = source[: self._fs.block_size].lstrip(b"\0")
        if not first:
            raise BadContent(
                f"inode {self.info.inode} is damaged: a block of zeroes where compressed data should begin"
            )
        return first + source[self._fs.block_size :]

    def _stored(self, piece: Piece, source: bytes) -> bytes:
        if not piece.rotated:
            return source[: piece.length]
        size = self._fs.block_size
        skip = piece.logical % size
        if piece.length > size:
            raise BadContent(f"inode {self.info.inode} is damaged: an interlaced extent of {piece.length} bytes")
        right = source[skip : skip + piece.length]
        made = right + source[: piece.length - min(size - skip, piece.length)]
        if len(made) != piece.length:
            raise BadContent(f"inode {self.info.inode} is damaged: an interlaced extent is cut short")
        return made


_SLICE = 1 << 20


def _lzma(source: bytes, length: int) -> bytes:
    """MicroLZMA: LZMA1 without header or end mark, whose first byte holds the inverted properties instead of zero."""
    properties = ~source[0] & 0xFF if source else _PROPERTIES
    if properties >= _PROPERTIES:
        raise BadContent(f"lzma data is damaged: its properties are {properties}")
    options = {
        "id": lzma.FILTER_LZMA1,
        "lc": properties % 9,
        "lp": properties // 9 % 5,
        "pb": properties // 45,
        "dict_size": max(length, _LEAST_DICTIONARY),
    }
    try:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[options])
        return decoder.decompress(b"\0" + source[1:], length)
    except (lzma.LZMAError, EOFError) as error:
        raise BadContent(f"lzma data is damaged: {error}") from error


def _deflate(source: bytes, length: int) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(source, length)
    except zlib.error as error:
        raise BadContent(f"deflate data is damaged: {error}") from error


_DECODERS = {_LZ4: lz4, _LZMA: _lzma, _DEFLATE: _deflate}
