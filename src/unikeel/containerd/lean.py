"""Short calls to containerd, with little processor time: one small message there, one back, over an HTTP/2 connection of their own.

A task's start needs three of them, and grpclib spends more on each than everything else of a start takes together. What makes this simple: the peer is asked
to keep no table of headers (RFC 7541, 4.2), so that a block of headers means the same at any time and is decoded once; windows are so large that they need
no attention (RFC 9113, 6.9); and what does not fit in one frame, or in the window at hand, is declined, for the caller to send another way.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Final
from urllib.parse import unquote

from hpack import Decoder, HPACKError

from unikeel.errors import Internal, ResourceExhausted, UnikeelError, of_rpc

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 1, 1, 4, 8, 32
_HEAD: Final = struct.Struct(">HBBBI")  # length (the upper 16 bits, then 8), kind, flags, stream
_SETTING: Final = struct.Struct(">HI")
_PREFIX: Final = struct.Struct(">BI")
_TABLE_SIZE, _PUSH, _INITIAL_WINDOW = 1, 2, 4
_FIRST_WINDOW: Final = 65535
_LARGE_WINDOW: Final = (1 << 31) - 1
_TOP_UP: Final = 1 << 30
_CANCEL: Final = 8
#: What is sent in one frame, by default (RFC 9113, 4.2), and what is taken.
_FRAME: Final = 16384
_LAST_STREAM: Final = (1 << 31) - 3
#: How many different blocks of headers are remembered.
_BLOCKS: Final = 256


class Declined(Exception):
    """This call cannot be made here; nothing of it was sent."""


class Broken(OSError):
    """The connection has ended, or a call on it did, or what came makes no sense."""


def _literal(name: bytes, value: bytes) -> bytes:
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


def block(path: str, metadata: tuple[tuple[str, str], ...]) -> bytes:
    """The headers of a call."""
    fields = [
        b"\x83\x86",  # :method POST, :scheme http: of the static table
        _literal(b":path", path.encode()),
        _literal(b":authority", b"localhost"),
        _literal(b"te", b"trailers"),
        _literal(b"content-type", b"application/grpc+proto"),
    ]
    fields += [_literal(name.encode(), value.encode()) for name, value in metadata]
    return b"".join(fields)


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return _HEAD.pack(len(body) >> 8, len(body) & 255, kind, flags, stream) + body


class _Stream:
    """A call that waits for its answer."""

    __slots__ = ("answer", "data", "ended", "fields", "headers")

    def __init__(self, answer: asyncio.Future[bytes]) -> None:
        self.answer = answer
        self.data = bytearray()
        self.ended = False
        self.headers = b""
        self.fields: dict[str, str] = {}


class Connection(asyncio.Protocol):
    """One connection. It ends by itself when the peer misbehaves, or goes: then :attr:`usable` is false, and what waits gets :class:`Broken`.

    :param longest: bytes of an answer that are taken.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._transport: asyncio.Transport | None = None
        self._held = bytearray()
        self._streams: dict[int, _Stream] = {}
        self._next = 1
        self._window = _FIRST_WINDOW
        self._taken = 0
        self._largest = _FRAME
        self._blocks: dict[bytes, dict[str, str]] = {}
        self.usable = True

    # -- calls -----------------------------------------------------------------------------------------------------

    async def call(self, headers: bytes, message: bytes, seconds: float | None) -> bytes:
        """The answer's message.

        :param headers: see :func:`block`. :raise Declined: it is too large for here. :raise TimeoutError: there was no answer in time.
        :raise UnikeelError: the peer answered an error. :raise Broken: the connection has ended.
        """
        size = _PREFIX.size + len(message)
        if not self.usable or self._transport is None or self._next > _LAST_STREAM:
            raise Declined
        if size > min(self._window, _FRAME) or len(headers) > _FRAME:
            raise Declined
        loop = asyncio.get_running_loop()
        number, self._next = self._next, self._next + 2
        self._window -= size
        stream = self._streams[number] = _Stream(loop.create_future())
        self._transport.write(
            _frame(_HEADERS, _END_HEADERS, number, headers)
            + _frame(_DATA, _END_STREAM, number, _PREFIX.pack(0, len(message)) + message)
        )
        timer = None if seconds is None else loop.call_later(seconds, _late, stream.answer)
        try:
            return await stream.answer
        finally:
            if timer is not None:
                timer.cancel()
            if self._streams.pop(number, None) is not None and self.usable:
                self._transport.write(_frame(_RESET, 0, number, struct.pack(">I", _CANCEL)))

    def close(self) -> None:
        """End it."""
        self.usable = False
        if self._transport is not None:
            self._transport.close()

    # -- the connection --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what we are."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        wishes = ((_TABLE_SIZE, 0), (_PUSH, 0), (_INITIAL_WINDOW, _LARGE_WINDOW))
        settings = b"".join(_SETTING.pack(*wish) for wish in wishes)
        more = struct.pack(">I", _LARGE_WINDOW - _FIRST_WINDOW)
        transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW, 0, 0, more))

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody gets an answer any more."""
        self.usable = False
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            if not stream.answer.done():
                stream.answer.set_exception(Broken(str(exc) if exc else "the connection was closed"))

    def data_received(self, data: bytes) -> None:
        """Whole frames are taken."""
        held = self._held
        held += data
        at = 0
        try:
            while len(held) - at >= _HEAD.size:
                upper, lower, kind, flags, number = _HEAD.unpack_from(held, at)
                end = at + _HEAD.size + (upper << 8 | lower)
                if end - at - _HEAD.size > _FRAME:
                    raise ValueError("a frame is too large")
                if len(held) < end:
                    break
                body = bytes(held[at + _HEAD.size : end])
                at = end
                self._frame(kind, flags, number & 0x7FFFFFFF, body)
        except (ValueError, struct.error, IndexError, HPACKError):
            self.usable = False
            if self._transport is not None:
                self._transport.abort()
            return
        del held[:at]

    def _frame(self, kind: int, flags: int, number: int, body: bytes) -> None:
        stream = self._streams.get(number)
        if stream is not None and kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            stream.ended = True  # with the continuations of these headers
        if kind == _DATA:
            self._count(len(body))
            if stream is not None:
                stream.data += _unpadded(body, flags)
                if len(stream.data) > self._longest + _PREFIX.size:
                    self._fail(
                        number,
                        ResourceExhausted(f"an answer of more than {self._longest} bytes is over containerd's limit"),
                    )
        elif kind in (_HEADERS, _CONTINUATION) and stream is not None:
            if kind == _HEADERS:
                body = _unpadded(body, flags)[5 if flags & _PRIORITY else 0 :]
            stream.headers += body
            if len(stream.headers) > self._longest:
                raise ValueError("headers without an end")
            if flags & _END_HEADERS:
                stream.fields.update(self._decoded(stream.headers))
                stream.headers = b""
        elif kind == _RESET and stream is not None:
            self._fail(number, Broken("the peer gave the call up"))
        elif not number:
            self._of_connection(kind, flags, body)
        if stream is not None and stream.ended and not stream.headers:
            self._ended(number)

    def _of_connection(self, kind: int, flags: int, body: bytes) -> None:
        transport = self._transport
        assert transport is not None
        if kind == _SETTINGS and not flags & _ACK:
            transport.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            transport.write(_frame(_PING, _ACK, 0, body))
        elif kind == _WINDOW:
            self._window += int.from_bytes(body, "big") & 0x7FFFFFFF
        elif kind == _GOAWAY:
            self.usable = False  # what it has begun with, it answers
            last = int.from_bytes(body[:4], "big") & 0x7FFFFFFF
            for number in [number for number in self._streams if number > last]:
                self._fail(number, Broken("the peer is going away"))

    def _count(self, size: int) -> None:
        """Give the peer back what it has used of the connection's window, once in a long while."""
        self._taken += size
        if self._taken >= _TOP_UP and self._transport is not None:
            self._transport.write(_frame(_WINDOW, 0, 0, struct.pack(">I", self._taken)))
            self._taken = 0

    def _decoded(self, headers: bytes) -> dict[str, str]:
        """Fields by name. That the peer keeps no table makes each block complete in itself."""
        found = self._blocks.get(headers)
        if found is None:
            decoder = Decoder(max_header_list_size=1 << 20)
            decoder.header_table_size = 0
            decoder.max_allowed_table_size = _FIRST_WINDOW
            found = {_string(field[0]): _string(field[1]) for field in decoder.decode(headers, raw=True)}
            if len(self._blocks) >= _BLOCKS:
                self._blocks.clear()
            self._blocks[headers] = found
        return found

    def _fail(self, number: int, error: Exception) -> None:
        stream = self._streams.get(number)
        if stream is not None and not stream.answer.done():
            stream.answer.set_exception(error)
            del self._streams[number]

    def _ended(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is None or stream.answer.done():
            return
        try:
            stream.answer.set_result(_message(stream))
        except (UnikeelError, OSError) as error:
            stream.answer.set_exception(error)


def _late(answer: asyncio.Future[bytes]) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())


def _string(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _unpadded(body: bytes, flags: int) -> bytes:
    if not flags & _PADDED:
        return body
    if body[0] >= len(body):
        raise ValueError("more padding than there is")
    return body[1 : len(body) - body[0]]


def _message(stream: _Stream) -> bytes:
    """What was answered. :raise UnikeelError: an error. :raise Broken: nothing that makes sense."""
    status = stream.fields.get("grpc-status", "")
    if not status.isascii() or not status.isdigit():
        raise Broken(f"the peer answered without a status (HTTP {stream.fields.get(':status', '?')[:20]})")
    if status != "0":
        raise of_rpc(int(status), unquote(stream.fields.get("grpc-message", "")) or "it failed without a word")
    data = stream.data
    if len(data) < _PREFIX.size:
        raise Internal("containerd answered nothing")
    compressed, length = _PREFIX.unpack_from(data)
    if compressed or length != len(data) - _PREFIX.size:
        raise Broken("the peer's message is malformed")
    return bytes(data[_PREFIX.size :])
