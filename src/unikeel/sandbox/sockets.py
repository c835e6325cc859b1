"""What a monitor inherits of its container's directory: listening unix sockets (control, the guest's console), or two fifos that are its standard streams.

Sockets are bound by us in the container's private directory and passed as descriptors, so that they can be connected to before the monitor
runs, and again by a later keeper; the monitor never sees the directory.
"""

from __future__ import annotations

import errno
import os

from unikeel.keeper.console import INPUT, OUTPUT
from unikeel.keeper.wire import short_path
from unikeel.kernel.fd import OwnedFd
from unikeel.lean import Final, socket

#: Every name that a container's directory can have of these; what a run leaves of them goes with it.
NAMES: Final = ("qmp.sock", "console.sock", "api.sock", OUTPUT, INPUT)

#: The longest path that fits an address of a unix socket, with its end.
_PATH: Final = 107


def listen(directory: str, name: str) -> socket.socket:
    """A socket listening at ``directory/name`` (mode 0600), whatever the length of the path; an old one is replaced."""
    path = os.path.join(directory, name)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        os.fchmod(sock.fileno(), 0o600)  # which the file gets when it is made
        try:
            _bind(sock, directory, name)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            os.unlink(path)
            _bind(sock, directory, name)
        sock.listen(8)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind(sock: socket.socket, directory: str, name: str) -> None:
    path = os.path.join(directory, name)
    if len(os.fsencode(path)) <= _PATH:
        sock.bind(path)
        return
    with short_path(directory, name) as short:
        sock.bind(short)


def fifo(directory: str, name: str) -> OwnedFd:
    """A new fifo at ``directory/name`` (mode 0600), open for reading and writing, so that whoever has it never meets its end; an old one is replaced."""
    path = os.path.join(directory, name)
    if os.path.lexists(path):
        os.unlink(path)
    os.mkfifo(path, 0o600)
    return OwnedFd(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW))


def console_path(directory: str) -> str:
    """What the keeper is told to connect to for the console of the monitor of this directory."""
    output = os.path.join(directory, OUTPUT)
    return output if os.path.lexists(output) else os.path.join(directory, "console.sock")
