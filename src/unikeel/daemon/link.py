"""The daemon's end of the link to the keeper: connections come and go, whole frames in both directions.

Message: a header ``>IBQ`` (length of the body, kind, connection), then the body. See :mod:`unikeel.keeper.link` for the other end.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import Final

from unikeel.shim.server import Server, ServerConnection

_HEADER: Final = struct.Struct(">IBQ")
_FRAME: Final = struct.Struct(">qB")
_STREAM: Final = struct.Struct(">I")
_OPEN, _FRAME_KIND, _CLOSE, _PARK, _READY = 1, 2, 3, 4, 5
#: The longest frame, its age and attempt, and a little.
_LONGEST: Final = (4 << 20) + 64


Closed = Callable[[int, str], None]


class Link(asyncio.Protocol):
    """Serves what the keeper hands over. ``closed`` is called with a connection's number and listener when its peer is gone; ``ended`` when the keeper is."""

    def __init__(self, server: Server, closed: Closed, ended: Callable[[], None]) -> None:
        self._server = server
        self._closed = closed
        self._ended = ended
        self._held = bytearray()
        self._connections: dict[int, ServerConnection] = {}
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def attach(cls, sock: socket.socket, server: Server, closed: Closed, ended: Callable[[], None]) -> Link:
        """Serve over a connected socket from now on; nothing comes before :meth:`ready`."""
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(lambda: cls(server, closed, ended), sock=sock)
        return link

    def ready(self) -> None:
        """Say that everything is in order, and requests may come."""
        self._say(_READY, 0, b"")

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    def _say(self, kind: int, number: int, body: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_HEADER.pack(len(body), kind, number) + body)

    def _park(self, number: int, stream: int) -> None:
        self._say(_PARK, number, _STREAM.pack(stream))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The link stands."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """The keeper says something."""
        held = self._held
        held += data
        at = 0
        while len(held) - at >= _HEADER.size:
            length, kind, number = _HEADER.unpack_from(held, at)
            if length > _LONGEST:
                self._abort()
                return
            end = at + _HEADER.size + length
            if len(held) < end:
                break
            body = bytes(held[at + _HEADER.size : end])
            at = end
            self._said(kind, number, body)
        del held[:at]

    def _said(self, kind: int, number: int, body: bytes) -> None:
        if kind == _OPEN:
            listener = body.decode("utf-8", "replace")
            send = partial(self._say, _FRAME_KIND, number)
            self._connections[number] = self._server.open(number, listener, send, self._park)
        elif kind == _FRAME_KIND and number in self._connections and len(body) >= _FRAME.size:
            age, attempt = _FRAME.unpack_from(body)
            self._connections[number].frame(body[_FRAME.size :], age, attempt)
        elif kind == _CLOSE:
            connection = self._connections.pop(number, None)
            if connection is not None:
                connection.close()
                self._closed(number, connection.listener)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def eof_received(self) -> bool:
        """The keeper hands nothing more over: it ends us in order. What is being answered still goes out."""
        self._ended()
        return True

    def connection_lost(self, _error: Exception | None) -> None:
        """The keeper is gone."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        self._ended()
