"""One accepted connection: what of its requests has come, what waits for an answer, what waits to be written."""

from __future__ import annotations

import socket
import time
from typing import Final

from unikeel.keeper.frames import REQUEST, Cutter, head_of
from unikeel.keeper.journal import CHUNK, Journal
from unikeel.keeper.wire import Json

_WRITE: Final = 256 * 1024


class Pending:
    """A frame on its way to the daemon; if it is a request, it is kept until it is answered."""

    __slots__ = ("deaths", "frame", "parked", "received", "sent", "stream")

    def __init__(self, frame: bytes, received: int) -> None:
        self.frame = frame
        self.stream = head_of(frame).stream
        #: When it came, on the monotonic clock, in nanoseconds.
        self.received = received
        #: How often it has been handed to a daemon, and how many of those died over it.
        self.sent = 0
        self.deaths = 0
        #: Whether it only waits: a daemon's death is not counted against it.
        self.parked = False


class Peer:
    """A connection and its state, which is also in its journal where there is one."""

    def __init__(self, number: int, listener: str, sock: socket.socket, journal: Journal | None) -> None:
        self.number = number
        self.listener = listener
        self.socket = sock
        self.journal = journal
        self.cutter = Cutter()
        self.pending: dict[int, Pending] = {}
        self.output = bytearray()
        #: Whether its other end writes no more; whether it is closed once all is written.
        self.half = False
        self.closing = False
        #: Whether it is read from now; whether the frame that it is in may be completed, however much is buffered.
        self.reading = True
        self.granted = False
        #: How many bytes it was last counted with.
        self.counted = 0

    @property
    def size(self) -> int:
        """How many bytes are buffered for it, or promised."""
        partial = self.cutter.reserved if self.granted else len(self.cutter.buffer)
        return partial + len(self.output) + sum(len(pending.frame) for pending in self.pending.values())

    def receive(self) -> bytes:
        """Some bytes; none at the end. :raise OSError: as ``recv``."""
        if self.journal is None:
            return self.socket.recv(CHUNK)
        if self.journal.behind:
            self.commit()
        return self.journal.receive(0, self.socket)

    def take(self, data: bytes) -> tuple[list[Pending], list[int]]:
        """Cut what came: the frames to be forwarded, and the streams of requests that are too long."""
        frames, refused = self.cutter.feed(data)
        now = time.monotonic_ns()
        taken = [Pending(frame, now) for frame in frames]
        for pending in taken:
            if head_of(pending.frame).kind == REQUEST:
                self.pending.setdefault(pending.stream, pending)
        return taken, refused

    def flush(self) -> None:
        """Write what can be written without waiting. :raise OSError: the other end is gone."""
        while self.output:
            data = bytes(self.output[:_WRITE])
            try:
                if self.journal is None:
                    sent = self.socket.send(data, socket.MSG_NOSIGNAL)
                else:
                    if self.journal.behind:
                        self.commit()
                    sent = self.journal.send(0, self.socket, data)
            except BlockingIOError:
                return
            del self.output[:sent]

    # -- across a keeper's death -----------------------------------------------------------------------------------

    def commit(self) -> None:
        """Write the state down, where there is a journal."""
        if self.journal is None:
            return
        kept: list[Json] = [
            [pending.received, pending.sent, pending.deaths, pending.parked] for pending in self.pending.values()
        ]
        values: dict[str, Json] = {
            "number": self.number,
            "listener": self.listener,
            "half": self.half,
            "closing": self.closing,
            "skip": self.cutter.skip,
            "pending": kept,
        }
        frames = [pending.frame for pending in self.pending.values()]
        self.journal.commit(values, [bytes(self.cutter.buffer), bytes(self.output), *frames])

    @classmethod
    def recover(cls, sock: socket.socket, journal: Journal) -> tuple[Peer, list[int]]:
        """The connection of a keeper that was killed, and requests that are too long. :raise ValueError: too little was kept."""
        values, (partial, output, *frames) = journal.recover()
        kept = values["pending"]
        if not isinstance(kept, list) or len(kept) != len(frames):
            raise ValueError("what the service manager kept of a connection is damaged")
        peer = cls(int(str(values["number"])), str(values["listener"]), sock, journal)
        peer.half, peer.closing = values["half"] is True, values["closing"] is True
        peer.cutter.buffer += partial
        peer.cutter.skip = int(str(values["skip"]))
        for frame, numbers in zip(frames, kept, strict=True):
            if not isinstance(numbers, list) or len(numbers) != 4:
                raise ValueError("what the service manager kept of a request is damaged")
            pending = Pending(frame, int(str(numbers[0])))
            pending.sent = max(1, int(str(numbers[1])))  # it may have been handed over without that being noted
            pending.deaths, pending.parked = int(str(numbers[2])), numbers[3] is True
            peer.pending[pending.stream] = pending
        incoming, sent = journal.unseen(0)
        peer.output += output[sent:]
        _, refused = peer.take(incoming)
        peer.commit()
        return peer, refused

    def close(self) -> None:
        """Close the connection and its journal."""
        self.socket.close()
        if self.journal is not None:
            self.journal.close()
