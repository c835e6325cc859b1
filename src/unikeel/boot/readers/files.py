"""Open files as the readers hand them out: mapped onto the image, or held in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

from unikeel.boot.readers.contract import CHUNK, Extent, FileInfo
from unikeel.boot.readers.image import Image, write_error

_ZEROES = bytes(CHUNK)


class MappedFile:
    """A file whose bytes lie plainly in the image; ``extents`` cover it from 0 to its size without gaps."""

    __slots__ = ("_image", "extents", "info")

    def __init__(self, image: Image, info: FileInfo, extents: list[Extent]) -> None:
        self._image = image
        self.info = info
        self.extents = extents

    def chunks(self) -> Iterator[bytes]:
        """The content in pieces, see :class:`~unikeel.boot.readers.contract.OpenFile`."""
        for extent in self.extents:
            done = 0
            while done < extent.length:
                length = min(CHUNK, extent.length - done)
                if extent.physical is None:
                    yield _ZEROES[:length]
                else:
                    yield self._image.data(extent.physical + done, length, "a file's data")
                done += length

    def copy_to(self, fd: int) -> None:
        """Move the content inside the kernel, see :class:`~unikeel.boot.readers.contract.OpenFile`."""
        try:
            os.ftruncate(fd, self.info.size)
        except OSError as error:
            raise write_error(error) from error
        self._image.send(fd, self.extents)


class PiecewiseFile:
    """A file whose content must be made piece by piece (compressed, or inside an inode)."""

    __slots__ = ("info",)

    def __init__(self, info: FileInfo) -> None:
        self.info = info

    def pieces(self) -> Iterator[bytes]:
        """The content in order, in pieces of any size; ``info.size`` bytes in all."""
        raise NotImplementedError

    def cost(self) -> int:
        """Bytes that have to be made for the whole content; more than ``info.size`` where pieces are parts of others."""
        return self.info.size

    def chunks(self) -> Iterator[bytes]:
        """The content in pieces, see :class:`~unikeel.boot.readers.contract.OpenFile`."""
        for piece in self.pieces():
            for start in range(0, len(piece), CHUNK):
                yield piece[start : start + CHUNK]

    def copy_to(self, fd: int) -> None:
        """Write the content, see :class:`~unikeel.boot.readers.contract.OpenFile`."""
        try:
            os.ftruncate(fd, self.info.size)
            os.lseek(fd, 0, os.SEEK_SET)
        except OSError as error:
            raise write_error(error) from error
        for piece in self.pieces():
            _write(fd, piece)


class MemoryFile(PiecewiseFile):
    """A small file whose bytes are already here."""

    __slots__ = ("_content",)

    def __init__(self, info: FileInfo, content: bytes) -> None:
        super().__init__(info)
        self._content = content

    def pieces(self) -> Iterator[bytes]:
        """The content as one piece."""
        yield self._content


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        raise write_error(error) from error


class MapBuilder:
    """Collects the pieces of a file's map in logical order and joins neighbours.

    :param size: bytes of the file; what is mapped beyond is dropped, what is not mapped is a hole.
    :param limit: number of pieces above which the file counts as too fragmented.
    """

    __slots__ = ("_limit", "_pieces", "_size", "end")

    def __init__(self, size: int, limit: int) -> None:
        self._pieces: list[tuple[int, int, int]] = []
        self._size = size
        self._limit = limit
        self.end = 0

    def add(self, logical: int, physical: int, length: int) -> bool:
        """Add a piece that begins at or after :attr:`end`; False when there are more pieces than the limit."""
        self.end = logical + length
        length = min(length, self._size - logical)
        if length <= 0:
            return True
        if self._pieces:
            before, where, count = self._pieces[-1]
            if before + count == logical and where + count == physical:
                self._pieces[-1] = (before, where, count + length)
                return True
        self._pieces.append((logical, physical, length))
        return len(self._pieces) <= self._limit

    def extents(self) -> list[Extent]:
        """The whole map, holes included."""
        result = []
        at = 0
        for logical, physical, length in self._pieces:
            if logical > at:
                result.append(Extent(at, None, logical - at))
            result.append(Extent(logical, physical, length))
            at = logical + length
        if at < self._size:
            result.append(Extent(at, None, self._size - at))
        return result
