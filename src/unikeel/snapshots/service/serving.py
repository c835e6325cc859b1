"""A listening unix socket, on which the snapshots service is answered over gRPC.

The socket is somebody else's (the keeper's): it is never closed for others, and the file at its path stays, so that a client which comes while
one process ends and the next begins waits in the queue instead of being refused. Only root and our own user are answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys

from google.protobuf.message import Message
from grpclib.const import Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError
from grpclib.protocol import H2Protocol
from grpclib.server import Server

from unikeel.lean import Final
from unikeel.snapshots.service.handlers import SnapshotsService

#: containerd's limit for a message, in bytes.
LARGEST: Final = 16 << 20
#: Seconds until connections are taken again after the host had no descriptor for one.
_PAUSE: Final = 0.1
_LOG: Final = logging.getLogger("unikeel.snapshots")


class _Codec(CodecBase):
    """protobuf, with containerd's limit on what is taken."""

    __content_subtype__ = "proto"

    def encode(self, message: Message, message_type: type[Message]) -> bytes:  # noqa: ARG002 - of the interface
        return message.SerializeToString()

    def decode(self, data: bytes, message_type: type[Message]) -> Message:
        if len(data) > LARGEST:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"a request of {len(data)} bytes is more than {LARGEST}")
        try:
            return message_type.FromString(data)
        except Exception as error:
            raise GRPCError(Status.INVALID_ARGUMENT, "the request is not what its method takes") from error


class _Server(Server):
    """grpclib's server for connections that are accepted elsewhere."""

    def __init__(self, service: SnapshotsService) -> None:
        super().__init__([service], codec=_Codec())
        self._transports: set[asyncio.BaseTransport] = set()

    async def take(self, sock: socket.socket) -> None:
        """Serve a connected socket from now on."""
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(self.protocol, sock)
        self._transports = {one for one in self._transports if not one.is_closing()}
        self._transports.add(transport)

    def protocol(self) -> H2Protocol:
        """What one connection speaks."""
        return self._protocol_factory()

    def end(self) -> None:
        """Close all connections."""
        for transport in self._transports:
            transport.close()


class Serving:
    """Serves one socket from :meth:`begin` to :meth:`close`. ``sock`` is listening, and ours to close."""

    def __init__(self, sock: socket.socket, service: SnapshotsService) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._server = _Server(service)
        self._accepting: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Take connections, those first that wait already."""
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._socket)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                _LOG.warning("the snapshotter takes no connections for a moment: %s", error)
                await asyncio.sleep(_PAUSE)
                continue
            if not _is_trusted(sock):
                sock.close()
                continue
            with contextlib.suppress(OSError):  # it has left again
                await self._server.take(sock)

    async def close(self) -> None:
        """Take no more connections and end those that there are; the path stays."""
        if self._accepting is not None:
            self._accepting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._accepting
            self._accepting = None
        self._server.end()
        self._socket.close()
        await asyncio.sleep(0)  # in which the event loop closes the connections


def _is_trusted(sock: socket.socket) -> bool:
    """Whether the other end was made by root or by our own user."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], sys.byteorder) in (0, os.getuid())
