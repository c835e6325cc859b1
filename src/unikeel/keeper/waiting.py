"""Clients of the snapshotter that come while no daemon takes them: they are greeted here, and wait for the next one.

containerd gives a gRPC server one second from connecting to its first frame, then the call fails (its connections to proxy plugins have no least time
to connect, so that the first pause between two attempts counts); a daemon may take longer to start. What a server begins with is SETTINGS (RFC 9113,
3.4), which may be empty; those that the daemon sends when it takes a connection over change them, as settings may at any time (6.5). Nothing that the
client sends is read here.
"""

from __future__ import annotations

import socket
import time
from typing import Final

from unikeel.keeper.failpoint import failpoint
from unikeel.keeper.listeners import Listeners
from unikeel.keeper.loop import Loop
from unikeel.keeper.wire import MAX_FDS

#: SETTINGS that say nothing.
_GREETING: Final = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
#: Connections that may wait; who comes then is sent away.
_MOST: Final = 256
#: Seconds that one may wait.
_LONGEST: Final = 60.0


class _Client:
    """A connection to the socket of this name, and when it is sent away."""

    def __init__(self, name: str, sock: socket.socket) -> None:
        self.name = name
        self.socket = sock
        self.until = time.monotonic() + _LONGEST


class Waiting:
    """All of them, in the order in which they came; and which sockets are lent to the daemon."""

    def __init__(self, loop: Loop, listeners: Listeners) -> None:
        self._loop = loop
        self._listeners = listeners
        self._clients: list[_Client] = []

    def __len__(self) -> int:
        return len(self._clients)

    def accepted(self, name: str, sock: socket.socket) -> None:
        """Somebody has connected to the socket of this name."""
        failpoint("keeper.waiting.accepted")
        if len(self._clients) >= _MOST:
            sock.close()
            return
        try:
            sock.send(_GREETING, socket.MSG_NOSIGNAL)
        except OSError:  # it has left again
            sock.close()
            return
        client = _Client(name, sock)
        self._clients.append(client)
        self._loop.add(sock.fileno(), lambda: self._drop([client]), read=False)

    def some(self, name: str) -> list[socket.socket]:
        """The first ones of those at this socket, as many as a message takes; they stay ours until :meth:`given`."""
        return [client.socket for client in self._clients if client.name == name][:MAX_FDS]

    def given(self, socks: list[socket.socket]) -> None:
        """The daemon has copies of these: they are none of our business any more."""
        failpoint("keeper.waiting.given")
        self._drop([client for client in self._clients if client.socket in socks])

    def serving(self) -> None:
        """The daemon serves: who waits at a socket that it has not borrowed is sent away, and nobody is taken there any more."""
        lent = self._listeners.settle()
        self._drop([client for client in self._clients if client.name not in lent])

    def gone(self, *, in_order: bool) -> None:
        """The daemon has ended. Unless it was told to, the next one is waited for here; else that is another keeper's to do."""
        if not in_order:
            self._listeners.take_back()

    def stop(self) -> None:
        """Who comes from now on waits in the socket's queue."""
        self._listeners.settle()

    def _drop(self, clients: list[_Client]) -> None:
        self._clients = [client for client in self._clients if client not in clients]
        for client in clients:
            self._loop.forget(client.socket.fileno())
            client.socket.close()

    def due(self) -> float | None:
        """When :meth:`tick` is to be called next, on the monotonic clock."""
        return self._clients[0].until if self._clients else None

    def tick(self, now: float) -> None:
        """Send away who has waited for too long."""
        self._drop([client for client in self._clients if now >= client.until])
