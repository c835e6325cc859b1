"""Short calls to containerd, with little processor time: one small message there, one back, over an HTTP/2 connection of their own.

A task's start needs three of them, and grpclib spends more on each than everything else of a start takes together. What makes this simple: the peer is asked
to keep no table of headers (RFC 7541, 4.2), so that a block of headers means the same at any time and is decoded once; windows are so large that they need
no attention (RFC 9113, 6.9); and what does not fit in one frame, or in the window at hand, is declined, for the caller to send another way.
"""

from __future__ import annotations

import asyncio
import struct
from functools import partial
from typing import Final
from urllib.parse import unquote

from hpack import Decoder, HPACKError

from unikeel.containerd.frames import (
    ACK,
    BLOCKS,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FIRST_WINDOW,
    FRAME_SIZE,
    GOAWAY,
    HEAD,
    HEADERS,
    INITIAL_WINDOW,
    LARGE_WINDOW,
    PING,
    PREFACE,
    PREFIX,
    PUSH,
    RESET,
    SETTING,
    SETTINGS,
    TABLE_SIZE,
    TOP_UP,
    WINDOW,
    frame,
    literal,
    text,
    unpadded,
    unprioritized,
)
from unikeel.deadlines import Deadlines
from unikeel.errors import Internal, ResourceExhausted, UnikeelError, of_rpc

_CANCEL: Final = 8
_LAST_STREAM: Final = (1 << 31) - 3


class Declined(Exception):
    """This call cannot be made here; nothing of it was sent."""


class Broken(OSError):
    """The connection has ended, or a call on it did, or what came makes no sense."""


