"""Connections that are passed on to another shim, with requests to the old task service addressed to the new one.

containerd takes the shim of a pod's pause container for one of the old protocol by this, and has its launcher executed for the pod's other containers.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Final

from unikeel.keeper.failpoint import failpoint
from unikeel.keeper.frames import Renamer
from unikeel.keeper.journal import CHUNK, Journal
from unikeel.keeper.loop import Loop, hung_up, say
from unikeel.keeper.systemd import STORED, Manager
from unikeel.keeper.wire import short_path

_ROOM: Final = CHUNK
_CLIENT, _SHIM = 0, 1


class _End:
    """One of the two sockets: what is to be written to it, and what has ended."""

    __slots__ = ("ended", "hung", "output", "shut", "socket")

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.output = bytearray()
        #: It writes no more; its other end is closed altogether; we have told it that no more comes.
        self.ended = False
        self.hung = False
        self.shut = False


class Pair:
    """Two connections, one for each direction's source. ``done`` is called when both have ended."""

    def __init__(
        self, loop: Loop, client: socket.socket, shim: socket.socket, journal: Journal | None, done: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._ends = (_End(client), _End(shim))
        self._journal = journal
        self._done = done
        self._renamer = Renamer()
        self._closed = False

    def begin(self) -> None:
        """Pass on from now on."""
        for which in (_CLIENT, _SHIM):
            self._loop.add(
                self._ends[which].socket.fileno(),
                partial(self._readable, which),
                partial(self._flush, which),
            )
        for which in (_CLIENT, _SHIM):
            self._flush(which)

    def recover(self) -> None:
        """Go on where a keeper that was killed stopped. :raise ValueError: too little was kept."""
        assert self._journal is not None
        values, pieces = self._journal.recover()
        if len(pieces) != 3:
            raise ValueError("what the service manager kept of a relay is damaged")
        self._renamer = Renamer(pieces[2], int(str(values["left"])))
        unseen = [self._journal.unseen(which) for which in (_CLIENT, _SHIM)]
        for end, piece, (_, sent) in zip(self._ends, pieces, unseen, strict=False):
            end.output += piece[sent:]
        for which in (_CLIENT, _SHIM):
            self._ends[1 - which].output += self._translated(which, unseen[which][0])
        self.commit()

    def commit(self) -> None:
        """Write the state down, where there is a journal."""
        if self._journal is not None:
            pieces = [bytes(end.output) for end in self._ends]
            self._journal.commit({"left": self._renamer.left}, [*pieces, bytes(self._renamer.held)])

    def _translated(self, which: int, data: bytes) -> bytes:
        return self._renamer.feed(data) if which == _CLIENT else data

    def _readable(self, which: int) -> None:
        end, other = self._ends[which], self._ends[1 - which]
        if end.ended or len(other.output) >= _ROOM:  # nothing is waited for but its hanging up
            self._loop.forget(end.socket.fileno())
            end.hung = True
            end.output.clear()
            self._finish()
            return
        self._read(which)

    def _read(self, which: int) -> None:
        end, other = self._ends[which], self._ends[1 - which]
        try:
            data = self._receive(which)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            failpoint("keeper.relay.received")
            other.output += self._translated(which, data)
            self.commit()
            failpoint("keeper.relay.committed")
        else:
            end.ended = True
            end.hung = end.hung or hung_up(end.socket.fileno())
        self._flush(1 - which)

    def _receive(self, which: int) -> bytes:
        sock = self._ends[which].socket
        if self._journal is None:
            return sock.recv(CHUNK)
        if self._journal.behind:
            self.commit()
        return self._journal.receive(which, sock)

    def _send(self, which: int, data: bytes) -> int:
        sock = self._ends[which].socket
        if self._journal is None:
            return sock.send(data, socket.MSG_NOSIGNAL)
        if self._journal.behind:
            self.commit()
        return self._journal.send(which, sock, data)

    def _flush(self, which: int) -> None:
        """Write to one of them what it takes, then read on from the other."""
        end, source = self._ends[which], self._ends[1 - which]
        while not self._closed:
            try:
                while end.output:
                    del end.output[: self._send(which, bytes(end.output))]
            except BlockingIOError:
                break
            except OSError:
                self.close()
                return
            if not source.hung or source.ended:
                break
            self._read(1 - which)  # what it sent before it hung up is read without being waited for
            return
        self._finish()

    def _finish(self) -> None:
        """Tell the one that the other has ended; when nothing more can come, it is over."""
        if self._closed:
            return
        for end, source in (self._ends, self._ends[::-1]):
            if source.ended and not end.output:
                if source.hung:
                    self.close()
                    return
                if not end.shut:
                    end.shut = True
                    try:
                        end.socket.shutdown(socket.SHUT_WR)
                    except OSError:
                        self.close()
                        return
        if all(end.ended and not end.output for end in self._ends):
            self.close()
            return
        for end, other in (self._ends, self._ends[::-1]):
            room = not end.ended and len(other.output) < _ROOM
            self._loop.want(end.socket.fileno(), read=room, write=bool(end.output))

    def close(self) -> None:
        """Close both. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        for end in self._ends:
            self._loop.forget(end.socket.fileno())
            end.socket.close()
        if self._journal is not None:
            self._journal.close()
        self._done()


class Relays:
    """All connections that are passed on."""

    def __init__(self, loop: Loop, manager: Manager) -> None:
        self._loop = loop
        self._manager = manager
        self._pairs: dict[str, Pair] = {}

    def __len__(self) -> int:
        return len(self._pairs)

    def accepted(self, upstream: str, client: socket.socket) -> None:
        """Connect a new connection to where it is to go; if nobody is there, it is closed."""
        shim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            with short_path(*os.path.split(upstream)) as short:
                shim.connect(short)
        except OSError as error:
            say(f"nobody takes relayed connections at {upstream}: {error}")
            shim.close()
            client.close()
            return
        key = os.urandom(8).hex()
        journal = Journal(2) if self._manager else None
        pair = self._add(key, client, shim, journal)
        pair.commit()
        if journal is not None:
            for part, fd in (("m", journal.fd), ("s", client.fileno()), ("t", shim.fileno())):
                self._manager.put(f"{STORED}.p.{key}.{part}", fd)
        failpoint("keeper.relay.accepted")
        pair.begin()

    def restore(self, key: str, client: socket.socket, shim: socket.socket, memory: int) -> None:
        """A pair of a keeper that was killed, with its memory, which is ours now. :raise ValueError: too little was kept."""
        for sock in (client, shim):
            sock.setblocking(False)
        journal = Journal(2, memory)
        pair = self._add(key, client, shim, journal)
        try:
            pair.recover()
        except BaseException:
            pair.close()
            raise
        pair.begin()

    def _add(self, key: str, client: socket.socket, shim: socket.socket, journal: Journal | None) -> Pair:
        def done() -> None:
            del self._pairs[key]
            if journal is not None:
                for part in "tsm":
                    self._manager.remove(f"{STORED}.p.{key}.{part}")

        self._pairs[key] = pair = Pair(self._loop, client, shim, journal, done)
        return pair
