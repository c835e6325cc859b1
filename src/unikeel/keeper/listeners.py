"""The sockets on which containerd and its launcher find the daemon: they outlive it, as do the connections that they take.

One whose name begins with :data:`HELD` is lent to the daemon, which takes the connections itself; they end with it. Those that come while it is not lent are
taken here (see :mod:`.waiting`).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import sys
import time
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from unikeel.keeper.failpoint import failpoint
from unikeel.keeper.loop import Loop, say
from unikeel.keeper.systemd import STORED, Manager
from unikeel.keeper.wire import short_path

_PAUSE_SECONDS: Final = 0.1
_BACKLOG: Final = 4096
#: How names of sockets begin that are lent to the daemon.
HELD: Final = "held:"


class Listening(NamedTuple):
    """A listening socket. ``upstream``: where its connections are relayed to; empty: to the daemon. ``key``: of what is stored; empty: nothing is."""

    name: str
    path: str
    upstream: str
    socket: socket.socket
    key: str


Accepted = Callable[[Listening, socket.socket], None]


class Listeners:
    """All of them, by name. ``accepted`` is told of every connection by root or by our own user."""

    def __init__(self, loop: Loop, manager: Manager, accepted: Accepted) -> None:
        self._loop = loop
        self._manager = manager
        self._accepted = accepted
        self._all: dict[str, Listening] = {}
        self._lent: set[str] = set()
        #: The daemon serves, and what it has not borrowed nobody takes connections of.
        self._settled = False
        self._paused: list[Listening] = []
        self._resume_at = 0.0

    def __contains__(self, name: str) -> bool:
        return name in self._all

    def listen(self, name: str, path: str, upstream: str = "") -> None:
        """Listen at a path, unless it is done already. A file that is in the way is replaced. :raise ValueError: the name listens elsewhere."""
        known = self._all.get(name)
        if known is not None:
            if (known.path, known.upstream) != (path, upstream):
                raise ValueError(f"{name} listens at {known.path} already")
            if _is_socket(path):
                return
            self.close(name)
        failpoint("keeper.listen.begin")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            directory, file = os.path.split(path)
            with short_path(directory, f"{file}.new") as short:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(short)
                sock.bind(short)
                os.chmod(short, 0o600)
                sock.listen(_BACKLOG)
                os.rename(short, path)
        except BaseException:
            sock.close()
            raise
        failpoint("keeper.listen.bound")
        self._add(Listening(name, path, upstream, sock, self._store(name, path, upstream, sock)))
        failpoint("keeper.listen.done")

    def _store(self, name: str, path: str, upstream: str, sock: socket.socket) -> str:
        """Have the service manager keep it; the key."""
        if not self._manager:
            return ""
        key = os.urandom(8).hex()
        note = os.memfd_create("unikeel-listener", os.MFD_CLOEXEC)
        try:
            os.write(note, json.dumps([name, path, upstream]).encode())
            self._manager.put(f"{STORED}.l.{key}.m", note)
            self._manager.put(f"{STORED}.l.{key}.s", sock.fileno())
        finally:
            os.close(note)
        return key

    def restore(self, key: str, sock: socket.socket, note: int) -> None:
        """One of a keeper that was killed. :raise ValueError: the note is damaged."""
        name, path, upstream = json.loads(os.pread(note, 64 * 1024, 0))
        self._add(Listening(str(name), str(path), str(upstream), sock, key))

    def given(self, name: str, sock: socket.socket) -> None:
        """One that is the service manager's own, who makes it again for each keeper."""
        self._add(Listening(name, str(sock.getsockname()), "", sock, ""))

    def _add(self, listening: Listening) -> None:
        if listening.name in self._all:
            self.close(listening.name)
        listening.socket.setblocking(False)
        self._all[listening.name] = listening
        self._register(listening)

    def lend(self, name: str) -> socket.socket:
        """The socket of this name for the daemon, which takes its connections from now on. :raise KeyError: there is none."""
        listening = self._all[name]
        self._lent.add(name)
        self._loop.forget(listening.socket.fileno())
        return listening.socket

    def settle(self) -> set[str]:
        """The daemon serves: those that it has not borrowed take no connections any more. The names of those that it has."""
        self._settled = True
        for listening in self._all.values():
            if listening.name.startswith(HELD):
                self._loop.forget(listening.socket.fileno())
        return set(self._lent)

    def take_back(self) -> None:
        """The daemon has ended."""
        self._lent.clear()
        self._settled = False
        for listening in self._all.values():
            if listening.name.startswith(HELD) and listening not in self._paused:
                self._loop.forget(listening.socket.fileno())
                self._register(listening)

    def _register(self, listening: Listening) -> None:
        if listening.name.startswith(HELD) and (self._settled or listening.name in self._lent):
            return
        self._loop.add(listening.socket.fileno(), lambda: self._accept(listening))

    def _accept(self, listening: Listening) -> None:
        try:
            sock, _ = listening.socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            say(f"{listening.name} takes no connections for a moment: {error}")
            self._loop.forget(listening.socket.fileno())
            self._paused.append(listening)
            self._resume_at = time.monotonic() + _PAUSE_SECONDS
            return
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        if int.from_bytes(credentials[4:8], sys.byteorder) not in (0, os.getuid()):
            sock.close()
            return
        sock.setblocking(False)
        self._accepted(listening, sock)

    def due(self) -> float | None:
        """When :meth:`tick` is to be called next, on the monotonic clock."""
        return self._resume_at if self._paused else None

    def tick(self, now: float) -> None:
        """Go on with those that took no connections."""
        if self._paused and now >= self._resume_at:
            paused, self._paused = self._paused, []
            for listening in paused:
                if self._all.get(listening.name) is listening:
                    self._register(listening)

    def close(self, name: str) -> None:
        """Listen no more; a name that does not listen is fine. The connections stay."""
        listening = self._all.pop(name, None)
        if listening is None:
            return
        self._lent.discard(name)
        self._loop.forget(listening.socket.fileno())
        listening.socket.close()
        if listening.key:
            for part in "ms":
                self._manager.remove(f"{STORED}.l.{listening.key}.{part}")
        if listening.key or not self._manager:
            with contextlib.suppress(OSError):
                os.unlink(listening.path)

    def hold_only(self, names: Collection[str]) -> None:
        """Of those that are only held, close all others. What the service manager gave is its own."""
        for name, listening in list(self._all.items()):
            if name.startswith(HELD) and name not in names and (listening.key or not self._manager):
                self.close(name)

    def leave(self) -> None:
        """The keeper ends in order: nobody is to find a socket of its on which nobody listens, but for those that the service manager keeps."""
        if not self._manager:
            for name in list(self._all):
                self.close(name)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False
