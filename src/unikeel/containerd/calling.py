"""The one place where containerd is called: gRPC over its unix socket, by names of services and methods.

Facts: the namespace travels as the metadata ``containerd-namespace``, a lease as ``containerd-lease``; messages have at
most 16 MiB in either direction (containerd.md, sections 3.5 and 4). One HTTP/2 connection carries all calls; when it is
gone, the next call makes a new one. What containerd answers becomes an error of our tree, its words unchanged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache
from typing import Final, Generic, TypedDict, TypeVar

from google.protobuf.message import DecodeError, Message
from grpclib.client import Channel, Stream
from grpclib.const import Cardinality
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from unikeel.containerd import lean
from unikeel.errors import BadContent, DeadlineExceeded, ResourceExhausted, Unavailable, UnikeelError, of_rpc

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

#: containerd's limit for a message.
LARGEST: Final = 16 << 20
#: Seconds that a call may take, if the caller does not say.
TIMEOUT: Final = 10.0
#: containerd, which is told the time-out, resets a stream at its end, and that may arrive before our own timer.
_NEARLY: Final = 0.95
#: What a call may raise that is not an error of ours yet.
_TRANSLATED: Final = (GRPCError, TimeoutError, DecodeError, StreamTerminatedError, ProtocolError, OSError)


class Options(TypedDict, total=False):
    """What every call takes: ``timeout`` in seconds (``None``: no limit), and the lease that it is made under."""

    timeout: float | None
    lease: str


def with_timeout(options: Options, seconds: float | None) -> Options:
    """The same options, with another time-out unless they have one."""
    return {"timeout": seconds, **options}


class _Codec(CodecBase):
    """protobuf, with containerd's limit on what is sent and what is taken."""

    __content_subtype__ = "proto"

    def encode(self, message: Message, message_type: type[Message]) -> bytes:  # noqa: ARG002 - of the interface
        data = message.SerializeToString()
        if len(data) > LARGEST:
            raise ResourceExhausted(f"a request of {len(data)} bytes is more than containerd's limit of {LARGEST}")
        return data

    def decode(self, data: bytes, message_type: type[Message]) -> Message:
        if len(data) > LARGEST:
            raise ResourceExhausted(f"an answer of {len(data)} bytes is more than containerd's limit of {LARGEST}")
        return message_type.FromString(data)


class Link:
    """The connection to one containerd. Everything about a namespace is in :class:`Caller`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._channel: Channel | None = None
        self._lean: lean.Connection | None = None
        self._connecting = asyncio.Lock()

    def usable(self) -> lean.Connection | None:
        """The connection for short calls, if there is one."""
        found = self._lean
        return found if found is not None and found.usable else None

    async def lean(self) -> lean.Connection:
        """The connection for short calls, made when it is first needed, and again after its end. :raise OSError: nobody answers."""
        found = self._lean
        if found is None or not found.usable:
            async with self._connecting:
                found = self._lean
                if found is None or not found.usable:
                    path = self.address.removeprefix("unix://")
                    loop = asyncio.get_running_loop()
                    _, found = await loop.create_unix_connection(lambda: lean.Connection(LARGEST), path)
                    self._lean = found
        return found

    def channel(self) -> Channel:
        """The channel, made when it is first needed (it belongs to the running event loop)."""
        if self._channel is None:
            self._channel = Channel(path=self.address.removeprefix("unix://"), codec=_Codec())
        return self._channel

    async def close(self) -> None:
        """End the connection; the next call would make a new one."""
        channel, self._channel = self._channel, None
        short, self._lean = self._lean, None
        if short is not None:
            short.close()
        if channel is not None:
            channel.close()
            await asyncio.sleep(0)  # in which the event loop closes the socket

    @contextmanager
    def translated(self, what: str, timeout: float | None) -> Iterator[None]:
        """Errors of gRPC and of the socket, as ours."""
        began = time.monotonic()
        try:
            yield
        except _TRANSLATED as error:
            raise self.translate(error, what, timeout, began) from None

    def translate(self, error: Exception, what: str, timeout: float | None, began: float) -> UnikeelError:
        """One of those errors, as ours."""
        if isinstance(error, GRPCError):
            return of_rpc(error.status.value, error.message or f"{what} failed without a word")
        if isinstance(error, TimeoutError):
            return _late(what, timeout)
        if isinstance(error, DecodeError):
            return BadContent(f"containerd's answer to {what} is malformed")
        if isinstance(error, OSError) and not isinstance(error, lean.Broken):
            return Unavailable(
                f"containerd does not answer at {self.address}: {error.strerror or error}", "is containerd running?"
            )
        if timeout is not None and time.monotonic() - began > _NEARLY * timeout:  # its clock struck before ours
            return _late(what, timeout)
        return Unavailable(f"the connection to containerd at {self.address} ended during {what}: {error}")


@lru_cache(256)
def _block(path: str, namespace: str, lease: str) -> bytes:
    metadata = (("containerd-namespace", namespace), *((("containerd-lease", lease),) if lease else ()))
    return lean.block(path, metadata)


def _late(what: str, timeout: float | None) -> DeadlineExceeded:
    return DeadlineExceeded(f"containerd did not answer {what} within {timeout or 0:g} s")


class Exchange(Generic[Q, R]):
    """A call in which both sides send any number of messages."""

    def __init__(self, stream: Stream[Q, R]) -> None:
        self._stream = stream

    async def send(self, message: Q, *, last: bool = False) -> None:
        """Send a message. :param last: nothing follows; to be said with the message, because a server that has all it
        wants ends the stream with its answer."""
        await self._stream.send_message(message, end=last)

    async def receive(self) -> R:
        """Wait for a message. That there is none more is an error: the server's status, where it gives one."""
        answer = await self._stream.recv_message()
        if answer is None:
            raise StreamTerminatedError("there is no further answer")  # leaving the stream, grpclib looks at the status
        return answer


