"""What a service manager gives the keeper, if one runs it: sockets to begin with, a place to tell how it is, and a store for its descriptors.

``NOTIFY_SOCKET`` and ``LISTEN_FDS`` are systemd's; without them nothing of this happens. What is put into the store comes back through
``LISTEN_FDS`` to a keeper that is started again after it was killed. A message that the manager does not take at once waits for it.
"""

from __future__ import annotations

import array
import os
import socket
from collections import deque
from typing import Final

from unikeel.keeper.loop import Loop, say

#: How the names begin under which what is ours is kept.
STORED: Final = "unikeel"
_FIRST: Final = 3
_MAX_WAITING: Final = 4096
_VARIABLES: Final = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "LISTEN_PIDFDID", "FDSTORE")


def received() -> list[tuple[str, int]]:
    """The descriptors that the manager gave this very process, with their names; they are close-on-exec from now on."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    try:
        count = int(os.environ.get("LISTEN_FDS", "0"))
    except ValueError:
        return []
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    names += ["unknown"] * (count - len(names))
    for fd in range(_FIRST, _FIRST + count):
        os.set_inheritable(fd, False)
    return list(zip(names, range(_FIRST, _FIRST + count), strict=False))


class Manager:
    """The service manager; one that is not there takes everything and does nothing."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._socket: socket.socket | None = None
        address = os.environ.get("NOTIFY_SOCKET", "")
        for name in _VARIABLES:
            os.environ.pop(name, None)
        if not address:
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            sock.connect("\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            say(f"the service manager cannot be told anything: {error}")
            sock.close()
            return
        self._socket = sock
        loop.add(sock.fileno(), lambda: None, self._flush, read=False)

    def __bool__(self) -> bool:
        """Whether there is one."""
        return self._socket is not None

    def tell(self, text: str) -> None:
        """Tell how we are: lines such as ``READY=1``."""
        self._send(text.encode(), -1)

    def put(self, name: str, fd: int) -> None:
        """Have a copy of a descriptor kept under a name, whatever its other end does."""
        if self:
            self._send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0".encode(), os.dup(fd))

    def remove(self, name: str) -> None:
        """Have all that is kept under a name let go."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}".encode(), -1)

    def _send(self, text: bytes, fd: int) -> None:
        """Queue a message; the descriptor is ours to close once it is sent."""
        if self._socket is None:
            return
        if len(self._waiting) >= _MAX_WAITING:
            _, oldest = self._waiting.popleft()
            _close(oldest)
            say("the service manager does not listen: what is kept by it is incomplete")
        self._waiting.append((text, fd))
        self._flush()

    def _flush(self) -> None:
        if self._socket is None:
            return
        while self._waiting:
            text, fd = self._waiting[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
            try:
                self._socket.sendmsg([text], rights, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                break
            except OSError as error:
                say(f"the service manager could not be told: {error}")
            self._waiting.popleft()
            _close(fd)
        self._loop.want(self._socket.fileno(), read=False, write=bool(self._waiting))


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)
