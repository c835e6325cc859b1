"""Short calls: what the frames say, what does not fit, what a peer may do wrong. The ordinary ones are in test_containerd_client."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable

import pytest

from ttrpc_service import run
from unikeel.containerd.lean import Broken, Connection, Declined, block
from unikeel.errors import NotFound, ResourceExhausted

OK = b"\x88"  # :status 200
TRAILERS = b"\x00\x0bgrpc-status\x010"
LONGEST = 1000


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + body


def message(data: bytes) -> bytes:
    return struct.pack(">BI", 0, len(data)) + data


def answer(stream: int, data: bytes, trailers: bytes = TRAILERS) -> bytes:
    return frame(1, 4, stream, OK) + frame(0, 0, stream, message(data)) + frame(1, 5, stream, trailers)


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.ended = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True


def connected(test: Callable[[Connection, Transport], Awaitable[None]]) -> None:
    async def go() -> None:
        connection, transport = Connection(LONGEST), Transport()
        connection.connection_made(transport)
        assert transport.written.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        connection.data_received(frame(4, 0, 0, b""))
        await test(connection, transport)

    run(go)


async def asked(connection: Connection, data: bytes = b"?", seconds: float | None = 5.0) -> asyncio.Task[bytes]:
    task = asyncio.get_running_loop().create_task(connection.call(block("/s/m", ()), data, seconds))
    await asyncio.sleep(0)
    return task


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_answers_come_in_pieces_and_in_any_order(size: int) -> None:
    async def test(connection: Connection, _transport: Transport) -> None:
        one, two = await asked(connection), await asked(connection)
        said = answer(3, b"two") + frame(6, 0, 0, b"12345678") + answer(1, b"one")
        for at in range(0, len(said), size):
            connection.data_received(said[at : at + size])
        assert (await one, await two) == (b"one", b"two")

    connected(test)


def test_settings_and_pings_are_acknowledged() -> None:
    async def test(connection: Connection, transport: Transport) -> None:
        assert transport.written.endswith(frame(4, 1, 0, b""))
        connection.data_received(frame(6, 0, 0, b"12345678"))
        assert transport.written.endswith(frame(6, 1, 0, b"12345678"))

    connected(test)


def test_padding_continuation_and_priority() -> None:
    async def test(connection: Connection, _transport: Transport) -> None:
        task = await asked(connection)
        connection.data_received(frame(1, 4 | 8 | 32, 1, b"\x02" + bytes(5) + OK + b"\0\0"))
        connection.data_received(frame(0, 8, 1, b"\x03" + message(b"yes") + bytes(3)))
        connection.data_received(frame(1, 1, 1, TRAILERS[:4]) + frame(9, 4, 1, TRAILERS[4:]))
        assert await task == b"yes"

    connected(test)


def test_an_error_is_ours_with_its_words() -> None:
    async def test(connection: Connection, _transport: Transport) -> None:
        task = await asked(connection)
        connection.data_received(frame(1, 5, 1, OK + b"\x00\x0bgrpc-status\x015\x00\x0cgrpc-message\x09no%20%22x"))
        with pytest.raises(NotFound, match='no "x'):
            await task

    connected(test)


def test_what_is_too_large_is_declined_or_refused() -> None:
    async def test(connection: Connection, transport: Transport) -> None:
        before = len(transport.written)
        with pytest.raises(Declined):
            await connection.call(block("/s/m", ()), b"x" * 16384, 1.0)
        assert len(transport.written) == before
        task = await asked(connection)
        for _ in range(2):
            connection.data_received(frame(0, 0, 1, bytes(LONGEST)))
        with pytest.raises(ResourceExhausted, match="an answer of"):
            await task
        for _ in range(4):
            await asked(connection, b"x" * 16000)
        with pytest.raises(Declined):  # the peer has not said that it takes more
            await connection.call(block("/s/m", ()), b"x" * 16000, 1.0)
        connection.data_received(frame(8, 0, 0, struct.pack(">I", 65535)))
        (await asked(connection, b"x" * 16000)).cancel()

    connected(test)


def test_a_late_call_is_given_up_at_the_peer_too() -> None:
    async def test(connection: Connection, transport: Transport) -> None:
        with pytest.raises(TimeoutError):
            await connection.call(block("/s/m", ()), b"", 0.01)
        assert transport.written.endswith(frame(3, 0, 1, struct.pack(">I", 8)))
        connection.data_received(answer(1, b"late"))
        assert connection.usable

    connected(test)


@pytest.mark.parametrize(
    "said",
    [
        frame(0, 0, 1, bytes(16385)),
        frame(1, 4, 1, b"\xbf"),  # of a table that is not kept
        frame(0, 8, 1, b"\x09x"),
        frame(0, 8, 1, b""),
    ],
)
def test_a_peer_that_makes_no_sense_is_left(said: bytes) -> None:
    async def test(connection: Connection, transport: Transport) -> None:
        task = await asked(connection)
        connection.data_received(said)
        assert transport.ended
        assert not connection.usable
        connection.connection_lost(None)
        with pytest.raises(Broken):
            await task
        with pytest.raises(Declined):
            await connection.call(b"", b"", 1.0)

    connected(test)


def test_a_peer_that_goes_answers_what_it_has_begun() -> None:
    async def test(connection: Connection, _transport: Transport) -> None:
        one, two = await asked(connection), await asked(connection)
        connection.data_received(frame(7, 0, 0, struct.pack(">II", 1, 0)) + answer(1, b"one"))
        assert await one == b"one"
        with pytest.raises(Broken):
            await two
        assert not connection.usable

    connected(test)