def block(path: str, metadata: tuple[tuple[str, str], ...]) -> bytes:
    """The headers of a call."""
    fields = [
        b"\x83\x86",  # :method POST, :scheme http: of the static table
        literal(b":path", path.encode()),
        literal(b":authority", b"localhost"),
        literal(b"te", b"trailers"),
        literal(b"content-type", b"application/grpc+proto"),
    ]
    fields += [literal(name.encode(), value.encode()) for name, value in metadata]
    return b"".join(fields)


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
        self._window = FIRST_WINDOW
        self._taken = 0
        self._largest = FRAME_SIZE
        self._blocks: dict[bytes, dict[str, str]] = {}
        self._deadlines = Deadlines()
        self.usable = True

    # -- calls -----------------------------------------------------------------------------------------------------

    async def call(self, headers: bytes, message: bytes, seconds: float | None) -> bytes:
        """The answer's message.

        :param headers: see :func:`block`. :raise Declined: it is too large for here. :raise TimeoutError: there was no answer in time.
        :raise UnikeelError: the peer answered an error. :raise Broken: the connection has ended.
        """
        size = PREFIX.size + len(message)
        if not self.usable or self._transport is None or self._next > _LAST_STREAM:
            raise Declined
        if size > min(self._window, FRAME_SIZE) or len(headers) > FRAME_SIZE:
            raise Declined
        loop = asyncio.get_running_loop()
        number, self._next = self._next, self._next + 2
        self._window -= size
        stream = self._streams[number] = _Stream(loop.create_future())
        self._transport.write(
            frame(HEADERS, END_HEADERS, number, headers)
            + frame(DATA, END_STREAM, number, PREFIX.pack(0, len(message)) + message)
        )
        if seconds is not None:
            self._deadlines.add(number, loop.time() + seconds, partial(_late, stream.answer))
        try:
            return await stream.answer
        finally:
            self._deadlines.remove(number)
            if self._streams.pop(number, None) is not None and self.usable:
                self._transport.write(frame(RESET, 0, number, struct.pack(">I", _CANCEL)))

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
        wishes = ((TABLE_SIZE, 0), (PUSH, 0), (INITIAL_WINDOW, LARGE_WINDOW))
        settings = b"".join(SETTING.pack(*wish) for wish in wishes)
        more = struct.pack(">I", LARGE_WINDOW - FIRST_WINDOW)
        transport.write(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW, 0, 0, more))

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody gets an answer any more."""
        self.usable = False
        self._deadlines.clear()
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
            while len(held) - at >= HEAD.size:
                upper, lower, kind, flags, number = HEAD.unpack_from(held, at)
                end = at + HEAD.size + (upper << 8 | lower)
                if end - at - HEAD.size > FRAME_SIZE:
                    raise ValueError("a frame is too large")
                if len(held) < end:
                    break
                body = bytes(held[at + HEAD.size : end])
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
        if stream is not None and kind in (DATA, HEADERS) and flags & END_STREAM:
            stream.ended = True  # with the continuations of these headers
        if kind == DATA:
            self._count(len(body))
            if stream is not None:
                stream.data += unpadded(body, flags)
                if len(stream.data) > self._longest + PREFIX.size:
                    self._fail(
                        number,
                        ResourceExhausted(f"an answer of more than {self._longest} bytes is over containerd's limit"),
                    )
        elif kind in (HEADERS, CONTINUATION) and stream is not None:
            if kind == HEADERS:
                body = unprioritized(body, flags)
            stream.headers += body
            if len(stream.headers) > self._longest:
                raise ValueError("headers without an end")
            if flags & END_HEADERS:
                stream.fields.update(self._decoded(stream.headers))
                stream.headers = b""
        elif kind == RESET and stream is not None:
            self._fail(number, Broken("the peer gave the call up"))
        elif not number:
            self._of_connection(kind, flags, body)
        if stream is not None and stream.ended and not stream.headers:
            self._ended(number)

    def _of_connection(self, kind: int, flags: int, body: bytes) -> None:
        transport = self._transport
        assert transport is not None
        if kind == SETTINGS and not flags & ACK:
            transport.write(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            transport.write(frame(PING, ACK, 0, body))
        elif kind == WINDOW:
            self._window += int.from_bytes(body, "big") & 0x7FFFFFFF
        elif kind == GOAWAY:
            self.usable = False  # what it has begun with, it answers
            last = int.from_bytes(body[:4], "big") & 0x7FFFFFFF
            for number in [number for number in self._streams if number > last]:
                self._fail(number, Broken("the peer is going away"))

    def _count(self, size: int) -> None:
        """Give the peer back what it has used of the connection's window, once in a long while."""
        self._taken += size
        if self._taken >= TOP_UP and self._transport is not None:
            self._transport.write(frame(WINDOW, 0, 0, struct.pack(">I", self._taken)))
            self._taken = 0

    def _decoded(self, headers: bytes) -> dict[str, str]:
        """Fields by name. That the peer keeps no table makes each block complete in itself."""
        found = self._blocks.get(headers)
        if found is None:
            decoder = Decoder(max_header_list_size=1 << 20)
            decoder.header_table_size = 0
            decoder.max_allowed_table_size = FIRST_WINDOW
            found = {text(field[0]): text(field[1]) for field in decoder.decode(headers, raw=True)}
            if len(self._blocks) >= BLOCKS:
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


def _message(stream: _Stream) -> bytes:
    """What was answered. :raise UnikeelError: an error. :raise Broken: nothing that makes sense."""
    status = stream.fields.get("grpc-status", "")
    if not status.isascii() or not status.isdigit():
        raise Broken(f"the peer answered without a status (HTTP {stream.fields.get(':status', '?')[:20]})")
    if status != "0":
        raise of_rpc(int(status), unquote(stream.fields.get("grpc-message", "")) or "it failed without a word")
    data = stream.data
    if len(data) < PREFIX.size:
        raise Internal("containerd answered nothing")
    compressed, length = PREFIX.unpack_from(data)
    if compressed or length != len(data) - PREFIX.size:
        raise Broken("the peer's message is malformed")
    return bytes(data[PREFIX.size :])
