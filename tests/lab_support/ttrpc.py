"""Speaking to the task socket byte by byte, as no client of containerd would.

The frames are made here, not by the package's own code, which is what is tested.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from google.protobuf.message import Message

from lab_support.waiting import PATIENCE
from lab_support.world import World
from unikeel.containerd.wire import task_pb2, ttrpc_pb2

_HEADER: Final = struct.Struct(">IIBB")
SERVICE: Final = "containerd.task.v2.Task"
_sockets: dict[World, str] = {}


class Answer(NamedTuple):
    """A response: ``code`` is gRPC's, 0 is success."""

    stream: int
    code: int
    message: str
    payload: bytes


def socket_path(world: World) -> str:
    """The task socket of the lab's containerd and its namespace ``default``, as this process sees it."""
    if world not in _sockets:
        ident = "asks-for-the-socket"
        world.detached(ident, "wait")
        address = world.lab.get(f"/run/containerd/io.containerd.runtime.v2.task/default/{ident}/address").decode()
        _sockets[world] = address.strip().removeprefix("unix://")
        world.remove(ident)
    return world.lab.path(_sockets[world])


@contextmanager
def connected(world: World) -> Iterator[socket.socket]:
    """A connection to it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(PATIENCE)
        peer.connect(socket_path(world))
        yield peer


def frame(body: bytes, *, stream: int = 1, kind: int = 1, flags: int = 0, length: int | None = None) -> bytes:
    """A frame. :param length: what the header says, if not the truth."""
    return _HEADER.pack(len(body) if length is None else length, stream, kind, flags) + body


def request(
    method: str,
    message: Message,
    *,
    stream: int = 1,
    service: str = SERVICE,
    namespace: str = "default",
    seconds: float = 0,
) -> bytes:
    """A whole request."""
    metadata = [ttrpc_pb2.KeyValue(key="containerd-namespace-ttrpc", value=namespace)]
    body = ttrpc_pb2.Request(
        service=service,
        method=method,
        payload=message.SerializeToString(),
        metadata=metadata,
        timeout_nano=int(seconds * 1e9),
    )
    return frame(body.SerializeToString(), stream=stream)


def state_request(ident: str, *, stream: int = 1) -> bytes:
    """The question for a task's state."""
    return request("State", task_pb2.StateRequest(id=ident), stream=stream)


def answer(peer: socket.socket) -> Answer:
    """The next response. It fails if the peer hangs up."""
    length, stream, kind, _ = _HEADER.unpack(_exactly(peer, _HEADER.size))
    body = _exactly(peer, length)
    assert kind == 2, f"a frame of kind {kind} came instead of a response"
    response = ttrpc_pb2.Response.FromString(body)
    return Answer(stream, response.status.code, response.status.message, response.payload)


def ask(world: World, method: str, message: Message, **options: str) -> Answer:
    """One call over a connection of its own. ``options`` are those of :func:`request`."""
    with connected(world) as peer:
        peer.sendall(
            request(
                method, message, service=options.get("service", SERVICE), namespace=options.get("namespace", "default")
            )
        )
        return answer(peer)


def _exactly(peer: socket.socket, length: int) -> bytes:
    found = b""
    while len(found) < length:
        data = peer.recv(length - len(found))
        assert data, "the connection was closed in place of an answer"
        found += data
    return found
