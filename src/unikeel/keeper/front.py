"""Between containerd's connections and the daemon: whole frames to the one, answers to the others, and neither waits for the other.

A request is kept until it is answered. When a daemon has died, the next one gets all of them again as soon as it serves; one over which two have died
is answered here. Nothing is sent to a daemon that does not serve yet, so that one that fails to start costs no request.
"""

from __future__ import annotations

import os
import socket
from typing import Final

from unikeel.keeper.failpoint import failpoint
from unikeel.keeper.frames import HEADER, INTERNAL, MAX_BODY, RESOURCE_EXHAUSTED, RESPONSE, head_of, refusal
from unikeel.keeper.journal import Journal
from unikeel.keeper.link import Link
from unikeel.keeper.loop import Loop, hung_up, say
from unikeel.keeper.peer import Peer, Pending
from unikeel.keeper.systemd import STORED, Manager

#: With so many bytes buffered, no connection is read from until there are fewer.
BUFFERED_MAX: Final = 64 << 20
#: A peer that leaves so many bytes unread is given up.
UNREAD_MAX: Final = 16 << 20
#: A request may see fewer daemons die than this.
_DEATHS: Final = 2
_KILLED_TWO: Final = "two daemons ended while they did this, so it is not tried again; see daemon.log"


class Front:
    """All accepted connections, and the link to the daemon while one serves."""

    def __init__(self, loop: Loop, manager: Manager) -> None:
        self._loop = loop
        self._manager = manager
        self._peers: dict[int, Peer] = {}
        self._link: Link | None = None
        self._next = int.from_bytes(os.urandom(4), "big") << 32
        self._counted = 0
        self._waiting: dict[int, Peer] = {}
        self._granted = 0

    def __len__(self) -> int:
        return len(self._peers)

    @property
    def buffered(self) -> int:
        """How many bytes are in the keeper's memory, about."""
        return self._counted + (self._link.queued if self._link is not None else 0)

    # -- connections -----------------------------------------------------------------------------------------------

    def accepted(self, listener: str, sock: socket.socket) -> None:
        """There is a new connection."""
        failpoint("keeper.front.accepted")
        self._next += 1
        peer = Peer(self._next, listener, sock, Journal(1) if self._manager else None)
        peer.commit()
        if peer.journal is not None:
            self._manager.put(self._stored(peer, "m"), peer.journal.fd)
            self._manager.put(self._stored(peer, "s"), sock.fileno())
        failpoint("keeper.front.stored")
        self._add(peer)
        if self._link is not None:
            self._link.open(peer.number, listener)

    def restore(self, sock: socket.socket, memory: int) -> None:
        """A connection of a keeper that was killed, with its memory, which is ours now. :raise ValueError: too little was kept."""
        sock.setblocking(False)
        journal = Journal(1, memory)
        try:
            peer, refused = Peer.recover(sock, journal)
        except BaseException:
            journal.close()
            raise
        self._add(peer)
        for stream in refused:
            self._answer(peer, _too_long(stream))
        if self._peers.get(peer.number) is peer:
            self._flush(peer)

    @staticmethod
    def _stored(peer: Peer, part: str) -> str:
        return f"{STORED}.c.{peer.number:016x}.{part}"

    def _add(self, peer: Peer) -> None:
        self._peers[peer.number] = peer
        self._loop.add(
            peer.socket.fileno(), lambda: self._readable(peer), lambda: self._flush(peer), read=not peer.half
        )
        peer.reading = not peer.half
        self._count(peer)

    def _drop(self, peer: Peer, *, tell: bool = True) -> None:
        """The connection has ended, or is made to."""
        if self._peers.pop(peer.number, None) is None:
            return
        self._waiting.pop(peer.number, None)
        self._granted -= peer.granted
        self._counted -= peer.counted
        self._loop.forget(peer.socket.fileno())
        if peer.journal is not None:
            for part in "sm":
                self._manager.remove(self._stored(peer, part))
        peer.close()
        if tell and self._link is not None:
            self._link.close(peer.number, at_once=bool(peer.pending))
        self._go_on()

    def due(self) -> float | None:
        """When :meth:`tick` is to be called next."""
        return self._link.due() if self._link is not None else None

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self._link is not None:
            self._link.tick(now)

    def _readable(self, peer: Peer) -> None:
        if not peer.reading:  # it has hung up: nobody waits for an answer
            self._drop(peer)
            return
        try:
            data = peer.receive()
        except BlockingIOError:
            return
        except OSError:
            self._drop(peer)
            return
        if not data:
            self._ended(peer)
            return
        failpoint("keeper.front.received")
        taken, refused = peer.take(data)
        peer.commit()
        failpoint("keeper.front.committed")
        for pending in taken:
            self._forward(peer, pending)
        failpoint("keeper.front.forwarded")
        for stream in refused:
            self._answer(peer, _too_long(stream))
        if peer.number in self._peers:
            self._count(peer)
            self._interest(peer)

    def _ended(self, peer: Peer) -> None:
        """It writes no more. If it has only shut that direction, it gets the answers that it still waits for."""
        peer.half = True
        if hung_up(peer.socket.fileno()) or not (peer.pending or peer.output):
            self._drop(peer)
            return
        peer.commit()
        self._interest(peer)

    def _forward(self, peer: Peer, pending: Pending) -> None:
        if self._link is not None:
            self._link.frame(peer.number, pending.frame, pending.received, pending.sent)
            pending.sent += 1

    def _flush(self, peer: Peer) -> None:
        try:
            peer.flush()
        except OSError:
            self._drop(peer)
            return
        failpoint("keeper.front.sent")
        if len(peer.output) > UNREAD_MAX:
            say(f"connection {peer.number:x} reads none of its answers, and is closed")
            self._drop(peer)
        elif not peer.output and (peer.closing or (peer.half and not peer.pending)):
            self._drop(peer, tell=not peer.closing)
        else:
            self._count(peer)
            self._interest(peer)
            self._go_on()

    def _answer(self, peer: Peer, frame: bytes) -> None:
        """Write an answer, or as much of it as can be written now."""
        peer.output += frame
        peer.commit()
        failpoint("keeper.front.answered")
        self._flush(peer)

    # -- how much is buffered --------------------------------------------------------------------------------------

    def _count(self, peer: Peer) -> None:
        size = peer.size
        self._counted += size - peer.counted
        peer.counted = size

    def _interest(self, peer: Peer) -> None:
        """Read from it or not; whoever has begun a frame with room for the whole of it may complete it."""
        if peer.number not in self._peers:
            return
        partial = len(peer.cutter.buffer) > 0
        if peer.granted and not partial:
            peer.granted = False
            self._granted -= 1
            self._count(peer)
        if not peer.granted and partial and self._has_room(peer):
            peer.granted = True
            self._granted += 1
            self._count(peer)
        allowed = peer.granted or self.buffered <= BUFFERED_MAX
        if partial and not peer.granted:
            allowed = False
        peer.reading = allowed and not peer.half and not peer.closing
        if allowed:
            self._waiting.pop(peer.number, None)
        else:
            self._waiting[peer.number] = peer
        self._loop.want(peer.socket.fileno(), read=peer.reading, write=bool(peer.output))

    def _has_room(self, peer: Peer) -> bool:
        """Whether the frame that it is in fits as a whole. One peer may always go on."""
        return not self._granted or self.buffered + peer.cutter.reserved - len(peer.cutter.buffer) <= BUFFERED_MAX

    def _go_on(self) -> None:
        """There may be room again."""
        if self._waiting and (self.buffered <= BUFFERED_MAX or not self._granted):
            for peer in list(self._waiting.values()):
                self._interest(peer)

    # -- the daemon ------------------------------------------------------------------------------------------------

    def serving(self, link: Link) -> None:
        """A daemon serves: it gets every living connection, then every unanswered request in the order in which they came."""
        self._link = link
        link.written = self._go_on
        for peer in self._peers.values():
            link.open(peer.number, peer.listener)
        waiting = [(pending, peer) for peer in self._peers.values() for pending in peer.pending.values()]
        waiting.sort(key=lambda item: item[0].received)
        failpoint("keeper.front.replay")
        for pending, peer in waiting:
            self._forward(peer, pending)

    def gone(self, *, in_order: bool) -> None:
        """The daemon that served has ended. Who has seen the last of those that it may see is answered, unless it was told to end."""
        served, self._link = self._link is not None, None
        if not served or in_order:
            return
        for peer in list(self._peers.values()):
            if peer.closing:
                continue
            killers = []
            for pending in peer.pending.values():
                pending.deaths += not pending.parked
                if pending.deaths >= _DEATHS:
                    killers.append(pending.stream)
            failpoint("keeper.front.counted")
            answers = b"".join(refusal(stream, INTERNAL, _KILLED_TWO) for stream in killers)
            for stream in killers:
                del peer.pending[stream]
            if answers:
                self._answer(peer, answers)
            else:
                peer.commit()
        self._go_on()

    def said_frame(self, number: int, frame: bytes) -> None:
        """The daemon answers."""
        peer = self._peers.get(number)
        if peer is None:
            return
        head = head_of(frame)
        if head.length != len(frame) - HEADER.size:
            raise ValueError(f"the daemon sent a frame of {len(frame)} bytes that says it has {head.length}")
        if head.kind == RESPONSE:
            peer.pending.pop(head.stream, None)
        self._answer(peer, frame)

    def said_close(self, number: int) -> None:
        """The daemon wants a connection closed, once all is written."""
        peer = self._peers.get(number)
        if peer is not None:
            peer.closing = True
            peer.pending.clear()
            peer.commit()
            self._flush(peer)

    def said_park(self, number: int, stream: int) -> None:
        """A request only waits from now on."""
        peer = self._peers.get(number)
        pending = peer.pending.get(stream) if peer is not None else None
        if peer is not None and pending is not None:
            pending.parked = True
            peer.commit()


def _too_long(stream: int) -> bytes:
    return refusal(stream, RESOURCE_EXHAUSTED, f"a request may have {MAX_BODY} bytes, and this one has more")
