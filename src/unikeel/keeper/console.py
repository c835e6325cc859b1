"""A guest's console as the keeper has it: a connection to a socket that the monitor listens on, or two fifos that are the monitor's standard streams.

The monitor has both fifos open for reading and writing, so that it neither gets a broken pipe nor an end of input when the keeper is killed; what it
prints meanwhile waits in the fifo, and the next keeper opens them again.
"""

from __future__ import annotations

import os
import stat

from unikeel.keeper.wire import short_path
from unikeel.lean import Protocol, socket

#: The fifo of what the guest prints, and of what is typed, in the monitor's directory.
OUTPUT = "console.out"
INPUT = "console.in"


class Console(Protocol):
    """What the keeper does with a console; a socket can do it."""

    def fileno(self) -> int:
        """The descriptor to wait for output on."""

    def recv(self, size: int, /) -> bytes:
        """Some output; empty at its end. :raise BlockingIOError: none is there."""

    def send(self, data: bytes | bytearray, flags: int = 0, /) -> int:
        """Give it input; how many bytes it took. :raise BlockingIOError: it takes none now."""

    def close(self) -> None:
        """Let go of it. Closing twice is fine."""


class Fifos:
    """The two fifos in a monitor's directory."""

    def __init__(self, directory: str) -> None:
        """:raise OSError: they cannot be opened, or nobody has the guest's end of the input."""
        self._output = _open(directory, OUTPUT, os.O_RDONLY)
        try:
            self._input = _open(directory, INPUT, os.O_WRONLY)
        except BaseException:
            os.close(self._output)
            raise

    def fileno(self) -> int:
        """The output's descriptor; -1 once closed."""
        return self._output

    def input_fileno(self) -> int:
        """The input's descriptor; -1 once closed."""
        return self._input

    def recv(self, size: int, /) -> bytes:
        """See :class:`Console`."""
        return os.read(self._output, size)

    def send(self, data: bytes | bytearray, flags: int = 0, /) -> int:
        """See :class:`Console`. SIGPIPE is ignored by the keeper's process."""
        del flags
        return os.write(self._input, data)

    def close(self) -> None:
        """See :class:`Console`."""
        for fd in (self._output, self._input):
            if fd >= 0:
                os.close(fd)
        self._output = self._input = -1


def connect(path: str) -> Console:
    """The console at a path: a listening socket (which may be before the monitor runs: the backlog takes us), or the fifo of the output.

    :raise OSError: it cannot be reached.
    """
    try:
        is_fifo = stat.S_ISFIFO(os.lstat(path).st_mode)
    except FileNotFoundError:
        is_fifo = False  # connecting says better what is wrong
    if is_fifo:
        return Fifos(os.path.dirname(path))
    console = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        with short_path(*os.path.split(path)) as short:
            console.connect(short)
    except OSError:
        console.close()
        raise
    return console


def input_of(console: Console) -> int:
    """The descriptor that input is written to."""
    return console.input_fileno() if isinstance(console, Fifos) else console.fileno()


def _open(directory: str, name: str, how: int) -> int:
    fd = os.open(os.path.join(directory, name), how | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        os.close(fd)
        raise ValueError(f"{name} is no fifo")
    return fd
