"""Files that a tar archive stores without their holes: GNU's old form, and the three that it has in PAX records.

Formats: "Storing Sparse Files" of the GNU tar manual. Doubts are settled as in Go's ``archive/tar``. A file's size counts
against an image's limits as if it were stored whole, since the image's file system has a block for every block of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from unikeel.images.tarfields import Malformed, natural, number, text
from unikeel.values import NamedTuple

_BLOCK = 512
_GNU = b"ustar "
_PREFIX = b"GNU.sparse."
_OFFSET, _COUNT, _MAP = _PREFIX + b"offset", _PREFIX + b"numbytes", _PREFIX + b"map"
#: More pieces than this no file has that anybody boots or serves.
_MAX_PIECES = 1 << 16
#: The longest line of a map, and the longest map that lies in the data, in bytes.
_MAX_LINE = 20
_MAX_MAP = 2 * _MAX_LINE * _MAX_PIECES
_HEADER_PIECES, _EXTENSION_PIECES, _PIECE = 4, 21, 24

Read = Callable[[int, int], bytes]


class Sparse(NamedTuple):
    """A file with holes: its ``size``, and its ``pieces`` as (offset in the file, length); their bytes follow each other in the
    archive from ``start`` on."""

    size: int
    start: int
    pieces: tuple[tuple[int, int], ...]


def joined(records: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """PAX records, the repeated ones of format 0.0 joined to the one map of format 0.1."""
    found: list[bytes] = []
    for key, value in records:
        if key in {_OFFSET, _COUNT}:
            if (key == _COUNT) != (len(found) % 2 == 1) or b"," in value:
                raise Malformed("a sparse file whose map is out of order")
            found.append(value)
        else:
            yield key, value
    if found:
        yield _MAP, b",".join(found)


def is_sparse(header: bytes, pax: dict[bytes, bytes]) -> bool:
    """Whether an entry is stored without its holes. :raises Malformed: in a way that nobody knows."""
    if header[156:157] == b"S":
        if header[257:263] != _GNU:
            raise Malformed("a sparse file of GNU's form in an archive of another")
        return True
    version = (pax.get(_PREFIX + b"major", b""), pax.get(_PREFIX + b"minor", b""))
    if version in {(b"1", b"0"), (b"0", b"0"), (b"0", b"1")}:
        return True
    if version != (b"", b""):
        raise Malformed(f"a sparse file of the unknown version {version[0][:9]!r}, {version[1][:9]!r}")
    return _MAP in pax


def read_sparse(header: bytes, pax: dict[bytes, bytes], content: int, stored: int, read: Read) -> tuple[int, Sparse]:
    """Where the data of an entry really begins (the next header follows ``stored`` bytes after), and what it means.

    :param content: what follows the header. :param read: bytes of the archive, by offset and number.
    :raises Malformed: the map cannot be.
    """
    start = content
    if header[156:157] == b"S":
        numbers, size, content = _old(header, content, read)
        start = content
    else:
        written = pax.get(_PREFIX + b"realsize") or pax.get(_PREFIX + b"size") or b""
        size = natural(written, "a sparse file's size")
        if pax.get(_PREFIX + b"major") == b"1":
            numbers, start = _map_in_data(content, stored, read)
        else:
            numbers = [natural(word, "a sparse file's map") for word in pax.get(_MAP, b"").split(b",") if word]
    return content, _checked(Sparse(size, start, _pairs(numbers)), stored - (start - content))


def _old(header: bytes, content: int, read: Read) -> tuple[list[int], int, int]:
    """The map in the header and in the blocks behind it; also the file's size, and where its data begins."""
    numbers = _fields(header[386:482], _HEADER_PIECES)
    more = header[482]
    while more:
        block = read(content, _BLOCK)
        more_numbers = _fields(block, _EXTENSION_PIECES)
        numbers += more_numbers
        if not more_numbers or len(numbers) > 2 * _MAX_PIECES:
            raise Malformed(f"a sparse file whose map goes on without pieces, or has more than {_MAX_PIECES}")
        more = block[504]
        content += _BLOCK
    return numbers, number(header[483:495]), content


def _fields(block: bytes, most: int) -> list[int]:
    found: list[int] = []
    for at in range(0, most * _PIECE, _PIECE):
        if not text(block[at : at + 1]):
            break
        found += (number(block[at : at + 12]), number(block[at + 12 : at + 24]))
    return found


def _map_in_data(content: int, stored: int, read: Read) -> tuple[list[int], int]:
    """The map of format 1.0, lines of digits before the data, padded to a block; also where the data begins."""
    lines: list[bytes] = []
    rest, at, wanted = b"", content, 1
    while len(lines) < wanted:
        if at - content + _BLOCK > min(stored, _MAX_MAP):
            raise Malformed("a sparse file whose map does not end")
        *whole, rest = (rest + read(at, _BLOCK)).split(b"\n")
        at += _BLOCK
        lines += whole
        if len(rest) > _MAX_LINE and len(lines) < wanted:
            raise Malformed("a sparse file's map without line ends")
        if lines and wanted == 1:
            wanted += 2 * natural(lines[0], "the number of a sparse file's pieces")
    return [natural(line, "a sparse file's map") for line in lines[1:wanted]], at


def _pairs(numbers: list[int]) -> tuple[tuple[int, int], ...]:
    if len(numbers) % 2 or len(numbers) > 2 * _MAX_PIECES:
        raise Malformed(f"a sparse file's map of {len(numbers)} numbers")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _checked(sparse: Sparse, data: int) -> Sparse:
    """Pieces in order, inside of the file, and as long together as what is stored."""
    end = total = 0
    for offset, length in sparse.pieces:
        if length < 0 or offset < end or offset + length > sparse.size:
            raise Malformed("a sparse file whose pieces overlap or lie outside of it")
        end, total = offset + length, total + length
    if total != data or sparse.size < 0:
        raise Malformed(f"a sparse file of {total} bytes of data, with {data} stored")
    return sparse
