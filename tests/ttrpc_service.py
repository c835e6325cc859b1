"""A ttrpc service for tests: it echoes, waits, fails, and counts what it is asked."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from google.protobuf.message import Message

from unikeel.containerd.wire import task_pb2, ttrpc_pb2
from unikeel.errors import NotFound
from unikeel.shim import frames
from unikeel.shim.server import Call, Method, Server, serve

NAME = "test.Service"
Ask = task_pb2.StateRequest
Answer = task_pb2.StateResponse


class Service:
    """Its methods, and what became of their calls."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.cancelled: list[int] = []
        self.release = asyncio.Event()

    def server(self) -> Server:
        """A server that has it."""
        handlers = {
            "Echo": self.echo,
            "Wait": self.wait,
            "Missing": self.missing,
            "Broken": self.broken,
            "Large": self.large,
            "Park": self.park,
            "Nonsense": self.nonsense,
        }
        return Server({NAME: {name: Method(Ask, handle) for name, handle in handlers.items()}})

    async def echo(self, call: Call, request: task_pb2.StateRequest) -> Message:
        """Answer without waiting."""
        self.calls.append(call)
        return Answer(id=request.id, exec_id=call.namespace)

    async def wait(self, call: Call, request: task_pb2.StateRequest) -> Message:
        """Answer when the test says so."""
        self.calls.append(call)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.append(call.stream)
            raise
        return Answer(id=request.id)

    async def missing(self, _call: Call, request: task_pb2.StateRequest) -> Message:
        """Fail as the services do."""
        raise NotFound(f"there is no task {request.id}", "look at ctr tasks ls")

    async def broken(self, _call: Call, _request: task_pb2.StateRequest) -> Message:
        """Fail as nobody should."""
        raise ZeroDivisionError("secret\ud800")

    async def large(self, _call: Call, _request: task_pb2.StateRequest) -> Message:
        """Answer with more than fits."""
        return Answer(bundle="x" * (frames.LARGEST + 1))

    async def park(self, call: Call, _request: task_pb2.StateRequest) -> Message:
        """Say that the request waits."""
        call.park()
        return Answer()

    async def nonsense(self, _call: Call, _request: task_pb2.StateRequest) -> Message:
        """Answer with what is no message."""
        return "nothing"  # type: ignore[return-value]  # the test


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Service, str]]:
    """A service at a socket; gives it and the socket's path."""
    service = Service()
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "socket")
        listening = await serve(service.server(), path, "here")
        try:
            yield service, path
        finally:
            listening.close()
            service.release.set()
            await asyncio.sleep(0.01)


def request(stream: int, method: str = "Echo", name: str = "x", service: str = NAME, timeout_ns: int = 0) -> bytes:
    """The frame of a request."""
    metadata = [ttrpc_pb2.KeyValue(key="containerd-namespace-ttrpc", value="ns")]
    payload = Ask(id=name).SerializeToString()
    body = ttrpc_pb2.Request(
        service=service, method=method, payload=payload, timeout_nano=timeout_ns, metadata=metadata
    ).SerializeToString()
    return frames.pack(stream, frames.REQUEST, body)


class Raw:
    """A connection that sends what it wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> tuple[int, int, str, bytes]:
        """The next answer: stream, code, message, payload."""
        async with asyncio.timeout(10):
            header = await self.reader.readexactly(frames.HEADER.size)
            length, stream, kind, _ = frames.HEADER.unpack(header)
            assert kind == frames.RESPONSE
            found = ttrpc_pb2.Response.FromString(await self.reader.readexactly(length))
        return stream, found.status.code, found.status.message, found.payload


@asynccontextmanager
async def raw(path: str) -> AsyncIterator[Raw]:
    """Connect without a client."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run an asynchronous test; a hanging one fails."""

    async def limited() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(limited())
