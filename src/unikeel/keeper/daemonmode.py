"""The keeper in daemon mode: the daemon, the sockets in front of it, and what the service manager gave back of a keeper that was killed."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence

from unikeel.keeper import wire
from unikeel.keeper.children import Children
from unikeel.keeper.failpoint import failpoint
from unikeel.keeper.front import Front
from unikeel.keeper.listeners import HELD, Listeners, Listening
from unikeel.keeper.loop import Loop, Operation, say
from unikeel.keeper.monitors import Monitors
from unikeel.keeper.relay import Relays
from unikeel.keeper.supervisor import Daemon, Supervisor
from unikeel.keeper.systemd import STORED, Manager
from unikeel.keeper.waiting import Waiting

#: What the service manager may call the sockets that it makes itself, and what they are here.
_GIVEN = {"launch": "launch", "snapshots": f"{HELD}containerd"}


class DaemonMode:
    """All that a keeper has beside monitors if it has a daemon."""

    def __init__(self, loop: Loop, children: Children, daemon: Daemon, manager: Manager, host: int) -> None:
        self._loop = loop
        self._manager = manager
        self._front = Front(loop, manager)
        self._relays = Relays(loop, manager)
        self._listeners = Listeners(loop, manager, self._accepted)
        self._waiting = Waiting(loop, self._listeners)
        self._supervisor = Supervisor(loop, children, self._front, self._waiting, daemon, manager, host)
        self.stop = self._supervisor.stop

    @property
    def finished(self) -> bool:
        """After ``stop``: whether the daemon has ended."""
        return self._supervisor.finished

    def _accepted(self, listening: Listening, sock: socket.socket) -> None:
        if listening.upstream:
            self._relays.accepted(listening.upstream, sock)
        elif listening.name.startswith(HELD):
            self._waiting.accepted(listening.name, sock)
        else:
            self._front.accepted(listening.name, sock)

    def due(self) -> list[float | None]:
        """When :meth:`tick` is to be called next."""
        return [self._supervisor.due(), self._listeners.due(), self._front.due(), self._waiting.due()]

    def tick(self, now: float) -> None:
        """Do what is due."""
        self._supervisor.tick(now)
        self._listeners.tick(now)
        self._front.tick(now)
        self._waiting.tick(now)

    def leave(self) -> None:
        """The keeper ends in order."""
        self._listeners.leave()

    # -- at the beginning ------------------------------------------------------------------------------------------

    def begin(self, listen: Sequence[tuple[str, str]], received: Sequence[tuple[str, int]], monitors: Monitors) -> None:
        """Take what the service manager gave, then listen at these names and paths where nothing was given."""
        groups: dict[tuple[str, str], dict[str, int]] = {}
        for name, fd in received:
            parts = name.split(".")
            if name in _GIVEN:
                self._listeners.given(_GIVEN[name], socket.socket(fileno=fd))
            elif len(parts) == 4 and parts[0] == STORED and parts[1] in "lcpo":
                given = groups.setdefault((parts[1], parts[2]), {})
                if parts[3] in given:
                    os.close(given[parts[3]])
                given[parts[3]] = fd
            else:
                say(f"the service manager gave a descriptor named {name}, which means nothing")
                os.close(fd)
        for (kind, key), fds in groups.items():
            try:
                self._restore(kind, key, fds, monitors)
            except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                say(f"what the service manager kept cannot be used: {error}")
                for part, fd in fds.items():
                    self._manager.remove(f"{STORED}.{kind}.{key}.{part}")
                    with contextlib.suppress(OSError):
                        os.close(fd)
        failpoint("keeper.restored")
        for name, path in listen:
            if name not in self._listeners:
                self._listeners.listen(name, path)

    def _restore(self, kind: str, key: str, fds: dict[str, int], monitors: Monitors) -> None:
        """Each of these takes the descriptors that are all there, or none. :raise KeyError: some are missing."""
        if kind == "o":
            for part in list(fds):
                monitors.restore(key, part, fds.pop(part))
            return
        wanted = ("s", "t", "m") if kind == "p" else ("s", "m")
        missing = [part for part in wanted if part not in fds]
        if missing:
            raise ValueError(f"of {kind}.{key}, {', '.join(missing)} is missing")
        sockets = [socket.socket(fileno=fds.pop(part)) for part in wanted[:-1]]
        memory = fds.pop("m")
        try:
            if kind == "l":
                self._listeners.restore(key, sockets[0], memory)
                os.close(memory)
            elif kind == "c":
                self._front.restore(sockets[0], memory)
            else:
                self._relays.restore(key, sockets[0], sockets[1], memory)
        except BaseException:
            for sock in sockets:
                sock.close()
            for part in wanted:
                self._manager.remove(f"{STORED}.{kind}.{key}.{part}")
            raise

    # -- requests --------------------------------------------------------------------------------------------------

    def operations(self) -> dict[str, Operation]:
        """The requests that only a keeper with a daemon answers."""
        return {
            "listen": self._listen,
            "listener": self._listener,
            "waiting": self._take,
            "unlisten": self._unlisten,
            "hold only": self._hold_only,
            "relay": self._relay,
            "unrelay": self._unrelay,
        }

    def describe(self) -> wire.Message:
        """What ``hello`` tells of it."""
        supervisor = self._supervisor
        return {
            "daemon": supervisor.pid,
            "restarts": supervisor.restarts,
            "ready": supervisor.ready,
            "connections": len(self._front),
            "waiting": len(self._waiting),
            "relays": len(self._relays),
            "buffered": self._front.buffered,
        }

    def _listen(self, connection: socket.socket, message: wire.Message, _fds: list[int]) -> None:
        self._listeners.listen(str(message["name"]), str(message["path"]))
        self._loop.answer(connection, {"ok": True})

    def _listener(self, connection: socket.socket, message: wire.Message, _fds: list[int]) -> None:
        """A socket is lent to the daemon, made if there is none yet."""
        name = str(message["name"])
        if not name.startswith(HELD):
            raise ValueError(f"{name} is no socket that is lent")
        self._listeners.listen(name, str(message["path"]))
        self._loop.answer(connection, {"ok": True}, (self._listeners.lend(name).fileno(),))

    def _take(self, connection: socket.socket, message: wire.Message, _fds: list[int]) -> None:
        """Some of those who wait at a socket, who are the daemon's from now on; none: there are no more."""
        socks = self._waiting.some(str(message["name"]))
        self._loop.answer(connection, {"ok": True}, tuple(sock.fileno() for sock in socks))
        self._waiting.given(socks)

    def _unlisten(self, connection: socket.socket, message: wire.Message, _fds: list[int]) -> None:
        self._listeners.close(str(message["name"]))
        self._loop.answer(connection, {"ok": True})

    def _hold_only(self, connection: socket.socket, message: wire.Message, _fds: list[int]) -> None:
        names = message["names"]
        if not isinstance(names, list):
            raise ValueError("the names of held sockets are a list")
        self._listeners.hold_only({str(name) for name in names})
        self._loop.answer(connection, {"ok": True})

    def _relay(self, connection: socket.socket, message: wire.Message, _fds: list[int]) -> None:
        path = str(message["path"])
        self._listeners.listen(f"relay:{path}", path, str(message["upstream"]))
        self._loop.answer(connection, {"ok": True})

    def _unrelay(self, connection: socket.socket, message: wire.Message, _fds: list[int]) -> None:
        self._listeners.close(f"relay:{message['path']}")
        self._loop.answer(connection, {"ok": True})
