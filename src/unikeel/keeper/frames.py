"""ttrpc frames, as far as the keeper must know them: where one ends, which stream it is of, and an answer that says why there is none.

A frame is a header of ten bytes (length of the body, stream, type, flags; big endian) and its body.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

HEADER: Final = struct.Struct(">IIBB")
MAX_BODY: Final = 4 << 20
REQUEST: Final = 1
RESPONSE: Final = 2
RESOURCE_EXHAUSTED: Final = 8
INTERNAL: Final = 13

#: How a request of the old task service begins (field 1, its length, the name), and the same of the new one.
_OLD: Final = b"\x0a\x17containerd.task.v2.Task"
_NEW: Final = b"\x0a\x17containerd.task.v3.Task"


class Head(NamedTuple):
    """A frame's header."""

    length: int
    stream: int
    kind: int
    flags: int


def head_of(frame: bytes | bytearray) -> Head:
    """The header of a frame. :raise ValueError: it is shorter than a header."""
    if len(frame) < HEADER.size:
        raise ValueError(f"a frame of {len(frame)} bytes has no header")
    return Head(*HEADER.unpack_from(frame))


class Cutter:
    """Cuts a stream of bytes into whole frames. A frame that is too long is skipped, and its stream told."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        #: How much of a frame that is too long is still to be skipped.
        self.skip = 0

    def feed(self, data: bytes | memoryview) -> tuple[list[bytes], list[int]]:
        """The whole frames that there are now, and the streams of requests that are too long."""
        frames: list[bytes] = []
        refused: list[int] = []
        if self.skip:
            skipped = min(self.skip, len(data))
            self.skip -= skipped
            data = data[skipped:]
        self.buffer += data
        while len(self.buffer) >= HEADER.size:
            head = head_of(self.buffer)
            size = HEADER.size + head.length
            if head.length > MAX_BODY:
                self.skip = max(0, size - len(self.buffer))
                if head.kind == REQUEST:
                    refused.append(head.stream)
            elif len(self.buffer) < size:
                break
            else:
                frames.append(bytes(self.buffer[:size]))
            del self.buffer[:size]
        return frames, refused

    @property
    def reserved(self) -> int:
        """How many bytes it has or will have, before it gives the next frame."""
        if len(self.buffer) < HEADER.size:
            return len(self.buffer)
        return HEADER.size + head_of(self.buffer).length


class Renamer:
    """Passes a stream of frames on, with requests to the old task service addressed to the new one: the names are equally long."""

    def __init__(self, held: bytes = b"", left: int = 0) -> None:
        #: The beginning of a frame, held back until it can be told what it is.
        self.held = bytearray(held)
        #: How much of a frame's body is still to be passed on as it is.
        self.left = left

    def feed(self, data: bytes) -> bytes:
        """What is to be passed on now."""
        out = bytearray()
        at = 0
        while at < len(data):
            if self.left:
                piece = data[at : at + self.left]
                out += piece
                self.left -= len(piece)
                at += len(piece)
                continue
            piece = data[at : at + self._wanted() - len(self.held)]
            self.held += piece
            at += len(piece)
            if len(self.held) == self._wanted():
                out += self._decided()
        return bytes(out)

    def _wanted(self) -> int:
        """How much of the frame must be there to tell."""
        if len(self.held) < HEADER.size:
            return HEADER.size
        return HEADER.size + min(head_of(self.held).length, len(_OLD))

    def _decided(self) -> bytes:
        head, body = head_of(self.held), bytes(self.held[HEADER.size :])
        if head.kind == REQUEST and body == _OLD:
            body = _NEW
        self.left = head.length - len(body)
        self.held.clear()
        return HEADER.pack(*head) + body


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def refusal(stream: int, code: int, text: str) -> bytes:
    """A response whose status (google.rpc.Status) has this code and message."""
    message = text.encode()
    status = b"\x08" + _varint(code) + b"\x12" + _varint(len(message)) + message
    body = b"\x0a" + _varint(len(status)) + status
    return HEADER.pack(len(body), stream, RESPONSE, 0) + body
