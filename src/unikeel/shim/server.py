"""A ttrpc server: services of coroutines, for connections that somebody holds for us (the keeper) or for a socket of its own.

Rules of the protocol that show here (containerd/ttrpc, PROTOCOL.md): clients number streams with odd, increasing
numbers; requests are handled independently of each other and answered in any order; the time-out in a request is
relative; nobody tells that a call was given up. Status codes are gRPC's. There is no limit on streams in the protocol;
:data:`STREAMS` is ours.

Nothing that a peer sends ends the server or another peer's calls. What goes wrong is answered on its stream with a
sentence; what cannot be answered (data frames, kinds of frames that do not exist, halves) is passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from unikeel.containerd.wire import ttrpc_pb2
from unikeel.deadlines import Deadlines
from unikeel.eager import begun
from unikeel.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
    UnikeelError,
    Unimplemented,
    mapping,
)
from unikeel.shim import frames
from unikeel.values import NamedTuple

#: How many requests of one connection may be unanswered at a time.
STREAMS: Final = 1024
#: The metadata that carries the namespace.
NAMESPACE: Final = "containerd-namespace-ttrpc"

M = TypeVar("M", bound=Message)

_LOG = logging.getLogger("unikeel.shim")
_CREDENTIALS: Final = struct.Struct("iII")
_TRUSTED: Final = (0, os.geteuid())
#: No stream is answered with more text than this: an error's sentence may repeat what the peer sent.
_LONGEST_SENTENCE: Final = 8 << 10


class Call(NamedTuple):
    """What a handler gets to know about a request, beside its message.

    ``deadline`` is a time of the event loop's clock. ``attempt`` is not 0 if an earlier process of the daemon may have
    seen the request already. ``park()`` says that the request only waits from here on.
    """

    connection: int
    stream: int
    listener: str
    namespace: str
    metadata: Mapping[str, str]
    deadline: float | None
    attempt: int
    park: Callable[[], None]


class Method(NamedTuple):
    """A method of a service: what its request is, and who answers it: ``await handle(call, request)`` is the response."""

    request: type[Message]
    handle: Callable[..., Awaitable[Message]]


def _nothing(_connection: int, _stream: int) -> None:
    pass


class Server:
    """The services, by name, and their methods, by name.

    :param services: full name of the service -> name of the method -> :class:`Method`.
    """

    def __init__(self, services: Mapping[str, Mapping[str, Method]]) -> None:
        self._services = services

    def open(
        self,
        number: int,
        listener: str,
        send: Callable[[bytes], None],
        park: Callable[[int, int], None] = _nothing,
    ) -> ServerConnection:
        """Begin to serve a connection.

        :param number: the connection's number, for :attr:`Call.connection` and ``park``.
        :param listener: the name of the socket that it came in by.
        :param send: writes one whole frame; it neither waits nor fails.
        :param park: is called with connection and stream when a handler parks its request.
        """
        return ServerConnection(self, number, listener, send, park)

    def method(self, service: str, name: str) -> Method:
        """A method of a service.

        :raise Unimplemented: there is none.
        """
        methods = self._services.get(service)
        if methods is None:
            raise Unimplemented(f"there is no service {service[:200]!r} here")
        found = methods.get(name)
        if found is None:
            raise Unimplemented(f"the service {service} has no method {name[:200]!r}")
        return found


class ServerConnection:
    """One connection: takes its frames, runs what they ask for, and sends the answers. Made by :meth:`Server.open`."""

    def __init__(
        self,
        server: Server,
        number: int,
        listener: str,
        send: Callable[[bytes], None],
        park: Callable[[int, int], None],
    ) -> None:
        self._server = server
        self._number = number
        self.listener = listener
        self._send = send
        self._park = park
        self._last = 0
        #: The tasks that answer, by stream.
        self._running: dict[int, asyncio.Task[None] | None] = {}
        self._deadlines = Deadlines()
        self._closed = False

    def frame(self, frame: bytes, age_ns: int = 0, attempt: int = 0) -> None:
        """Take one whole frame, header included (of one over the limit, the header alone will do).

        :param age_ns: for how long it has lain somewhere: that much of its time-out is gone.
        :param attempt: how many processes had it before us.
        """
        found = frames.unpack(frame)
        if self._closed or found is None or (found.kind != frames.REQUEST and found.body is not None):
            return
        try:
            self._request(found, age_ns, attempt)
        except UnikeelError as error:
            self._fail(found.stream, error)

    def close(self) -> None:
        """The peer is gone: its calls are cancelled, and nothing is sent any more."""
        self._closed = True
        self._deadlines.clear()
        running, self._running = self._running, {}
        for task in running.values():
            if task is not None:
                task.cancel()

    def _request(self, frame: frames.Frame, age_ns: int, attempt: int) -> None:
        if frame.body is None:
            raise ResourceExhausted(f"a message of {frame.length} bytes is more than ttrpc's limit of {frames.LARGEST}")
        if frame.stream % 2 != 1:
            raise InvalidArgument(f"the stream {frame.stream} is not odd, as those of clients are")
        if frame.stream <= self._last:
            raise InvalidArgument(f"the stream {frame.stream} comes after {self._last}; numbers must increase")
        self._last = frame.stream
        if len(self._running) >= STREAMS:
            raise ResourceExhausted(f"{STREAMS} requests of this connection are unanswered", "wait for some of them")
        request = _parsed(ttrpc_pb2.Request, frame.body, "request")
        method = self._server.method(request.service, request.method)
        try:
            message = method.request.FromString(request.payload)
        except DecodeError:
            raise InvalidArgument(
                f"the request of {f'{request.service}/{request.method}'[:200]} is malformed"
            ) from None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (request.timeout_nano - age_ns) / 1e9 if request.timeout_nano > 0 else None
        if deadline is not None and deadline <= loop.time():
            raise _late(request)
        metadata = _metadata(request)
        call = Call(
            connection=self._number,
            stream=frame.stream,
            listener=self.listener,
            namespace=metadata.get(NAMESPACE, ""),
            metadata=metadata,
            deadline=deadline,
            attempt=attempt,
            park=lambda: self._park(self._number, frame.stream),
        )
        self._run(call, method, message, request)

    def _run(self, call: Call, method: Method, message: Message, request: ttrpc_pb2.Request) -> None:
        stream = call.stream
        self._running[stream] = None
        task = begun(self._answer(call, method, message))  # most handlers end without waiting
        if stream in self._running:
            self._running[stream] = task
            if call.deadline is not None:
                self._deadlines.add(stream, call.deadline, partial(self._expire, stream, request))

    async def _answer(self, call: Call, method: Method, message: Message) -> None:
        """Run a handler, and send what comes of it."""
        try:
            answer = await method.handle(call, message)
            frame = _response(call.stream, ttrpc_pb2.Response(payload=answer.SerializeToString()))
        except UnikeelError as error:
            frame = _failure(call.stream, error)
        except asyncio.CancelledError:
            frame = _failure(call.stream, Unavailable("the call was cancelled"), code=1)
        except Exception:  # noqa: BLE001 - whatever it is, it ends this call and nothing else
            _LOG.exception("%s failed on %r", getattr(method.handle, "__qualname__", "a handler"), self.listener)
            frame = _failure(
                call.stream, Internal("unikeel made a mistake here; its log says which", "please report it")
            )
        self._finish(call.stream, frame)

    def _expire(self, stream: int, request: ttrpc_pb2.Request) -> None:
        task = self._running.get(stream)
        if task is not None:
            self._finish(stream, _failure(stream, _late(request)))
            task.cancel()

    def _fail(self, stream: int, error: UnikeelError) -> None:
        self._send(_failure(stream, error))

    def _finish(self, stream: int, frame: bytes) -> None:
        """Send a stream's answer, if it has none yet and somebody is there."""
        if stream in self._running:
            del self._running[stream]
            self._deadlines.remove(stream)
            self._send(frame)


