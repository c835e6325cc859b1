"""How ttrpc lies on the wire: frames of a header and a body, one behind the other.

Facts from the protocol's page (containerd/ttrpc, PROTOCOL.md): the header is the body's length, the stream's number and
one byte each for kind and flags, big endian; a body has at most 4 MiB. A longer one is not an end: the receiver passes
over it and answers ``ResourceExhausted`` on that stream.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from unikeel.errors import ResourceExhausted
from unikeel.values import NamedTuple

#: Length of the body, number of the stream, kind, flags.
HEADER: Final = struct.Struct(">IIBB")
LARGEST: Final = 4 << 20

REQUEST: Final = 1
RESPONSE: Final = 2
DATA: Final = 3


class Frame(NamedTuple):
    """A frame, cut out of the stream of bytes. ``body`` is ``None`` if it was longer than :data:`LARGEST`."""

    stream: int
    kind: int
    flags: int
    length: int
    body: bytes | None


def pack(stream: int, kind: int, body: bytes, flags: int = 0) -> bytes:
    """A frame, ready to be sent.

    :raise ResourceExhausted: the body is larger than the protocol allows.
    """
    if len(body) > LARGEST:
        raise ResourceExhausted(f"a message of {len(body)} bytes is more than ttrpc's limit of {LARGEST}")
    return HEADER.pack(len(body), stream, kind, flags) + body


def unpack(frame: bytes) -> Frame | None:
    """Take a frame apart; ``None`` if the bytes are not one whole frame. Of one over the limit, the header is enough."""
    if len(frame) < HEADER.size:
        return None
    length, stream, kind, flags = HEADER.unpack_from(frame)
    if length > LARGEST:
        return Frame(stream, kind, flags, length, None)
    if len(frame) != HEADER.size + length:
        return None
    return Frame(stream, kind, flags, length, frame[HEADER.size :])


class Cutter:
    """Cuts whole frames out of the bytes of a connection.

    At most one frame of the allowed size is held; the body of a longer one is dropped while it comes in.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._dropping = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes as they arrive; gives the frames that are whole now, of those over the limit only the header."""
        if self._dropping:
            gone = min(self._dropping, len(data))
            self._dropping -= gone
            data = data[gone:]
        held = self._held
        held += data
        at = 0
        while len(held) - at >= HEADER.size:
            length = HEADER.unpack_from(held, at)[0]
            end = at + HEADER.size + length
            if length > LARGEST:
                header = bytes(held[at : at + HEADER.size])
                self._dropping = max(0, end - len(held))
                at = min(end, len(held))
                yield header
            elif end <= len(held):
                frame = bytes(held[at:end])
                at = end
                yield frame
            else:
                break
        del held[:at]
