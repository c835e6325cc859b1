"""One connection of a gRPC client, over HTTP/2, with little processor time: a call comes in whole, and what is answered goes out in one piece.

A library spends more on a call than a View takes otherwise, and the snapshotter is one interpreter. What makes this small: the peer is asked to keep no table of
headers, so that a block of headers mostly means the same at any time and is decoded once; its windows are so large that they need no attention; and a method sees
the bytes of a request only when they are all there. Ours, the peer's windows for what we send, are kept as RFC 9113 (5.2) has it.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from urllib.parse import quote

from hpack import Decoder, HPACKError

from unikeel.containerd import frames
from unikeel.containerd.frames import frame, literal
from unikeel.eager import begun
from unikeel.lean import Final

#: What answers a method: one message, or several, from the bytes of the request.
Method = Callable[[bytes], Awaitable[bytes] | AsyncIterator[bytes]]

#: containerd's limit for a message, in bytes.
LARGEST: Final = 16 << 20
#: Bytes of requests that are not whole yet, of a connection; of a block of headers.
_HELD: Final = 64 << 20
_BLOCK: Final = 64 << 10
#: Calls of one connection at once.
_STREAMS: Final = 256
#: gRPC's codes that are ours to give here.
_INVALID, _EXHAUSTED, _UNIMPLEMENTED, _INTERNAL = 3, 8, 12, 13
#: HTTP/2's reasons.
_NO_ERROR, _PROTOCOL, _REFUSED = 0, 1, 7
_STATUS: Final = b"\x88"  # :status 200, of the static table
_FIRST: Final = _STATUS + literal(b"content-type", b"application/grpc+proto")
_LAST: Final = literal(b"grpc-status", b"0")
#: A block of headers that begins so changes the table's size.
_RESIZES, _KIND = 0x20, 0xE0
_LOG: Final = logging.getLogger("unikeel.snapshots")


class Refusal(Exception):
    """What a call is answered that fails: gRPC's status, and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class _Stream:
    """A call. ``data`` is what came of the request, ``whole`` that it has ended, ``out`` what waits for the peer's window, ``trailers`` what comes after that."""

    __slots__ = ("data", "out", "path", "room", "trailers", "whole", "window")

    def __init__(self, path: str, window: int) -> None:
        self.path = path
        self.window = window
        self.data = bytearray()
        self.whole = False
        self.out = bytearray()
        self.trailers = b""
        #: Somebody waits until ``out`` is sent.
        self.room: asyncio.Future[None] | None = None