def _parsed(kind: type[M], data: bytes, what: str) -> M:
    try:
        return kind.FromString(data)
    except DecodeError:
        raise InvalidArgument(f"the {what[:200]} is malformed") from None


def _metadata(request: ttrpc_pb2.Request) -> dict[str, str]:
    """The metadata by key; of a key that comes more than once, the first value."""
    found: dict[str, str] = {}
    for pair in request.metadata:
        found.setdefault(pair.key.lower(), pair.value)
    return found


def _late(request: ttrpc_pb2.Request) -> DeadlineExceeded:
    seconds = request.timeout_nano / 1e9
    return DeadlineExceeded(f"{request.service}/{request.method} was not done within {seconds:g} s")


def _response(stream: int, response: ttrpc_pb2.Response) -> bytes:
    return frames.pack(stream, frames.RESPONSE, response.SerializeToString())


def _failure(stream: int, error: UnikeelError, code: int = 0) -> bytes:
    status = ttrpc_pb2.Status(code=code or mapping(error).rpc, message=_sentence(str(error)))
    return _response(stream, ttrpc_pb2.Response(status=status))


def _sentence(text: str) -> str:
    """Text as protobuf takes it: no halves of surrogates, and not too long."""
    return text[:_LONGEST_SENTENCE].encode("utf-8", "replace").decode("utf-8")


async def serve(server: Server, path: str, listener: str = "task") -> asyncio.Server:
    """Serve on a socket of one's own, mode 0600, where a stale one may lie. Only root and our own user are let in.

    :raise Unavailable: the socket cannot be made.
    """
    numbers = itertools.count(1)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        before = os.umask(0o177)
        try:
            listening.bind(path)
        finally:
            os.umask(before)
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(lambda: _Accepted(server, next(numbers), listener), sock=listening)
    except OSError as error:
        listening.close()
        raise Unavailable(f"cannot listen at {path}: {error.strerror or error}") from error


class _Accepted(asyncio.Protocol):
    """A connection to a socket of :func:`serve`."""

    def __init__(self, server: Server, number: int, listener: str) -> None:
        self._server = server
        self._number = number
        self._listener = listener
        self._cutter = frames.Cutter()
        self._transport: asyncio.Transport | None = None
        self._connection: ServerConnection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the peer in, or not."""
        assert isinstance(transport, asyncio.Transport)
        peer = transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(peer)
        if uid not in _TRUSTED:
            _LOG.warning("user %d was not let in at %s", uid, self._listener)
            transport.abort()
            return
        self._transport = transport
        self._connection = self._server.open(self._number, self._listener, transport.write)

    def data_received(self, data: bytes) -> None:
        """Bytes came in."""
        if self._connection is not None:
            for frame in self._cutter.feed(data):
                self._connection.frame(frame)

    def pause_writing(self) -> None:
        """The peer does not read its answers: it gets no more of them before it does."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, _error: Exception | None) -> None:
        """The peer is gone."""
        if self._connection is not None:
            self._connection.close()
