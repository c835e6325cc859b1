"""Decompression of one LZ4 block (the block format of lz4's documentation, without a frame).

A sequence costs about a microsecond, so this makes some 20 to 40 MB/s of a kernel; long matches and literals are
copied in one piece.
"""

from __future__ import annotations

from unikeel.errors import BadContent

_MIN_MATCH = 4
_MORE = 15


def decompress(source: bytes, length: int) -> bytes:
    """The first ``length`` bytes that ``source`` decompresses to.

    :raises BadContent: the block is damaged or ends before.
    """
    try:
        out = _decompress(source, length)
    except IndexError:
        raise BadContent("lz4 data is damaged: it ends inside a sequence") from None
    return bytes(out)


def _decompress(source: bytes, length: int) -> bytearray:
    out = bytearray()
    at, end = 0, len(source)
    while True:
        token = source[at]
        at += 1
        count = token >> 4
        if count == _MORE:
            count, at = _extended(source, at, count)
        if count:
            literals = source[at : at + count]
            out += literals
            at += count
        if len(out) >= length:
            del out[length:]
            return out
        if at + 2 > end:
            raise BadContent(f"lz4 data is damaged: it ends after {len(out)} of {length} bytes")
        offset = source[at] | source[at + 1] << 8
        at += 2
        count = token & _MORE
        if count == _MORE:
            count, at = _extended(source, at, count)
        _match(out, offset, min(count + _MIN_MATCH, length - len(out)))
        if len(out) >= length:
            return out


def _extended(source: bytes, at: int, count: int) -> tuple[int, int]:
    """A length of fifteen or more: bytes are added up to the first that is not 255."""
    while True:
        more = source[at]
        at += 1
        count += more
        if more != 255:
            return count, at


def _match(out: bytearray, offset: int, count: int) -> None:
    """Repeat ``count`` bytes from ``offset`` before the end; the match may overlap what it makes."""
    start = len(out) - offset
    if offset == 0 or start < 0:
        raise BadContent(f"lz4 data is damaged: a match {offset} bytes before offset {len(out)}")
    if count <= offset:
        out += out[start : start + count]
    else:
        pattern = bytes(out[start:])
        out += (pattern * (count // offset + 1))[:count]
