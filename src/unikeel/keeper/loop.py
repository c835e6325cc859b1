"""The keeper's event loop: one thread, one epoll, connections that are never waited for.

Knows nothing of what is kept: whoever owns a descriptor adds it with an action, and requests go to the operations it is given.
"""

from __future__ import annotations

import os
import select
import socket
import sys
from collections.abc import Callable

from unikeel.keeper import wire

_MAX_CONNECTIONS = 512
_LOG_MAX = 256 * 1024
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT

Action = Callable[[], None]
Operation = Callable[[socket.socket, wire.Message, list[int]], None]


def say(text: str) -> None:
    """One line to ``keeper.log``; a full disk loses it."""
    try:
        sys.stderr.write(f"keeper: {text}\n")
        sys.stderr.flush()
    except OSError:
        return
    bound_log()


def bound_log() -> None:
    """Begin ``keeper.log`` anew once it is long."""
    bound(2)


def bound(log: int) -> None:
    """Begin a log file anew once it is long."""
    try:
        if os.fstat(log).st_size > _LOG_MAX:
            os.ftruncate(log, 0)
    except OSError:
        return


def hung_up(fd: int) -> bool:
    """Whether a socket's other end is closed altogether, not just for writing."""
    poll = select.poll()
    poll.register(fd, 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))


class Loop:
    """Descriptors with their actions, and the connections of commands. ``left`` is told of connections that have ended."""

    def __init__(self, left: Callable[[socket.socket], None]) -> None:
        self._poll = select.epoll()
        self._actions: dict[int, tuple[Action, Action | None]] = {}
        self._connections: dict[int, socket.socket] = {}
        self._operations: dict[str, Operation] = {}
        self._left = left

    @property
    def connected(self) -> bool:
        """Whether any command is connected."""
        return bool(self._connections)

    def serve(self, listener: socket.socket, operations: dict[str, Operation]) -> None:
        """Take connections on a listening socket and answer their requests by these operations."""
        listener.setblocking(False)
        self._operations = operations
        self.add(listener.fileno(), lambda: self._accept(listener))

    def turn(self, timeout: float) -> None:
        """Wait for something to happen, at most this long, and do what is to be done. A failing action is logged, never fatal."""
        for fd, events in self._poll.poll(timeout):
            actions = self._actions.get(fd)
            if actions is None:
                continue
            try:
                if events & ~_OUT:
                    actions[0]()
                if events & _OUT and actions[1] is not None and self._actions.get(fd) is actions:
                    actions[1]()
            except (OSError, ValueError, KeyError, TypeError) as error:
                say(f"{type(error).__name__}: {error}")

    def add(self, fd: int, action: Action, write: Action | None = None, *, read: bool = True) -> None:
        """Do ``action`` whenever the descriptor is readable, or has hung up; ``write`` when it is writable, once :meth:`want` asks for that.

        :param read: false: until :meth:`want` says otherwise, only when it hangs up.
        """
        self._poll.register(fd, _IN if read else 0)
        self._actions[fd] = (action, write)

    def want(self, fd: int, *, read: bool, write: bool) -> None:
        """What is waited for from now on, beside its hanging up. A descriptor that is not known is fine."""
        if fd in self._actions:
            self._poll.modify(fd, (_IN if read else 0) | (_OUT if write else 0))

    def only_hangup(self, fd: int) -> None:
        """From now on, do it only when the descriptor hangs up."""
        self._poll.modify(fd, 0)

    def forget(self, fd: int) -> None:
        """Before the descriptor is closed. One that is not known is fine."""
        if self._actions.pop(fd, None) is not None:
            self._poll.unregister(fd)

    # -- connections -----------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        uid = int.from_bytes(credentials[4:8], sys.byteorder)
        if uid != os.getuid() or len(self._connections) >= _MAX_CONNECTIONS:
            connection.close()
            return
        connection.setblocking(False)
        self._connections[connection.fileno()] = connection
        self.add(connection.fileno(), lambda: self._request(connection))

    def _disconnect(self, connection: socket.socket) -> None:
        fd = connection.fileno()
        if fd < 0:
            return
        self._left(connection)
        self.forget(fd)
        self._connections.pop(fd, None)
        connection.close()

    def _request(self, connection: socket.socket) -> None:
        try:
            message, fds = wire.receive(connection)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            self._disconnect(connection)
            return
        if message is None:
            self._disconnect(connection)
            return
        operation = self._operations.get(str(message.get("op")))
        try:
            if operation is None:
                raise ValueError(f"unknown operation {message.get('op')!r}")
            operation(connection, message, fds)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            self.answer(connection, {"error": str(error) or type(error).__name__})
        finally:
            for fd in fds:
                os.close(fd)

    def answer(self, connection: socket.socket, message: wire.Message, fds: tuple[int, ...] = ()) -> None:
        """Send. A peer that is gone, or does not read what it must know, is disconnected: the loop never waits for one."""
        if connection.fileno() < 0:
            return
        try:
            wire.send(connection, message, fds)
        except OSError:
            self._disconnect(connection)

    def hint(self, connection: socket.socket, message: wire.Message) -> None:
        """Send what may be left out when the peer has not read the last such message yet."""
        if connection.fileno() < 0:
            return
        try:
            wire.send(connection, message)
        except BlockingIOError:
            return
        except OSError:
            self._disconnect(connection)
