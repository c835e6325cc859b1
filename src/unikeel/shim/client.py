"""A ttrpc client: calls over one connection, any number at a time.

Used for what containerd serves by ttrpc (its events), for the runc shim, and by the command line to ask the daemon.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Self, TypeVar

from google.protobuf.message import DecodeError, Message

from unikeel.containerd.wire import ttrpc_pb2
from unikeel.deadlines import Deadlines
from unikeel.errors import BadContent, DeadlineExceeded, ResourceExhausted, Unavailable, of_rpc
from unikeel.shim import frames

M = TypeVar("M", bound=Message)


def _late(future: asyncio.Future[bytes]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())


class Client(asyncio.Protocol):
    """One connection to a ttrpc server. Made by :meth:`connect`; an asynchronous context manager.

    It does not come back by itself: when the peer is gone, every call says so, and one connects anew.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._cutter = frames.Cutter()
        self._pending: dict[int, asyncio.Future[bytes]] = {}
        self._deadlines = Deadlines()
        self._next = 1
        self._transport: asyncio.Transport | None = None
        self._gone = asyncio.get_running_loop().create_future()
        self._room = asyncio.Event()
        self._room.set()

    @classmethod
    async def connect(cls, path: str) -> Client:
        """Connect to the server that listens at a path (with a leading NUL byte: an abstract name).

        :raise Unavailable: nobody listens there.
        """
        try:
            _, client = await asyncio.get_running_loop().create_unix_connection(lambda: cls(path), path)
        except OSError as error:
            raise Unavailable(f"nobody answers at {path}: {error.strerror or error}") from error
        return client

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self._gone.done()

    async def call(
        self,
        service: str,
        method: str,
        request: Message,
        response_type: type[M],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it travels along
        metadata: Mapping[str, str] | None = None,
    ) -> M:
        """Call a method.

        :param timeout: seconds; it also travels along, so that the server gives up too.
        :raise UnikeelError: what the server answered, as the class of its code.
        :raise Unavailable: the connection has ended. :raise DeadlineExceeded: no answer in time.
        :raise ResourceExhausted: the request is larger than the protocol allows.
        """
        what = f"{service}/{method}"
        envelope = ttrpc_pb2.Request(
            service=service,
            method=method,
            payload=request.SerializeToString(),
            timeout_nano=max(1, int(timeout * 1e9)) if timeout is not None else 0,
            metadata=[ttrpc_pb2.KeyValue(key=key, value=value) for key, value in (metadata or {}).items()],
        )
        try:
            body = await self._exchange(envelope.SerializeToString(), timeout)
        except TimeoutError:
            raise DeadlineExceeded(f"{self.path} did not answer {what} within {timeout:g} s") from None
        try:
            response = ttrpc_pb2.Response.FromString(body)
            if response.status.code == 0:
                return response_type.FromString(response.payload)
        except DecodeError:
            raise BadContent(f"the answer of {self.path} to {what} is malformed") from None
        raise of_rpc(response.status.code, response.status.message or f"{what} failed without a word")

    async def _exchange(self, body: bytes, seconds: float | None) -> bytes:
        if not self._room.is_set():
            begun = time.monotonic()
            await asyncio.wait_for(self._room.wait(), seconds)
            seconds = None if seconds is None else max(0.0, seconds - (time.monotonic() - begun))
        transport = self._transport
        if self.closed or transport is None:
            raise self._ended()
        stream = self._next
        frame = frames.pack(stream, frames.REQUEST, body)
        self._next += 2
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._pending[stream] = future
        transport.write(frame)
        if seconds is not None:
            self._deadlines.add(stream, asyncio.get_running_loop().time() + seconds, partial(_late, future))
        try:
            return await future
        finally:
            self._deadlines.remove(stream)
            self._pending.pop(stream, None)

    def _ended(self) -> Unavailable:
        return Unavailable(f"the connection to {self.path} is closed")

    async def close(self) -> None:
        """End the connection; calls that wait fail. May be called again."""
        if self._transport is not None:
            self._transport.abort()
            await asyncio.shield(self._gone)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Bytes came in: answers, those to calls that were given up among them."""
        for raw in self._cutter.feed(data):
            frame = frames.unpack(raw)
            if frame is None or (frame.kind != frames.RESPONSE and frame.body is not None):
                continue
            future = self._pending.get(frame.stream)
            if future is None or future.done():
                continue
            if frame.body is None:
                future.set_exception(ResourceExhausted(f"an answer of {self.path} is {frame.length} bytes long"))
            else:
                future.set_result(frame.body)

    def pause_writing(self) -> None:
        """The server does not read: further calls wait."""
        self._room.clear()

    def resume_writing(self) -> None:
        """It reads again."""
        self._room.set()

    def connection_lost(self, _error: Exception | None) -> None:
        """The peer is gone."""
        if not self._gone.done():
            self._gone.set_result(None)
        self._room.set()
        self._deadlines.clear()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(self._ended())
