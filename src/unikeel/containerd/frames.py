"""What both ends of our short way over HTTP/2 say alike: frames and header fields, to the bit.

Sources: RFC 9113 (HTTP/2), RFC 7541 (its headers), and gRPC's "gRPC over HTTP2".
"""

from __future__ import annotations

import struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Kinds of frames.
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
#: Flags of frames.
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 1, 1, 4, 8, 32
#: A frame's head: length (the upper 16 bits, then 8), kind, flags, stream.
HEAD: Final = struct.Struct(">HBBBI")
SETTING: Final = struct.Struct(">HI")
#: Before each message of gRPC: whether it is compressed, its length.
PREFIX: Final = struct.Struct(">BI")
#: Settings.
TABLE_SIZE, PUSH, STREAMS, INITIAL_WINDOW = 1, 2, 3, 4
FIRST_WINDOW: Final = 65535
LARGE_WINDOW: Final = (1 << 31) - 1
#: What a peer has used of a large window until it is given back.
TOP_UP: Final = 1 << 30
#: What is sent in one frame, by default (RFC 9113, 4.2), and what is taken.
FRAME_SIZE: Final = 16384
#: How many different blocks of headers are remembered.
BLOCKS: Final = 256


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """A whole frame."""
    return HEAD.pack(len(body) >> 8, len(body) & 255, kind, flags, stream) + body


def literal(name: bytes, value: bytes) -> bytes:
    """A header field that nobody puts in a table (RFC 7541, 6.2.2)."""
    return b"\x00" + _text(name) + _text(value)


def _text(data: bytes) -> bytes:
    size = len(data)
    if size < 127:
        return bytes((size,)) + data
    size -= 127
    head = bytearray((127,))
    while size >= 128:
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    return bytes(head) + data


def unpadded(body: bytes, flags: int) -> bytes:
    """The body of a frame of data or headers without its padding. :raise ValueError: there is more padding than body. :raise IndexError: there is no body."""
    if not flags & PADDED:
        return body
    if body[0] >= len(body):
        raise ValueError("more padding than there is")
    return body[1 : len(body) - body[0]]


def unprioritized(body: bytes, flags: int) -> bytes:
    """The block of headers in the body of their first frame. Errors as :func:`unpadded`."""
    return unpadded(body, flags)[5 if flags & PRIORITY else 0 :]


def text(value: str | bytes) -> str:
    """A header's name or value."""
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