class Connection(asyncio.Protocol):
    """It ends by itself when the peer goes, or sends what makes no sense. Calls go on when it has ended; nobody hears of them.

    :param methods: by their paths (``/package.Service/Method``); they raise :class:`Refusal`.
    """

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods
        self._transport: asyncio.Transport | None = None
        self._held = bytearray()
        self._preface = frames.PREFACE
        self._streams: dict[int, _Stream] = {}
        self._latest = 0
        self._window = frames.FIRST_WINDOW
        self._first_window = frames.FIRST_WINDOW
        self._taken = 0
        #: The headers that are not whole yet: of which stream, whether it ends with them, their bytes.
        self._block: tuple[int, bool, bytearray] | None = None
        self._decoder = Decoder(max_header_list_size=_BLOCK)
        self._blocks: dict[bytes, str] = {}
        self._answers: set[asyncio.Task[None]] = set()
        self._over = False

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self._over

    # --- the connection -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what we are."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        wishes = (
            (frames.TABLE_SIZE, 0),
            (frames.STREAMS, _STREAMS),
            (frames.INITIAL_WINDOW, frames.LARGE_WINDOW),
        )
        settings = b"".join(frames.SETTING.pack(*wish) for wish in wishes)
        more = struct.pack(">I", frames.LARGE_WINDOW - frames.FIRST_WINDOW)
        transport.write(frame(frames.SETTINGS, 0, 0, settings) + frame(frames.WINDOW, 0, 0, more))

    def connection_lost(self, exc: Exception | None) -> None:
        """What is asked for already is done all the same."""
        del exc
        self._transport = None
        self._over = True
        for number in list(self._streams):
            self._forget(number)

    def close(self) -> None:
        """End it; the peer may ask elsewhere for what was not begun."""
        self._end(_NO_ERROR)

    def _end(self, reason: int) -> None:
        if self._transport is not None:
            self._transport.write(frame(frames.GOAWAY, 0, 0, struct.pack(">II", self._latest, reason)))
            self._transport.close()
            self._transport = None
        self._over = True

    def data_received(self, data: bytes) -> None:
        """Whole frames are taken; none after the end."""
        if self._transport is None:
            return
        held = self._held
        held += data
        at = 0
        try:
            if self._preface and not self._begins():
                return
            while len(held) - at >= frames.HEAD.size:
                upper, lower, kind, flags, number = frames.HEAD.unpack_from(held, at)
                begin = at + frames.HEAD.size
                at_end = begin + (upper << 8 | lower)
                if at_end - begin > frames.FRAME_SIZE:
                    raise ValueError("a frame is too large")
                if len(held) < at_end:
                    break
                at = at_end
                self._frame(kind, flags, number & 0x7FFFFFFF, bytes(held[begin:at_end]))
                if self._over:
                    return
        except (ValueError, struct.error, IndexError, HPACKError, UnicodeDecodeError) as error:
            _LOG.warning("a client of the snapshotter speaks no HTTP/2 that makes sense: %s", error)
            self._end(_PROTOCOL)
            return
        del held[:at]

    def _begins(self) -> bool:
        """Take the preface; whether it is there. :raise ValueError: something else is."""
        if len(self._held) < len(self._preface):
            if not self._preface.startswith(self._held):
                raise ValueError("it does not begin as HTTP/2")
            return False
        if not self._held.startswith(self._preface):
            raise ValueError("it does not begin as HTTP/2")
        del self._held[: len(self._preface)]
        self._preface = b""
        return True

    def _frame(self, kind: int, flags: int, number: int, body: bytes) -> None:
        if self._block is not None and (kind != frames.CONTINUATION or number != self._block[0]):
            raise ValueError("headers are interrupted")
        if kind == frames.HEADERS:
            ends = bool(flags & frames.END_STREAM)
            self._headers((number, ends, bytearray(frames.unprioritized(body, flags))), flags)
        elif kind == frames.CONTINUATION:
            if self._block is None:
                raise ValueError("headers go on that have not begun")
            self._block[2].extend(body)
            self._headers(self._block, flags)
        elif kind == frames.DATA:
            self._data(number, flags, body)
        elif kind == frames.RESET:
            self._forget(number)
        elif kind == frames.WINDOW:
            self._opens(number, body)
        elif kind == frames.SETTINGS and not flags & frames.ACK:
            self._settings(body)
        elif kind == frames.PING and not flags & frames.ACK:
            if len(body) != 8:
                raise ValueError("a ping has another length")
            self._write(frame(frames.PING, frames.ACK, 0, body))

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _settings(self, body: bytes) -> None:
        for name, value in frames.SETTING.iter_unpack(body):
            if name == frames.INITIAL_WINDOW:
                if value > frames.LARGE_WINDOW:
                    raise ValueError("a window is too large")
                more, self._first_window = value - self._first_window, value
                for stream in self._streams.values():
                    stream.window += more
        self._write(frame(frames.SETTINGS, frames.ACK, 0, b""))
        self._send_all()

    def _opens(self, number: int, body: bytes) -> None:
        """The peer takes more."""
        more = struct.unpack(">I", body)[0] & 0x7FFFFFFF
        if not number:
            self._window += more
            if self._window > frames.LARGE_WINDOW:
                raise ValueError("a window is too large")
            self._send_all()
        elif (stream := self._streams.get(number)) is not None:
            stream.window += more
            self._send(number, stream)

    # --- what comes -----------------------------------------------------------------------------------------------------

    def _headers(self, block: tuple[int, bool, bytearray], flags: int) -> None:
        if len(block[2]) > _BLOCK:
            raise ValueError("headers without an end")
        if not flags & frames.END_HEADERS:
            self._block = block
            return
        self._block = None
        number, ends, fields = block
        path = self._path(bytes(fields))
        if number <= self._latest:
            if number in self._streams and ends:  # trailers of the request
                self._whole(number)
            return
        if not number % 2:
            raise ValueError("a call has an even number")
        self._latest = number
        if len(self._streams) >= _STREAMS:
            self._write(frame(frames.RESET, 0, number, struct.pack(">I", _REFUSED)))
            return
        self._streams[number] = _Stream(path, self._first_window)
        if ends:
            self._whole(number)

    def _path(self, block: bytes) -> str:
        """The path in a block of headers; of all others nothing is wanted. What reads and changes no table always means the same."""
        known = self._blocks.get(block)
        if known is not None:
            return known
        table = self._decoder.header_table.dynamic_entries
        empty = not table
        fields = self._decoder.decode(block, raw=True)
        path = next((frames.text(field[1]) for field in fields if field[0] == b":path"), "")
        if empty and not table and block[:1] and block[0] & _KIND != _RESIZES:
            if len(self._blocks) >= frames.BLOCKS:
                self._blocks.clear()
            self._blocks[block] = path
        return path

    def _data(self, number: int, flags: int, body: bytes) -> None:
        self._taken += len(body)
        if self._taken >= frames.TOP_UP:
            self._write(frame(frames.WINDOW, 0, 0, struct.pack(">I", self._taken)))
            self._taken = 0
        stream = self._streams.get(number)
        if stream is None:
            if not number or number > self._latest:
                raise ValueError("data of no call")
            return
        stream.data += frames.unpadded(body, flags)
        if len(stream.data) > LARGEST + frames.PREFIX.size:
            self._refuse(number, Refusal(_EXHAUSTED, f"a request of more than {LARGEST} bytes"))
        elif flags & frames.END_STREAM:
            self._whole(number)
        elif sum(len(each.data) for each in self._streams.values()) > _HELD:
            raise ValueError("it begins more than it ends")

    def _whole(self, number: int) -> None:
        """A request is there. :raise ValueError: it was there before: what follows its end would be done again."""
        stream = self._streams[number]
        if stream.whole:
            raise ValueError("a request ends twice")
        stream.whole = True
        data, stream.data = stream.data, bytearray()
        method = self._methods.get(stream.path)
        if method is None:
            self._refuse(number, Refusal(_UNIMPLEMENTED, f"there is no method {stream.path[:200]}"))
        elif len(data) < frames.PREFIX.size:
            self._refuse(number, Refusal(_INVALID, f"{stream.path} came without a request"))
        else:
            compressed, length = frames.PREFIX.unpack_from(data)
            if compressed:
                self._refuse(number, Refusal(_UNIMPLEMENTED, "compressed requests are not taken"))
            elif length != len(data) - frames.PREFIX.size:
                self._refuse(number, Refusal(_INVALID, "a request has another length than it says"))
            else:
                task = begun(self._answer(number, stream, method, bytes(data[frames.PREFIX.size :])))
                if not task.done():
                    self._answers.add(task)
                    task.add_done_callback(self._answers.discard)

    # --- what is answered -----------------------------------------------------------------------------------------------

    async def _answer(self, number: int, stream: _Stream, method: Method, request: bytes) -> None:
        try:
            answer = method(request)
            if isinstance(answer, AsyncIterator):
                await self._several(number, stream, answer)
            else:
                self._add(number, stream, await answer, last=True, first=True)
        except Refusal as refusal:
            self._refuse(number, refusal)
        except Exception as error:  # noqa: BLE001 - it is told in the log, and to the caller
            _LOG.exception("%s failed in a way that is our own mistake", stream.path)
            self._refuse(number, Refusal(_INTERNAL, f"it failed: {type(error).__name__}, see the daemon's log"))

    async def _several(self, number: int, stream: _Stream, answers: AsyncIterator[bytes]) -> None:
        """One message after the other, each when the peer has taken those before; until it does not want any more."""
        self._write(frame(frames.HEADERS, frames.END_HEADERS, number, _FIRST))
        async for message in answers:
            self._add(number, stream, message)
            if self._streams.get(number) is not stream:
                return
            if stream.out:
                stream.room = asyncio.get_running_loop().create_future()
                await stream.room
        self._add(number, stream, None, last=True)

    def _add(
        self, number: int, stream: _Stream, message: bytes | None, *, last: bool = False, first: bool = False
    ) -> None:
        """Send a message, if there is one, and with the last one the end."""
        if self._streams.get(number) is not stream:
            return
        data = b"" if message is None else frames.PREFIX.pack(0, len(message)) + message
        head = frame(frames.HEADERS, frames.END_HEADERS, number, _FIRST) if first else b""
        if last:
            stream.trailers = frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, number, _LAST)
        size = len(data)
        if not stream.out and size <= min(self._window, stream.window, frames.FRAME_SIZE):
            self._window -= size
            stream.window -= size
            body = frame(frames.DATA, 0, number, data) if data else b""
            self._write(head + body + stream.trailers)
            if last:
                del self._streams[number]
        else:
            self._write(head)
            stream.out += data
            self._send(number, stream)

    def _send(self, number: int, stream: _Stream) -> None:
        """Send what waits and what the windows have room for."""
        out = stream.out
        while out and (size := min(len(out), self._window, stream.window, frames.FRAME_SIZE)) > 0:
            self._window -= size
            stream.window -= size
            self._write(frame(frames.DATA, 0, number, bytes(out[:size])))
            del out[:size]
        if out:
            return
        if stream.trailers:
            self._write(stream.trailers)
            self._forget(number)
        elif stream.room is not None and not stream.room.done():
            stream.room.set_result(None)

    def _send_all(self) -> None:
        for number, stream in list(self._streams.items()):
            if stream.out:
                self._send(number, stream)

    def _refuse(self, number: int, refusal: Refusal) -> None:
        """A call fails. What was sent before, if anything, stays."""
        if self._streams.get(number) is None:
            return
        words = quote(refusal.sentence, safe=" !#$&'()*+,/:;=?@[]\"<>{}|^`\\").encode()
        end = literal(b"grpc-status", str(refusal.status).encode()) + literal(b"grpc-message", words)
        self._write(frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, number, _FIRST + end))
        self._forget(number)

    def _forget(self, number: int) -> None:
        """Nobody waits for a call any more."""
        stream = self._streams.pop(number, None)
        if stream is not None and stream.room is not None and not stream.room.done():
            stream.room.set_result(None)
