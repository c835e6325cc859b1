"""A listening unix socket, on which the snapshots service is answered over gRPC.

The socket is somebody else's (the keeper's): it is never closed for others, and the file at its path stays, so that a client which comes while
one process ends and the next begins is greeted by the keeper, and waits, instead of being refused. Only root and our own user are answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Sequence

from unikeel.lean import Final
from unikeel.snapshots.service.connection import Connection
from unikeel.snapshots.service.handlers import SnapshotsService

#: Seconds until connections are taken again after the host had no descriptor for one.
_PAUSE: Final = 0.1
_LOG: Final = logging.getLogger("unikeel.snapshots")


class _Clients:
    """The connections of one service."""

    def __init__(self, service: SnapshotsService) -> None:
        self._methods = service.methods()
        self._connections: set[Connection] = set()

    async def take(self, sock: socket.socket) -> None:
        """Serve a connected socket from now on."""
        await asyncio.get_running_loop().connect_accepted_socket(self._made, sock)

    def _made(self) -> Connection:
        self._connections = {one for one in self._connections if not one.ended}
        connection = Connection(self._methods)
        self._connections.add(connection)
        return connection

    def end(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()


class Serving:
    """Serves one socket from :meth:`begin` to :meth:`close`. ``sock`` is listening, and ours to close, as are the connections in ``waiting``."""

    def __init__(self, sock: socket.socket, service: SnapshotsService, waiting: Sequence[socket.socket] = ()) -> None:
        sock.setblocking(False)
        self._waiting = list(waiting)
        self._socket = sock
        self._clients = _Clients(service)
        self._accepting: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Take connections, those first that wait already."""
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            await self._take(self._waiting.pop(0))
        while True:
            try:
                sock, _ = await loop.sock_accept(self._socket)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                _LOG.warning("the snapshotter takes no connections for a moment: %s", error)
                await asyncio.sleep(_PAUSE)
                continue
            await self._take(sock)

    async def _take(self, sock: socket.socket) -> None:
        if not _is_trusted(sock):
            sock.close()
            return
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # it has left again
            await self._clients.take(sock)

    async def close(self) -> None:
        """Take no more connections and end those that there are; the path stays."""
        if self._accepting is not None:
            self._accepting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._accepting
            self._accepting = None
        for sock in self._waiting:
            sock.close()
        self._clients.end()
        self._socket.close()
        await asyncio.sleep(0)  # in which the event loop closes the connections


def _is_trusted(sock: socket.socket) -> bool:
    """Whether the other end was made by root or by our own user."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], sys.byteorder) in (0, os.getuid())
