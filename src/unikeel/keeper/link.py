"""The link to the daemon: messages on a stream socket, written as far as the daemon takes them and queued beyond.

A message is a header ``>IBQ`` (length of the body, kind, connection's number) and its body. To the daemon: OPEN, FRAME (its age in nanoseconds and
which attempt it is, ``>qB``, before the frame), CLOSE. From the daemon: FRAME, CLOSE, PARK (``>I``: the stream), READY.
"""

from __future__ import annotations

import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from unikeel.keeper.frames import HEADER, MAX_BODY
from unikeel.keeper.loop import Loop, say

OPEN: Final = 1
FRAME: Final = 2
CLOSE: Final = 3
PARK: Final = 4
READY: Final = 5

_MESSAGE: Final = struct.Struct(">IBQ")
_SENT: Final = struct.Struct(">qB")
_STREAM: Final = struct.Struct(">I")
_MAX: Final = MAX_BODY + HEADER.size
_CHUNK: Final = 256 * 1024
#: So many bytes, in so many pieces, are written by one call, if there are more messages than one.
_TOGETHER: Final = 16 * 1024
_PIECES: Final = 64
#: Seconds that a message may wait for another one that cannot.
_PATIENCE: Final = 1.0


class Listener(Protocol):
    """Who is told what the daemon says."""

    def said_frame(self, number: int, frame: bytes) -> None: ...

    def said_close(self, number: int) -> None: ...

    def said_park(self, number: int, stream: int) -> None: ...

    def said_ready(self) -> None: ...


class _Queued:
    """A message that waits to be written; a frame's age is told as of the moment when it is."""

    __slots__ = ("attempt", "body", "kind", "number", "received")

    def __init__(self, kind: int, number: int, body: bytes, received: int = 0, attempt: int = 0) -> None:
        self.kind = kind
        self.number = number
        self.body = body
        self.received = received
        self.attempt = attempt

    def head(self) -> bytes:
        if self.kind != FRAME:
            return _MESSAGE.pack(len(self.body), self.kind, self.number)
        sent = _SENT.pack(max(0, time.monotonic_ns() - self.received), min(self.attempt, 255))
        return _MESSAGE.pack(len(self.body) + len(sent), FRAME, self.number) + sent


class Link:
    """Our end of the link to one daemon. ``broken`` is called once, when the daemon has closed its end or sends nonsense."""

    def __init__(self, loop: Loop, sock: socket.socket, listener: Listener, broken: Callable[[], None]) -> None:
        self._loop = loop
        self._socket = sock
        self._listener = listener
        self._broken = broken
        self._waiting: deque[_Queued] = deque()
        self._writing: list[memoryview] = []
        self._buffer = bytearray()
        self._ended = False
        #: Since when something waits that can wait, for what cannot; 0: nothing does.
        self._put_off = 0.0
        #: How many bytes of bodies wait to be written.
        self.queued = 0
        #: Told whenever some of those have been written.
        self.written: Callable[[], None] = lambda: None
        sock.setblocking(False)
        loop.add(sock.fileno(), self._readable, self._writable)

    # -- to the daemon ---------------------------------------------------------------------------------------------

    def open(self, number: int, name: str) -> None:
        """There is a connection, on the listener of that name. That can wait for its first frame: the daemon wakes once for both."""
        self._queue(_Queued(OPEN, number, name.encode()), at_once=False)

    def frame(self, number: int, frame: bytes, received: int, attempt: int) -> None:
        """A frame of a connection, received at that time of the monotonic clock; ``attempt``: how often it was sent before."""
        self._queue(_Queued(FRAME, number, frame, received, attempt))

    def close(self, number: int, *, at_once: bool = True) -> None:
        """A connection's peer is gone. :param at_once: false: nobody is at work for it, so that there is time until the next frame."""
        self._queue(_Queued(CLOSE, number, b""), at_once=at_once)

    def _queue(self, item: _Queued, *, at_once: bool = True) -> None:
        if self._ended:
            return
        self._waiting.append(item)
        self.queued += len(item.body)
        if self._writing:
            return
        if at_once:
            self._write()
        elif not self._put_off:
            self._put_off = time.monotonic()

    def due(self) -> float | None:
        """When :meth:`tick` is to write what can wait no longer."""
        return self._put_off + _PATIENCE if self._put_off else None

    def tick(self, now: float) -> None:
        """Write it, if it is time."""
        if self._put_off and now >= self._put_off + _PATIENCE and not self._writing:
            self._write()

    def _writable(self) -> None:
        self._write()
        self.written()

    def _write(self) -> None:
        while not self._ended and (self._writing or self._waiting):
            if not self._writing:
                self._take()
            try:
                sent = self._socket.sendmsg(self._writing, (), socket.MSG_NOSIGNAL)
            except BlockingIOError:
                break
            except OSError:
                self._forget_queue()  # its end is seen by reading
                break
            while self._writing and sent >= len(self._writing[0]):
                sent -= len(self._writing.pop(0))
            if self._writing and sent:
                self._writing[0] = self._writing[0][sent:]
        if self._socket.fileno() >= 0:
            self._loop.want(self._socket.fileno(), read=True, write=bool(self._writing))

    def _take(self) -> None:
        """Take what goes out together: one message, and more as long as they are short."""
        self._put_off = 0.0
        size = 0
        while self._waiting and size < _TOGETHER and len(self._writing) < _PIECES:
            item = self._waiting.popleft()
            self.queued -= len(item.body)
            size += len(item.body)
            self._writing += [memoryview(item.head()), memoryview(item.body)]

    def _forget_queue(self) -> None:
        self._ended = True
        self._put_off = 0.0
        self._waiting.clear()
        self._writing = []
        self.queued = 0

    def finish(self) -> None:
        """Nothing more is sent to the daemon; what it says is still heard."""
        self._forget_queue()
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return

    # -- from the daemon -------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._break()
            return
        self._buffer += data
        while len(self._buffer) >= _MESSAGE.size:
            length, kind, number = _MESSAGE.unpack_from(self._buffer)
            if length > _MAX:
                say(f"the daemon sent a message of {length} bytes: what it says is not read any more")
                self._break()
                return
            end = _MESSAGE.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_MESSAGE.size : end])
            del self._buffer[:end]
            self._said(kind, number, body)

    def _said(self, kind: int, number: int, body: bytes) -> None:
        if kind == FRAME:
            self._listener.said_frame(number, body)
        elif kind == CLOSE:
            self._listener.said_close(number)
        elif kind == PARK and len(body) == _STREAM.size:
            self._listener.said_park(number, _STREAM.unpack(body)[0])
        elif kind == READY:
            self._listener.said_ready()
        else:
            say(f"the daemon sent a message of kind {kind} with {len(body)} bytes, which means nothing")

    def _break(self) -> None:
        if self._socket.fileno() >= 0:
            self.shut()
            self._broken()

    def drain(self) -> None:
        """Hear to the end what a daemon said that has ended."""
        for _ in range(4096):
            if self._socket.fileno() < 0:
                return
            before = self._socket
            try:
                if not before.recv(1, socket.MSG_PEEK):
                    break
            except OSError:
                break
            self._readable()

    def shut(self) -> None:
        """Close our end. Closing twice is fine."""
        self._forget_queue()
        if self._socket.fileno() >= 0:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
