"""Conversations with the kernel's routing part, rtnetlink(7), in the network namespace of the calling thread.

Requests that belong together go out in one message to the kernel, which works on them in order and answers each.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType

from unikeel.lean import Final, Self
from unikeel.values import NamedTuple

#: Flags of requests (netlink(7)).
CREATE: Final = 0x400
EXCLUSIVE: Final = 0x200
_REQUEST: Final = 0x1
_ACKNOWLEDGE: Final = 0x4
_DUMP: Final = 0x300
_INTERRUPTED: Final = 0x10
_TEXTS: Final = 0x200  # NLM_F_ACK_TLVS: an error that is explained

_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ERROR: Final = 2
_DONE: Final = 3
_NETLINK: Final = 270  # SOL_NETLINK, and two of its options
_SHORT_ERRORS: Final = 10
_EXPLAINED: Final = 11
_SECONDS: Final = 10.0
_ROOM: Final = 1 << 18
#: Dumps that the kernel says were disturbed are asked for again so often.
_TRIES: Final = 5


class Request(NamedTuple):
    """One request: its kind, what it says, and flags beyond those of every request."""

    kind: int
    body: bytes
    flags: int = 0


class Netlink:
    """A socket to the kernel. A context manager; for one thread."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.settimeout(_SECONDS)
        self._socket.bind((0, 0))
        for option in (_SHORT_ERRORS, _EXPLAINED):
            self._socket.setsockopt(_NETLINK, option, 1)
        self._number = 0

    def tell(self, requests: Sequence[Request]) -> list[OSError | None]:
        """Send requests together; the error of each, or None. :raise OSError: the kernel does not answer."""
        first = self._number + 1
        data = b"".join(self._packed(request, _ACKNOWLEDGE) for request in requests)
        self._socket.send(data)
        answers: dict[int, OSError | None] = {}
        while len(answers) < len(requests):
            for kind, flags, number, body in self._receive():
                if kind == _ERROR and first <= number <= self._number:
                    answers[number] = _error(flags, body)
        return [answers[number] for number in range(first, self._number + 1)]

    def order(self, *requests: Request) -> None:
        """Send requests together. :raise OSError: one fails; those behind it may have been done nevertheless."""
        for error in self.tell(requests):
            if error is not None:
                raise error

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """All that there is of a kind, as the bodies of the kernel's messages. :raise OSError: the kernel refuses."""
        for _ in range(_TRIES):
            found = self._dump(kind, body)
            if found is not None:
                return found
        raise OSError(4, os.strerror(4))

    def _dump(self, kind: int, body: bytes) -> list[bytes] | None:
        """None: it was disturbed by a change."""
        self._socket.send(self._packed(Request(kind, body), _DUMP))
        found: list[bytes] = []
        disturbed = False
        while True:
            for answer, flags, number, content in self._receive():
                if number != self._number:
                    continue
                disturbed = disturbed or bool(flags & _INTERRUPTED)
                if answer == _DONE:
                    return None if disturbed else found
                if answer == _ERROR:
                    raise _error(flags, content) or OSError(5, os.strerror(5))
                found.append(content)

    def _packed(self, request: Request, flags: int) -> bytes:
        self._number += 1
        length = _HEADER.size + len(request.body)
        header = _HEADER.pack(length, request.kind, _REQUEST | flags | request.flags, self._number, 0)
        return header + request.body + bytes(-length % 4)

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        """The messages of one packet: kind, flags, number, body."""
        data = self._socket.recv(_ROOM)
        while len(data) >= _HEADER.size:
            length, kind, flags, number, _ = _HEADER.unpack_from(data)
            if not _HEADER.size <= length <= len(data):
                raise OSError(74, "the kernel's answer is cut short")
            yield kind, flags, number, data[_HEADER.size : length]
            data = data[length + -length % 4 :]

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def attribute(kind: int, data: bytes) -> bytes:
    """An attribute; its data may be attributes again."""
    length = _ATTRIBUTE.size + len(data)
    return _ATTRIBUTE.pack(length, kind) + data + bytes(-length % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """Attributes by kind, the last of each; what is cut short is left out."""
    found: dict[int, bytes] = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= length <= len(data):
            break
        found[kind & 0x3FFF] = data[_ATTRIBUTE.size : length]
        data = data[length + -length % 4 :]
    return found


def _error(flags: int, body: bytes) -> OSError | None:
    """What an answer says: None is success."""
    if len(body) < 4:
        return OSError(74, "the kernel's answer is cut short")
    number = -int(struct.unpack_from("=i", body)[0])
    if number == 0:
        return None
    text = os.strerror(number)
    if flags & _TEXTS:
        said = attributes(body[4 + _HEADER.size :]).get(1, b"").rstrip(b"\0").decode(errors="replace")
        text = f"{text} ({said})" if said else text
    return OSError(number, text)
