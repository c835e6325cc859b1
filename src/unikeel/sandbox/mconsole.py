"""User-mode Linux's management console: one datagram asks (Linux, arch/um/drivers/mconsole.h, version 2).

The socket is one that the monitor makes in its sandbox, so a guest that took its kernel over decides what lies at that path: it is opened beneath the sandbox's
own directory without following links out of it, must be a socket, and is then used by its descriptor. No answer comes: the monitor's network namespace does
not know the name that we would be answered at. What a request brought about is seen by what the guest does.
"""

from __future__ import annotations

import os
import socket
import stat
import struct

from unikeel.errors import InvalidArgument, Unavailable
from unikeel.kernel.fd import OwnedFd, link_of
from unikeel.kernel.paths import open_beneath
from unikeel.lean import Final
from unikeel.monitors.uml import DIRECTORY, NAME
from unikeel.sandbox.lines import Line

_MAGIC: Final = 0xCAFEBABE
_VERSION: Final = 2
#: The most of a request's text, with its NUL.
_TEXT: Final = 512
_HEAD: Final = struct.Struct("=III")


def encoded(command: str) -> bytes:
    """The datagram that asks for a command. :raise InvalidArgument: it is too long."""
    text = command.encode()
    if len(text) >= _TEXT:
        raise InvalidArgument(f"a request of {len(text)} bytes is too long for a management console")
    return _HEAD.pack(_MAGIC, _VERSION, len(text)) + text.ljust(_TEXT, b"\0")


def request(line: Line, command: str, seconds: float) -> None:
    """Have the monitor execute a command, such as ``cad`` (control, alt and delete at once).

    :raise Unavailable: it is gone, or has no management console.
    """
    with _open(line) as target, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
        asking.settimeout(seconds)
        try:
            asking.sendto(encoded(command), link_of(target.fileno()))
        except OSError as error:
            raise Unavailable(f"the monitor's management console: {error.strerror or error}") from None


def _open(line: Line) -> OwnedFd:
    """The socket, by a descriptor that only names it."""
    from unikeel.records.owners import start_time

    top, _, rest = DIRECTORY.removeprefix("/").partition("/")
    try:
        with OwnedFd(
            os.open(f"/proc/{line.pid}/root/{top}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        ) as root:
            if line.pid <= 1 or start_time(line.pid) != line.start_time:
                raise Unavailable("the monitor is gone")
            target = open_beneath(root.fileno(), f"{rest}/{NAME}/mconsole", os.O_PATH)
    except OSError as error:
        raise Unavailable(f"the monitor has no management console: {error.strerror}") from None
    if not stat.S_ISSOCK(os.fstat(target.fileno()).st_mode):
        target.close()
        raise Unavailable("the monitor's management console is no socket")
    return target
