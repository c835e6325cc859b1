"""A gRPC client's connection, frame by frame: what it is answered, what a window holds back, and what a peer may do wrong."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hpack import Decoder, Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from ttrpc_service import run
from unikeel.containerd import frames
from unikeel.containerd.frames import frame, literal
from unikeel.snapshots.service.connection import LARGEST, Connection, Method, Refusal

_PATH = "/s/Echo"


def headers(path: str = _PATH) -> bytes:
    """A block that changes no table."""
    fields = ((b":path", path.encode()), (b"te", b"trailers"), (b"content-type", b"application/grpc"))
    return b"\x83\x86" + b"".join(literal(name, value) for name, value in fields)


def message(data: bytes) -> bytes:
    return frames.PREFIX.pack(0, len(data)) + data


def asked(number: int, data: bytes = b"?", path: str = _PATH) -> bytes:
    """A whole call."""
    return frame(frames.HEADERS, frames.END_HEADERS, number, headers(path)) + frame(
        frames.DATA, frames.END_STREAM, number, message(data)
    )


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.written += data

    def close(self) -> None:
        self.closed = True

    def taken(self) -> list[tuple[int, int, int, bytes]]:
        """The frames written since the last time: kind, flags, stream, body."""
        found, at, data = [], 0, bytes(self.written)
        while at < len(data):
            upper, lower, kind, flags, number = frames.HEAD.unpack_from(data, at)
            begin = at + frames.HEAD.size
            at = begin + (upper << 8 | lower)
            found.append((kind, flags, number, data[begin:at]))
        self.written.clear()
        return found


async def _echo(request: bytes) -> bytes:
    return request


async def _late(request: bytes) -> bytes:
    await asyncio.sleep(0)
    return request


async def _refused(_request: bytes) -> bytes:
    raise Refusal(5, "100 % of \u00fcber\nis gone")


async def _mistaken(_request: bytes) -> bytes:
    raise ZeroDivisionError


async def _several(request: bytes) -> AsyncIterator[bytes]:
    for number in range(request[0]):
        yield bytes([number]) * request[1] * 100


METHODS: dict[str, Method] = {
    _PATH: _echo,
    "/s/Late": _late,
    "/s/Refused": _refused,
    "/s/Mistaken": _mistaken,
    "/s/Several": _several,
}


def connected(test: Callable[[Connection, Transport], Awaitable[None]], *, greeted: bool = True) -> None:
    async def go() -> None:
        connection, transport = Connection(METHODS), Transport()
        connection.connection_made(transport)
        assert [kind for kind, *_ in transport.taken()] == [frames.SETTINGS, frames.WINDOW]
        if greeted:
            connection.data_received(frames.PREFACE + frame(frames.SETTINGS, 0, 0, b""))
            assert transport.taken() == [(frames.SETTINGS, frames.ACK, 0, b"")]
        await test(connection, transport)

    run(go)


async def answered(transport: Transport, ends: int = 1) -> dict[int, tuple[bytes, dict[str, str]]]:
    """What each call was answered, when so many have ended: bytes of data, and header fields."""
    found: dict[int, tuple[bytes, dict[str, str]]] = {}
    decoder = Decoder()
    for _ in range(1000):
        for kind, flags, number, body in transport.taken():
            data, fields = found.get(number, (b"", {}))
            if kind == frames.DATA:
                data += body
            elif kind == frames.HEADERS:
                fields |= {frames.text(field[0]): frames.text(field[1]) for field in decoder.decode(body, raw=True)}
                fields |= {"ended": "yes"} if flags & frames.END_STREAM else {}
            found[number] = data, fields
        if sum("ended" in fields for _, fields in found.values()) >= ends:
            return found
        await asyncio.sleep(0)
    raise AssertionError(f"only {found} came")


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_calls_come_in_pieces(size: int) -> None:
    async def test(connection: Connection, transport: Transport) -> None:
        said = frames.PREFACE + frame(frames.SETTINGS, 0, 0, b"")
        said += asked(1, b"one") + frame(frames.PING, 0, 0, b"12345678") + asked(3, b"two", "/s/Late")
        for at in range(0, len(said), size):
            connection.data_received(said[at : at + size])
        found = await answered(transport, 2)
        for number, word in ((1, b"one"), (3, b"two")):
            data, fields = found[number]
            assert data == message(word)
            assert fields[":status"] == "200"
            assert fields["content-type"] == "application/grpc+proto"
            assert fields["grpc-status"] == "0"

    connected(test, greeted=False)


@pytest.mark.parametrize(
    ("path", "data", "status", "words"),
    [
        ("/s/Refused", b"", "5", "100 %25 of %C3%BCber%0Ais gone"),
        ("/s/Mistaken", b"", "13", "it failed: ZeroDivisionError, see the daemon's log"),
        ("/s/Nothing", b"", "12", "there is no method /s/Nothing"),
    ],
)
def test_failures(path: str, data: bytes, status: str, words: str) -> None:
    async def test(connection: Connection, transport: Transport) -> None:
        connection.data_received(asked(1, data, path))
        _, fields = (await answered(transport))[1]
        assert (fields["grpc-status"], fields["grpc-message"]) == (status, words)
        connection.data_received(asked(3, b"on"))
        assert (await answered(transport))[3][0] == message(b"on")

    connected(test)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", "3"),
        (b"\0\0\0\0", "3"),
        (b"\0\0\0\0\2x", "3"),
        (b"\0\0\0\0\1xy", "3"),
        (b"\1\0\0\0\1x", "12"),
    ],
)
def test_malformed_requests_are_refused(body: bytes, status: str) -> None:
    async def test(connection: Connection, transport: Transport) -> None:
        connection.data_received(
            frame(frames.HEADERS, frames.END_HEADERS, 1, headers()) + frame(frames.DATA, frames.END_STREAM, 1, body)
        )
        assert (await answered(transport))[1][1]["grpc-status"] == status

    connected(test)


def test_a_request_that_is_too_long() -> None:
    async def test(connection: Connection, transport: Transport) -> None:
        piece = frame(frames.DATA, 0, 1, bytes(frames.FRAME_SIZE))
        connection.data_received(frame(frames.HEADERS, frames.END_HEADERS, 1, headers()))
        for _ in range(LARGEST // frames.FRAME_SIZE + 1):
            connection.data_received(piece)
        assert (await answered(transport))[1][1]["grpc-status"] == "8"
        connection.data_received(piece)  # what was on its way
        assert not transport.closed

    connected(test)


def test_windows_hold_back() -> None:
    """Nothing is sent that a window has no room for, neither the connection's nor the stream's."""

    async def test(connection: Connection, transport: Transport) -> None:
        data = bytes(range(256)) * 400
        connection.data_received(frame(frames.HEADERS, frames.END_HEADERS, 1, headers()))
        whole = message(data)
        pieces = [whole[at : at + 16000] for at in range(0, len(whole), 16000)]
        for index, piece in enumerate(pieces):
            last = frames.END_STREAM if index == len(pieces) - 1 else 0
            connection.data_received(frame(frames.DATA, last, 1, piece))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        got = b"".join(body for kind, _, _, body in transport.taken() if kind == frames.DATA)
        assert len(got) == frames.FIRST_WINDOW
        connection.data_received(frame(frames.WINDOW, 0, 0, struct.pack(">I", 1 << 20)))
        assert transport.taken() == []  # the stream's own is used up, too
        connection.data_received(
            frame(frames.SETTINGS, 0, 0, frames.SETTING.pack(frames.INITIAL_WINDOW, frames.FIRST_WINDOW + 10))
        )
        [(_, _, _, more), _] = transport.taken()
        assert len(more) == 10 or more == b""
        connection.data_received(frame(frames.WINDOW, 0, 1, struct.pack(">I", 1 << 20)))
        rest, fields = (await answered(transport))[1]
        assert (got + rest).endswith(data[-100:])
        assert fields["grpc-status"] == "0"

    connected(test)


@given(st.integers(0, 40), st.integers(0, 255), st.lists(st.tuples(st.booleans(), st.integers(1, 70_000)), max_size=30))
@settings(max_examples=60, deadline=None)
def test_several_messages_through_any_windows(count: int, length: int, opened: list[tuple[bool, int]]) -> None:
    """However the peer opens its windows, all comes, in order, and never more than there is room for."""

    async def test(connection: Connection, transport: Transport) -> None:
        connection.data_received(asked(1, bytes([count, length]), "/s/Several"))
        windows = {0: frames.FIRST_WINDOW, 1: frames.FIRST_WINDOW}
        data, ended = b"", False
        for one, more in [*opened, (False, 1 << 24), (True, 1 << 24)]:
            for _ in range(2 * count + 5):
                await asyncio.sleep(0)
            for kind, flags, _, body in transport.taken():
                if kind == frames.DATA:
                    data += body
                    windows = {number: room - len(body) for number, room in windows.items()}
                    assert min(windows.values()) >= 0
                ended = ended or bool(kind == frames.HEADERS and flags & frames.END_STREAM)
            number = int(one)
            windows[number] += more
            connection.data_received(frame(frames.WINDOW, 0, number, struct.pack(">I", more)) if not ended else b"")
        while not ended:
            await asyncio.sleep(0)
            for kind, flags, _, body in transport.taken():
                data += body if kind == frames.DATA else b""
                ended = ended or bool(kind == frames.HEADERS and flags & frames.END_STREAM)
        assert data == b"".join(message(bytes([number]) * length * 100) for number in range(count))

    connected(test)


def test_a_caller_that_leaves_hears_nothing() -> None:
    async def test(connection: Connection, transport: Transport) -> None:
        connection.data_received(asked(1, b"", "/s/Late") + asked(3, b"\x09\xff", "/s/Several"))
        for number in (1, 3):
            connection.data_received(frame(frames.RESET, 0, number, bytes(4)))
        for _ in range(10):
            await asyncio.sleep(0)
        assert all(kind == frames.HEADERS and not flags & 1 for kind, flags, *_ in transport.taken())
        connection.data_received(asked(5, b"on"))
        assert (await answered(transport))[5][0] == message(b"on")
        connection.data_received(asked(7, b"", "/s/Late"))
        connection.connection_lost(None)
        assert connection.ended
        for _ in range(10):
            await asyncio.sleep(0)
        assert transport.taken() == []

    connected(test)


def test_more_calls_than_are_taken_are_refused() -> None:
    async def test(connection: Connection, transport: Transport) -> None:
        for number in range(1, 515, 2):
            connection.data_received(frame(frames.HEADERS, frames.END_HEADERS, number, headers()))
        assert transport.taken() == [(frames.RESET, 0, 513, struct.pack(">I", 7))]

    connected(test)


def test_headers_by_a_table_and_in_pieces() -> None:
    """A peer that keeps a table all the same is understood, also when the same bytes mean another thing later."""

    async def test(connection: Connection, transport: Transport) -> None:
        encoder = Encoder()
        for number, path in ((1, _PATH), (3, _PATH), (5, "/s/Nothing"), (7, "/s/Nothing"), (9, _PATH)):
            fields = [(":method", "POST"), (":path", path), ("number", str(number % 4))]
            block = encoder.encode(fields)
            at = len(block) // 2
            connection.data_received(
                frame(frames.HEADERS, frames.PADDED | frames.PRIORITY, number, b"\3" + bytes(5) + block[:at] + bytes(3))
                + frame(frames.CONTINUATION, frames.END_HEADERS, number, block[at:])
                + frame(frames.DATA, frames.END_STREAM | frames.PADDED, number, b"\2" + message(b"x") + bytes(2))
            )
            status = (await answered(transport))[number][1]["grpc-status"]
            assert status == ("0" if path == _PATH else "12")

    connected(test)


@pytest.mark.parametrize(
    "said",
    [
        frame(frames.HEADERS, frames.END_HEADERS, 2, headers()),
        frame(frames.HEADERS, frames.END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
        frame(frames.HEADERS, frames.END_HEADERS | frames.PADDED, 1, b"\x09"),
        frame(frames.HEADERS, frames.END_HEADERS | frames.PADDED, 1, b""),
        frame(frames.HEADERS, 0, 1, headers()) + frame(frames.PING, 0, 0, bytes(8)),
        frame(frames.HEADERS, 0, 1, headers()) + frame(frames.CONTINUATION, 4, 3, b""),
        frame(frames.HEADERS, 0, 1, headers()) + 5 * frame(frames.CONTINUATION, 0, 1, bytes(16000)),
        frame(frames.CONTINUATION, 4, 1, b""),
        frame(frames.DATA, 0, 1, b""),
        frame(frames.DATA, 0, 0, b""),
        asked(1, path="/s/Late") + frame(frames.DATA, frames.END_STREAM, 1, message(b"?")),
        asked(1, path="/s/Late") + frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 1, headers()),
        frame(frames.PING, 0, 0, b"short"),
        frame(frames.WINDOW, 0, 0, b"short"),
        frame(frames.WINDOW, 0, 0, b"\x7f\xff\xff\xff"),
        frame(frames.SETTINGS, 0, 0, b"odd"),
        frame(frames.SETTINGS, 0, 0, frames.SETTING.pack(frames.INITIAL_WINDOW, 1 << 31)),
        frames.HEAD.pack(frames.FRAME_SIZE + 1 >> 8, 1, 0, 0, 1),
    ],
)
def test_nonsense_ends_the_connection(said: bytes) -> None:
    async def test(connection: Connection, transport: Transport) -> None:
        connection.data_received(said)
        kind, _, number, body = transport.taken()[-1]
        assert (kind, number, body[4:]) == (frames.GOAWAY, 0, struct.pack(">I", 1))
        assert transport.closed
        connection.data_received(asked(1))  # what was read already

    connected(test)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r", b"\x16\x03"])
def test_what_is_no_http_2(said: bytes) -> None:
    async def test(connection: Connection, transport: Transport) -> None:
        connection.data_received(said)
        assert transport.closed

    connected(test, greeted=False)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes(said: bytes) -> None:
    """They are answered, or end the connection, and raise nothing."""

    async def test(connection: Connection, _transport: Transport) -> None:
        connection.data_received(said)
        await asyncio.sleep(0)

    connected(test)


def test_begun_requests_are_bounded() -> None:
    async def test(connection: Connection, transport: Transport) -> None:
        piece = bytes(frames.FRAME_SIZE)
        for number in range(1, 13, 2):
            connection.data_received(frame(frames.HEADERS, frames.END_HEADERS, number, headers()))
            for _ in range(LARGEST // frames.FRAME_SIZE):
                connection.data_received(frame(frames.DATA, 0, number, piece))
        assert transport.closed

    connected(test)
