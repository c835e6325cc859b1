"""The ttrpc client, against the server and against servers that misbehave."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from ttrpc_service import NAME, Answer, Ask, run, serving
from unikeel.containerd.wire import ttrpc_pb2
from unikeel.errors import (
    BadContent,
    DeadlineExceeded,
    Internal,
    NotFound,
    ResourceExhausted,
    Unavailable,
    UnikeelError,
    Unimplemented,
)
from unikeel.shim import frames
from unikeel.shim.client import Client

_Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def _peer(talk: _Talk) -> AsyncIterator[Client]:
    """A client of a server that does what the test says."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "socket")

        async def talking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await talk(reader, writer)
            writer.close()

        server = await asyncio.start_unix_server(talking, path)
        try:
            async with await Client.connect(path) as client:
                yield client
        finally:
            server.close()


async def _frame(reader: asyncio.StreamReader) -> frames.Frame:
    header = await reader.readexactly(frames.HEADER.size)
    found = frames.unpack(header + await reader.readexactly(frames.HEADER.unpack(header)[0]))
    assert found is not None
    return found


def test_calls_share_a_connection() -> None:
    async def test() -> None:
        async with serving() as (service, path), await Client.connect(path) as client:
            waiting = asyncio.create_task(client.call(NAME, "Wait", Ask(id="w"), Answer))
            calls = (client.call(NAME, "Echo", Ask(id=str(number)), Answer) for number in range(200))
            assert [answer.id for answer in await asyncio.gather(*calls)] == [str(number) for number in range(200)]
            assert {call.connection for call in service.calls} == {1}
            service.release.set()
            assert (await waiting).id == "w"

    run(test)


def test_metadata_and_deadline_travel_along() -> None:
    async def test() -> None:
        async with serving() as (service, path), await Client.connect(path) as client:
            metadata = {"containerd-namespace-ttrpc": "k8s.io", "other": "1"}
            answer = await client.call(NAME, "Echo", Ask(), Answer, timeout=5, metadata=metadata)
            assert answer.exec_id == "k8s.io"
            assert service.calls[0].metadata == metadata
            left = (service.calls[0].deadline or 0) - asyncio.get_running_loop().time()
            assert 4 < left <= 5

    run(test)


@pytest.mark.parametrize(
    ("method", "kind", "words"),
    [
        ("Missing", NotFound, "there is no task x"),
        ("Broken", Internal, "its log says which"),
        ("Large", ResourceExhausted, "limit"),
        ("Nothing", Unimplemented, "has no method"),
    ],
)
def test_what_the_server_answers_is_raised(method: str, kind: type[UnikeelError], words: str) -> None:
    async def test() -> None:
        async with serving() as (_, path), await Client.connect(path) as client:
            with pytest.raises(kind, match=words):
                await client.call(NAME, method, Ask(id="x"), Answer)
            assert (await client.call(NAME, "Echo", Ask(id="y"), Answer)).id == "y"

    run(test)


def test_without_an_answer_in_time_the_call_ends_and_the_connection_stays() -> None:
    async def test() -> None:
        async with serving() as (service, path), await Client.connect(path) as client:
            with pytest.raises(DeadlineExceeded, match="Wait"):
                await client.call(NAME, "Wait", Ask(), Answer, timeout=0.02)
            assert client._pending == {}
            service.release.set()
            assert (await client.call(NAME, "Echo", Ask(id="y"), Answer)).id == "y"

    run(test)


def test_a_call_that_is_cancelled_leaves_nothing() -> None:
    async def test() -> None:
        async with serving() as (_, path), await Client.connect(path) as client:
            waiting = asyncio.create_task(client.call(NAME, "Wait", Ask(), Answer))
            await asyncio.sleep(0.02)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert client._pending == {}

    run(test)


def test_too_large_a_request_is_not_sent() -> None:
    async def test() -> None:
        async with serving() as (service, path), await Client.connect(path) as client:
            with pytest.raises(ResourceExhausted, match="limit"):
                await client.call(NAME, "Echo", Ask(id="x" * (frames.LARGEST + 1)), Answer)
            assert service.calls == []
            assert (await client.call(NAME, "Echo", Ask(id="y"), Answer)).id == "y"

    run(test)


def test_nobody_there_is_unavailable(tmp_path: object) -> None:
    async def test() -> None:
        with pytest.raises(Unavailable, match="nobody answers at"):
            await Client.connect(f"{tmp_path}/nothing")

    run(test)


def test_when_the_server_goes_every_call_says_so() -> None:
    async def test() -> None:
        async def talk(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
            await _frame(reader)
            await _frame(reader)

        async with _peer(talk) as client:
            calls = [client.call(NAME, "Wait", Ask(), Answer) for _ in range(2)]
            found = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(error) for error in found] == [Unavailable, Unavailable]
            assert client.closed
            with pytest.raises(Unavailable, match="is closed"):
                await client.call(NAME, "Echo", Ask(), Answer)

    run(test)


def test_closing_ends_the_calls() -> None:
    async def test() -> None:
        async with serving() as (_, path):
            client = await Client.connect(path)
            waiting = asyncio.create_task(client.call(NAME, "Wait", Ask(), Answer))
            await asyncio.sleep(0.02)
            await client.close()
            await client.close()
            with pytest.raises(Unavailable, match="is closed"):
                await waiting

    run(test)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (frames.pack(1, frames.RESPONSE, b"\xff\xff"), BadContent),
        (frames.pack(1, frames.RESPONSE, ttrpc_pb2.Response(payload=b"\x0a\x7f").SerializeToString()), BadContent),
        (frames.HEADER.pack(frames.LARGEST + 1, 1, frames.RESPONSE, 0), ResourceExhausted),
        (
            frames.pack(1, frames.RESPONSE, ttrpc_pb2.Response(status=ttrpc_pb2.Status(code=77)).SerializeToString()),
            UnikeelError,
        ),
        (b"\x00\x00\x00", Unavailable),
    ],
)
def test_a_server_that_answers_nonsense(answer: bytes, kind: type[UnikeelError]) -> None:
    async def test() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _frame(reader)
            writer.write(answer)
            await writer.drain()

        async with _peer(talk) as client:
            with pytest.raises(kind) as caught:
                await client.call(NAME, "Echo", Ask(), Answer)
            assert type(caught.value) is kind

    run(test)


def test_answers_that_nobody_waits_for_are_passed_over() -> None:
    async def test() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            frame = await _frame(reader)
            body = ttrpc_pb2.Response(payload=Answer(id="right").SerializeToString()).SerializeToString()
            writer.write(frames.pack(99, frames.RESPONSE, body) + frames.pack(frame.stream, frames.DATA, b"x"))
            writer.write(frames.pack(frame.stream, frames.RESPONSE, body) * 2)
            await writer.drain()
            await reader.read()

        async with _peer(talk) as client:
            assert (await client.call(NAME, "Echo", Ask(), Answer)).id == "right"

    run(test)
