"""A task's standard streams: fifos, files and pipes whose other ends belong to whoever started it.

What the guest prints is written as far as the reader takes it and kept beyond, up to a bound; then the guest is not read from until there is room. A
sink outlives its monitor until all is written, or until it is told to close. What is typed is never lost: while the console takes no more, the fifo is
not read from.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence
from typing import Final

from unikeel.keeper.console import Console
from unikeel.keeper.loop import Loop, say

#: So much of what was printed is kept for a reader that does not read; so much of what was typed for a guest that does not.
SINK_MAX: Final = 256 * 1024
INPUT_MAX: Final = 64 * 1024
#: In this order their descriptors come.
NAMES: Final = ("stdin", "stdout", "stderr")
_WRITE: Final = 64 * 1024


def _nothing() -> None:
    return


class Sink:
    """Where a stream goes. ``changed`` is called when there is room again, and when it is closed. The descriptor is ours."""

    def __init__(self, loop: Loop, fd: int) -> None:
        self._loop = loop
        self._fd = fd
        self._buffer = bytearray()
        self._ending = False
        self._broken = False
        self.changed: Callable[[], None] = _nothing
        #: Called once it is closed.
        self.gone: Callable[[], None] = _nothing
        os.set_blocking(fd, False)
        try:
            loop.add(fd, self._hung, self._ready, read=False)
        except PermissionError:
            return  # a file: it never makes anybody wait

    @property
    def full(self) -> bool:
        """Whether its reader is too far behind."""
        return len(self._buffer) >= SINK_MAX

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._fd < 0

    def write(self, data: bytes) -> None:
        """Write, and keep what is not taken. After it was closed, or where nobody can read it any more: nothing."""
        if self._fd < 0 or self._broken:
            return
        self._buffer += data
        if len(self._buffer) == len(data):
            self._write()

    def _hung(self) -> None:
        """Nobody can read it any more."""
        if self._buffer:
            self._ready()
        else:
            self._break()

    def _ready(self) -> None:
        """There is room."""
        was_full = self.full
        self._write()
        if was_full and not self.full:
            self.changed()

    def _write(self) -> None:
        try:
            while self._buffer:
                del self._buffer[: os.write(self._fd, self._buffer[:_WRITE])]
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.EPIPE:
                say(f"what a guest prints is lost from here on: {error}")
            self._break()
            return
        self._loop.want(self._fd, read=False, write=bool(self._buffer))
        if self._ending and not self._buffer:
            self.close()

    def _break(self) -> None:
        self._broken = True
        self._buffer.clear()
        self._loop.forget(self._fd)
        if self._ending:
            self.close()

    def finish(self) -> None:
        """Nothing more comes: close as soon as all is written."""
        self._ending = True
        if not self._buffer:
            self.close()

    def close(self) -> None:
        """Write what fits, and close. Closing twice is fine."""
        if self._fd < 0:
            return
        self._ending = False
        if self._buffer:
            self._write()
        self._loop.forget(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._buffer.clear()
        self.gone()
        self.changed()


class Input:
    """Where a guest's input comes from; :meth:`connect` says where it goes. ``changed``: whether it waits for the console is another now."""

    def __init__(self, loop: Loop, fd: int) -> None:
        self._loop = loop
        self._fd = fd
        self._console: Console | None = None
        self._buffer = bytearray()
        self._closing = False
        #: A file, which is always ready.
        self._direct = False
        self.changed: Callable[[], None] = _nothing
        #: Called once it is closed.
        self.gone: Callable[[], None] = _nothing
        os.set_blocking(fd, False)
        try:
            loop.add(fd, self._ready, read=False)
        except PermissionError:
            self._direct = True

    @property
    def waiting(self) -> bool:
        """Whether there is something that the console has not taken yet."""
        return bool(self._buffer)

    def connect(self, console: Console) -> None:
        """From now on it goes there."""
        self._console = console
        self._interest()
        self._pump()

    def _interest(self) -> None:
        if self._fd >= 0 and not self._direct:
            self._loop.want(self._fd, read=self._console is not None and len(self._buffer) < INPUT_MAX, write=False)

    def _ready(self) -> None:
        """It can be read from, or all its writers are gone while it is not read from: that will be seen by reading."""
        if len(self._buffer) >= INPUT_MAX or self._console is None:
            self._loop.forget(self._fd)
            self._direct = True
            return
        self._read()
        self.flush()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, INPUT_MAX - len(self._buffer))
        except BlockingIOError:
            if self._closing:
                self._end()
            elif self._direct:  # somebody writes again
                self._direct = False
                self._loop.add(self._fd, self._ready)
            return
        except OSError:
            data = b""
        self._buffer += data
        if not data:
            self._end()

    def _pump(self) -> None:
        """Read what need not be waited for, as far as there is room for it."""
        while (self._direct or self._closing) and self._fd >= 0 and self._console and len(self._buffer) < INPUT_MAX:
            self._read()
            if not self._write():
                break

    def flush(self) -> None:
        """The console may take more."""
        if self._write():
            self._pump()
        self._interest()
        self.changed()

    def _write(self) -> bool:
        """Whether the console has taken all."""
        try:
            while self._buffer and self._console is not None:
                del self._buffer[: self._console.send(self._buffer[:_WRITE], socket.MSG_NOSIGNAL)]
        except BlockingIOError:
            return False
        except OSError:
            self._buffer.clear()
            self._console = None
            self._end()
        return not self._buffer

    def finish(self) -> None:
        """Whoever typed has closed it: what is in it still goes to the console, and then nothing more."""
        self._closing = True
        self.flush()

    def _end(self) -> None:
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1
            self.gone()

    def close(self) -> None:
        """The console is gone. Closing twice is fine."""
        self._end()
        self._console = None
        self._buffer.clear()


class Stdio:
    """The streams of one task. ``done`` is called once every sink is closed."""

    def __init__(self, loop: Loop, names: Sequence[str], fds: Sequence[int], done: Callable[[], None]) -> None:
        """Copies of these descriptors, one for each name. :raise ValueError: the names are others than there are."""
        if [name for name in NAMES if name in names] != list(names) or len(fds) != len(names):
            raise ValueError("stdio names stdin, stdout and stderr, in this order, with a descriptor for each")
        given = dict(zip(names, fds, strict=True))
        self.stdin = Input(loop, os.dup(given["stdin"])) if "stdin" in given else None
        self.stdout = Sink(loop, os.dup(given["stdout"])) if "stdout" in given else None
        self.stderr = Sink(loop, os.dup(given["stderr"])) if "stderr" in given else None
        self._done = done

    def _sinks(self) -> list[Sink]:
        return [sink for sink in (self.stdout, self.stderr) if sink is not None]

    def finish(self) -> None:
        """The guest has ended: its output is written as far as it is read, then closed."""
        if self.stdin is not None:
            self.stdin.close()
        for sink in self._sinks():
            sink.changed = self._see
        for sink in self._sinks():
            sink.finish()
        self._see()

    def _see(self) -> None:
        if all(sink.closed for sink in self._sinks()):
            self._done()

    def close(self) -> None:
        """Write what fits, and close all. Closing twice is fine."""
        if self.stdin is not None:
            self.stdin.close()
        for sink in self._sinks():
            sink.changed = _nothing
            sink.close()
        self._done()