class Caller:
    """Calls in a namespace."""

    def __init__(self, link: Link, namespace: str) -> None:
        self.link = link
        self.namespace = namespace

    async def unary(self, service: str, method: str, request: Message, response: type[R], options: Options) -> R:
        """One message there, one back.

        :raise UnikeelError: what containerd answered, as the class of its code.
        :raise Unavailable: it is not there. :raise DeadlineExceeded: it did not answer in time.
        """
        timeout, began = options.get("timeout", TIMEOUT), time.monotonic()
        try:
            return await self._short(service, method, request, response, options.get("lease", ""), timeout)
        except lean.Declined:
            pass
        except _TRANSLATED as error:
            raise self.link.translate(error, f"{service.rpartition('.')[2]}/{method}", timeout, began) from None
        async with self._open(service, method, Cardinality.UNARY_UNARY, type(request), response, options) as stream:
            await stream.send_message(request, end=True)
            answer = await stream.recv_message()
        if answer is None:
            raise Unavailable(f"containerd ended {service}/{method} without an answer")
        return answer

    async def _short(
        self,
        service: str,
        method: str,
        request: Message,
        response: type[R],
        lease: str,
        timeout: float | None,  # noqa: ASYNC109
    ) -> R:
        """The same by the connection for short calls. :raise Declined: it does not fit there."""
        data = request.SerializeToString()
        connection = self.link.usable() or await self.link.lean()
        answer = await connection.call(_block(f"/{service}/{method}", self.namespace, lease), data, timeout)
        return response.FromString(answer)

    async def stream(
        self, service: str, method: str, request: Message, response: type[R], options: Options
    ) -> AsyncGenerator[R, None]:
        """One message there, any number back; who stops early closes it (:class:`contextlib.aclosing`). Errors as of :meth:`unary`."""
        async with self._open(service, method, Cardinality.UNARY_STREAM, type(request), response, options) as stream:
            await stream.send_message(request, end=True)
            while (answer := await stream.recv_message()) is not None:
                yield answer

    @asynccontextmanager
    async def exchange(
        self, service: str, method: str, request: type[Q], response: type[R], options: Options
    ) -> AsyncIterator[Exchange[Q, R]]:
        """Any number of messages in both directions. Errors as of :meth:`unary`, from within the block."""
        async with self._open(service, method, Cardinality.STREAM_STREAM, request, response, options) as stream:
            yield Exchange(stream)

    @asynccontextmanager
    async def _open(
        self,
        service: str,
        method: str,
        cardinality: Cardinality,
        request: type[Q],
        response: type[R],
        options: Options,
    ) -> AsyncIterator[Stream[Q, R]]:
        timeout = options.get("timeout", TIMEOUT)
        metadata = {"containerd-namespace": self.namespace}
        if options.get("lease"):
            metadata["containerd-lease"] = options["lease"]
        path = f"/{service}/{method}"
        with self.link.translated(f"{service.rpartition('.')[2]}/{method}", timeout):
            channel = self.link.channel()
            async with channel.request(
                path, cardinality, request, response, timeout=timeout, metadata=metadata
            ) as stream:
                yield stream
