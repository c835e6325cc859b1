"""CRC-32C and CRC-16 as ext4 and erofs use them: raw registers, no final inversion.

The standard library has neither. A loop over the bytes costs about 55 ns a byte, so long inputs are first folded:
the checksum is linear, hence a block of 256 bytes can be moved onto the next one by one fixed map of 32-bit words,
and that map is done for all words of the block at once by ``bytes.translate`` (four planes of bytes, sixteen
tables). What remains is one block for the loop. Polynomials: RFC 3720 section 12.1 (0x1EDC6F41, reflected
0x82F63B78) and CRC-16/ARC (0x8005, reflected 0xA001).
"""

from __future__ import annotations

import struct

_POLY32 = 0x82F63B78
_POLY16 = 0xA001
_BLOCK = 256
_PLANE = _BLOCK // 4
_FOLD_FROM = 2 * _BLOCK


def _table(poly: int) -> list[int]:
    """The table for one byte at a time of a reflected polynomial."""
    table = [0] * 256
    value = 1
    for power in (128, 64, 32, 16, 8, 4, 2, 1):
        value = (value >> 1) ^ poly if value & 1 else value >> 1
        for index in range(0, 256, 2 * power):
            table[index + power] = table[index] ^ value
    return table


_TABLE32 = _table(_POLY32)
_TABLE16: list[int] = []
_planes: list[list[bytes]] = []


def _bytewise(crc: int, data: bytes) -> int:
    table = _TABLE32
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc


def _fold_planes() -> list[list[bytes]]:
    """Tables that move a word by one block: ``[input plane][output plane]``, made when first needed (0.2 ms)."""
    image = _bytewise(0x80000000, bytes(_BLOCK))
    images = [0] * 32
    planes: list[list[bytes]] = []
    for bit in range(31, -1, -1):
        images[bit] = image
        image = (image >> 1) ^ _POLY32 if image & 1 else image >> 1
    for plane in range(4):
        table = [0] * 256
        for bit in range(8):
            step = 1 << bit
            mask = images[8 * plane + bit]
            for index in range(step):
                table[step + index] = table[index] ^ mask
        packed = struct.pack("<256I", *table)
        planes.append([packed[out::4] for out in range(4)])
    _planes[:] = planes  # in one step: another thread sees all of it or nothing
    return planes


def _fold(crc: int, data: bytes) -> bytes:
    """The one block whose checksum from a zero register equals that of ``data`` from ``crc``."""
    first = (int.from_bytes(data[:4], "little") ^ crc).to_bytes(4, "little")
    padded = bytes(-len(data) % _BLOCK) + first + data[4:]  # leading zeroes leave a zero register alone
    tables = _planes or _fold_planes()
    number = int.from_bytes
    planes = [padded[plane:_BLOCK:4] for plane in range(4)]
    for start in range(_BLOCK, len(padded), _BLOCK):
        block = padded[start : start + _BLOCK]
        planes = [
            (
                number(planes[0].translate(tables[0][out]), "little")
                ^ number(planes[1].translate(tables[1][out]), "little")
                ^ number(planes[2].translate(tables[2][out]), "little")
                ^ number(planes[3].translate(tables[3][out]), "little")
                ^ number(block[out::4], "little")
            ).to_bytes(_PLANE, "little")
            for out in range(4)
        ]
    folded = bytearray(_BLOCK)
    for plane in range(4):
        folded[plane::4] = planes[plane]
    return bytes(folded)


def crc32c(crc: int, data: bytes) -> int:
    """Continue the CRC-32C register ``crc`` (start with 0xFFFFFFFF) over ``data``; the register is not inverted."""
    if len(data) >= _FOLD_FROM:
        return _bytewise(0, _fold(crc, data))
    return _bytewise(crc, data)


def crc16(crc: int, data: bytes) -> int:
    """Continue the CRC-16/ARC register ``crc`` over ``data`` (group descriptors of ``uninit_bg`` start with 0xFFFF)."""
    if not _TABLE16:
        _TABLE16.extend(_table(_POLY16))
    table = _TABLE16
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc
