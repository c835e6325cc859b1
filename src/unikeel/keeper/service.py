"""The keeper put together: its requests, and when it may go.

With a daemon it never goes by itself, only when it is told to. A request is answered at once, except ``spawn`` and ``launch``, which are answered when the process they started has ended, and that is bounded.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unikeel.keeper import wire
from unikeel.keeper.children import Children
from unikeel.keeper.failpoint import failpoint
from unikeel.keeper.holding import Holding
from unikeel.keeper.loop import Loop
from unikeel.keeper.monitors import Monitors
from unikeel.keeper.reaper import Reaper
from unikeel.keeper.streams import Streams
from unikeel.keeper.systemd import Manager, received
from unikeel.keeper.wire import strings

if TYPE_CHECKING:
    from unikeel.keeper.daemonmode import DaemonMode
    from unikeel.keeper.supervisor import Daemon

_SPAWN_SECONDS = 60.0
_LONGEST_WAIT = 60.0


class Keeper:
    """State and behaviour of the process.

    :param idle: seconds, as is ``view_idle``. :param host: the host's mount namespace as a descriptor, if ours is another one; else -1.
    """

    def __init__(self, idle: float, view_idle: float, host: int = -1) -> None:
        self._idle = idle
        self._host = host
        self._children = Children()
        self._holding = Holding(view_idle)
        self._loop = Loop(self._left)
        self._received = received()
        self._manager = Manager(self._loop)
        reaper = Reaper(self._children, host)
        self._streams = Streams(self._loop, self._children, self._manager)
        self._monitors = Monitors(self._loop, self._children, self._holding, reaper, self._streams, self._manager)
        self._busy_until = 0.0
        self._daemon: DaemonMode | None = None
        self._stop = False

    def with_daemon(self, daemon: Daemon, listen: Sequence[tuple[str, str]]) -> None:
        """Before :meth:`run`: have a daemon, and listen at these names and paths for it."""
        from unikeel.keeper.daemonmode import DaemonMode

        self._daemon = DaemonMode(self._loop, self._children, daemon, self._manager, self._host)
        self._daemon.begin(listen, self._received, self._monitors)

    def run(self, listener: socket.socket) -> None:
        """Serve until there is nothing to keep and nobody connected for the idle time; with a daemon, until a signal says so."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        if self._daemon is not None:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda _signal, _frame: self._told_to_stop())
        self._loop.add(wake_read, lambda: self._signalled(wake_read))
        self._loop.serve(
            listener,
            {
                "hello": self._hello,
                "spawn": self._spawn,
                "launch": self._monitors.launch,
                "adopt": self._monitors.adopt,
                "restored": self._monitors.restored,
                "watch": self._monitors.watch,
                "watch_all": self._monitors.watch_all,
                "close_input": self._streams.close_input,
                "close_io": self._monitors.close_io,
                "logger": self._streams.logger,
                "input": self._monitors.input,
                "helper": self._monitors.helper,
                "put": self._put,
                "get": self._get,
                "drop": self._drop,
                "names": self._names,
                **(self._daemon.operations() if self._daemon is not None else {}),
            },
        )
        self._busy_until = time.monotonic() + self._idle
        while not self._finished():
            self._loop.turn(self._timeout())
            now = time.monotonic()
            self._holding.tick(now, self._monitors.used())
            self._children.tick(now)
            self._monitors.tick(now)
            if self._daemon is not None:
                if self._stop:
                    self._daemon.stop()
                self._daemon.tick(now)
        if self._daemon is not None:
            self._daemon.leave()

    def _busy(self) -> bool:
        """Whether anything is kept, or anybody there."""
        return bool(self._monitors or self._streams or self._holding or self._children or self._loop.connected)

    def _finished(self) -> bool:
        """Whether we may go: nothing kept, nobody there, idle long enough."""
        if self._daemon is not None:
            return self._daemon.finished
        if self._busy():
            self._busy_until = time.monotonic() + self._idle
            return False
        return time.monotonic() >= self._busy_until

    def _timeout(self) -> float:
        """Until the next thing is due."""
        now = time.monotonic()
        times = [self._holding.due(self._monitors.used()), self._children.due(), self._monitors.due(now)]
        if self._daemon is not None:
            times += self._daemon.due()
        elif not self._busy():
            times.append(self._busy_until)
        due = min((moment for moment in times if moment is not None), default=now + _LONGEST_WAIT)
        return max(0.001, min(due - now, _LONGEST_WAIT))

    def _told_to_stop(self) -> None:
        self._stop = True

    def _left(self, connection: socket.socket) -> None:
        self._monitors.left(connection)

    def _signalled(self, wake: int) -> None:
        try:
            os.read(wake, 4096)
        except BlockingIOError:
            return
        self._children.reap()

    # -- requests --------------------------------------------------------------------------------------------------

    def _hello(self, connection: socket.socket, _message: wire.Message, _fds: list[int]) -> None:
        running: list[wire.Json] = list(self._monitors.names())
        daemon = self._daemon.describe() if self._daemon is not None else {"daemon": 0, "restarts": 0}
        self._loop.answer(connection, {"ok": True, "pid": os.getpid(), "monitors": running, **daemon})

    def _spawn(self, connection: socket.socket, message: wire.Message, fds: list[int]) -> None:
        """Run a process to its end; its output goes to the *last* descriptor sent.

        With ``serves`` it leaves a process behind, whose number is in ``pid_file``, that serves the monitor of this container.
        """

        serves = message.get("serves")
        if isinstance(serves, str) and serves:
            self._children.expect()

        def done(status: int) -> None:
            failpoint("keeper.spawn.ended")
            if isinstance(serves, str) and serves:
                if status == 0:
                    self._monitors.serve(serves, str(message["pid_file"]))
                self._children.expected()
            self._loop.answer(connection, {"ok": True, "status": status})

        failpoint("keeper.spawn.begin")
        mark = message.get("mark")
        self._children.start(
            strings(message, "argv"),
            fds[:-1],
            fds[-1],
            done,
            seconds=_SPAWN_SECONDS,
            mark=mark if isinstance(mark, str) else "",
        )
        failpoint("keeper.spawn.started")

    def _put(self, connection: socket.socket, message: wire.Message, fds: list[int]) -> None:
        failpoint("keeper.put")
        self._holding.put(str(message["name"]), fds[0])
        self._loop.answer(connection, {"ok": True})

    def _get(self, connection: socket.socket, message: wire.Message, _fds: list[int]) -> None:
        fd = self._holding.get(str(message["name"]))
        if fd is None:
            self._loop.answer(connection, {"ok": True, "found": False})
        else:
            self._loop.answer(connection, {"ok": True, "found": True}, (fd,))

    def _drop(self, connection: socket.socket, message: wire.Message, _fds: list[int]) -> None:
        self._holding.drop(str(message["name"]))
        self._loop.answer(connection, {"ok": True})

    def _names(self, connection: socket.socket, _message: wire.Message, _fds: list[int]) -> None:
        names: list[wire.Json] = list(self._holding.names())
        self._loop.answer(connection, {"ok": True, "names": names})
