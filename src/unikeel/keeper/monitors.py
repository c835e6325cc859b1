"""The monitors that run: launched or adopted, watched, and their ends written down.

A launch is answered when the OCI runtime's ``create`` has ended. An end is written to ``exit.json`` first, then told to those who watch, then
forgotten; while it cannot be written (a full disk), it is kept and tried again.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from contextlib import suppress
from functools import partial

from unikeel.keeper import wire
from unikeel.keeper.children import Children
from unikeel.keeper.console import Console, input_of
from unikeel.keeper.failpoint import failpoint
from unikeel.keeper.holding import Holding
from unikeel.keeper.loop import Loop, hung_up, say
from unikeel.keeper.monitor import Monitor
from unikeel.keeper.processes import exit_by_pidfd, has_ended, open_server, read_pid, remove_stand_in, start_time
from unikeel.keeper.reaper import Reaper
from unikeel.keeper.stdio import NAMES
from unikeel.keeper.streams import Streams, stored
from unikeel.keeper.systemd import Manager
from unikeel.keeper.wire import integer, strings

_CREATE_SECONDS = 60.0
_REAP_SECONDS = 5.0
_REAP_LOOK_SECONDS = 0.2
_RETRY_SECONDS = 1.0
#: The directories of file servers' bundles in a container's, as :data:`unikeel.engine.layout.SERVERS`.
SERVERS = ("fs0", "fs1")
#: A monitor that ends takes its file server along, which may be seen first: it is not killed over that.
_UNSERVED_SECONDS = 2.0


class Monitors:
    """All monitors of the keeper, by container."""

    def __init__(
        self,
        loop: Loop,
        children: Children,
        holding: Holding,
        reaper: Reaper,
        streams: Streams,
        manager: Manager,
    ) -> None:
        self._loop = loop
        self._children = children
        self._holding = holding
        self._reaper = reaper
        self._manager = manager
        self._monitors: dict[str, Monitor] = {}
        self._streams = streams
        self._everything: list[socket.socket] = []
        #: Of monitors that a killed keeper had: their consoles, standard errors and tasks' streams, until they are adopted.
        self._restored: dict[str, dict[str, int]] = {}

    def __len__(self) -> int:
        return len(self._monitors)

    def names(self) -> list[str]:
        """The containers whose monitors are kept."""
        return list(self._monitors)

    def restore(self, ident: str, part: str, fd: int) -> None:
        """A descriptor of a monitor that a killed keeper had: its console ``c``, its standard error ``e``, its task's streams by their names. It is ours now."""
        self._restored.setdefault(ident, {})[part] = fd

    def restored(self, connection: socket.socket, message: wire.Message, _fds: list[int]) -> None:
        """Whether the streams of a task are here still, of a keeper that was killed: adopting its monitor needs no others then."""
        found = self._restored.get(str(message["id"]), {})
        self._loop.answer(connection, {"ok": True, "streams": any(name in found for name in NAMES)})

    def used(self) -> set[str]:
        """The names of the held descriptors that some monitor needs."""
        return {name for monitor in self._monitors.values() for name in monitor.holds}

    def left(self, connection: socket.socket) -> None:
        """A connection has ended: it watches no more."""
        for monitor in self._monitors.values():
            if connection in monitor.watchers:
                monitor.watchers.remove(connection)
        if connection in self._everything:
            self._everything.remove(connection)

    # -- launching -------------------------------------------------------------------------------------------------

    def launch(self, connection: socket.socket, message: wire.Message, fds: list[int]) -> None:
        """Run ``crun create`` and keep the monitor it leaves behind; without a ``pid_file``, ``argv`` is the monitor itself.

        The monitor's standard error is a pipe of ours; its standard input and output are that pipe, too, or with ``streams`` the last two descriptors. The
        last before those are what ``stdio`` names; ``helper`` (a network process) gets the last ``helper_fds`` before those as its 3 and so on.

        A caller that has hung up (it was killed, or its time was up while we were busy) may have taken back what it had made: nothing is launched for it.
        """
        ident = str(message["id"])
        if hung_up(connection.fileno()):
            say(refusal := f"nobody waits for the launch of {ident} any more")
            raise ValueError(refusal)
        self._settle(ident)
        self._forget_restored(ident)
        monitor = self._new(ident, message)
        monitor.forget_exit()
        stderr_read, stderr_write = os.pipe2(os.O_CLOEXEC)
        monitor.stderr = stderr_read
        self._monitors[ident] = monitor
        streams: tuple[int, ...] = ()
        try:
            if message.get("streams"):
                streams, fds = tuple(fds[-2:]), fds[:-2]
            fds = self._attach(monitor, message, fds)
            failpoint("keeper.launch.stdio")
            self._watch_stderr(monitor)
            self._watch_console(monitor, str(message["console"]))
            failpoint("keeper.launch.begin")
            if message.get("helper"):
                count = len(fds) - integer(message, "helper_fds")
                self._start_helper(monitor, strings(message, "helper"), fds[count:], stderr_write)
                fds = fds[:count]
            failpoint("keeper.launch.helper")
            self._start(connection, monitor, message, fds, stderr_write, streams)
        except BaseException:
            self._drop(monitor)
            raise
        finally:
            os.close(stderr_write)
        failpoint("keeper.launch.spawned")

    def _settle(self, ident: str) -> None:
        """See that an earlier monitor of the container, if it has ended, is done with. :raise ValueError: it runs."""
        self._children.reap()
        monitor = self._monitors.get(ident)
        if monitor is not None and monitor.pidfd >= 0:
            self._adopted_exited(monitor)
        if monitor is not None and (monitor.end is not None or monitor.reap_deadline):
            self._drop(monitor)
        if ident in self._monitors:
            raise ValueError(f"container {ident} already has a monitor")

    def _new(self, ident: str, message: wire.Message) -> Monitor:
        holds = frozenset(strings(message, "holds"))
        monitor = Monitor(ident, str(message["directory"]), integer(message, "log_limit"), holds)
        monitor.reaper = strings(message, "reaper")
        return monitor

    def _start_helper(self, monitor: Monitor, argv: list[str], fds: list[int], output: int) -> None:
        def gone(status: int) -> None:
            monitor.helper = 0
            if ended_badly := monitor.end is None and status != 0:
                say(f"the network helper of {monitor.ident} ended with status {os.waitstatus_to_exitcode(status)}")
            monitor.helper_failed = ended_badly

        monitor.helper = self._children.start(argv, fds, output, gone, mark=monitor.ident)

    def _start(
        self,
        connection: socket.socket,
        monitor: Monitor,
        message: wire.Message,
        fds: list[int],
        output: int,
        streams: tuple[int, ...],
    ) -> None:
        argv, pid_file = strings(message, "argv"), str(message["pid_file"])
        if not pid_file:
            monitor.pid = self._children.start(
                argv, fds, output, lambda status: self._exited(monitor, status), mark=monitor.ident, streams=streams
            )
            self._loop.answer(connection, {"ok": True, "status": 0, "pid": monitor.pid})
            return

        def created(status: int) -> None:
            try:
                self._created(connection, monitor, pid_file, status)
            finally:
                self._children.expected()

        self._children.start(argv, fds, output, created, seconds=_CREATE_SECONDS, mark=monitor.ident, streams=streams)
        self._children.expect()

    def _created(self, connection: socket.socket, monitor: Monitor, pid_file: str, status: int) -> None:
        """``crun create`` has ended: the pid file names the monitor's process, which is now our child."""
        failpoint("keeper.launch.created")
        pid = read_pid(pid_file) if status == 0 else 0
        if pid <= 1:
            monitor.drain()
            self._drop(monitor)
            self._loop.answer(connection, {"ok": True, "status": status or 1, "pid": 0})
            return
        monitor.pid = pid
        self._loop.answer(connection, {"ok": True, "status": 0, "pid": pid})
        failpoint("keeper.launch.answered")
        self._children.claim(pid, lambda status: self._exited(monitor, status))

    def adopt(self, connection: socket.socket, message: wire.Message, fds: list[int]) -> None:
        """Take over a monitor that an earlier keeper left: not our child, so its exit is seen through a pidfd. Its ``stdio`` as in a launch."""
        ident = str(message["id"])
        monitor = self._monitors.get(ident)
        if monitor is None:
            failpoint("keeper.adopt.begin")
            monitor = self._new(ident, message)
            restored = self._restored.pop(ident, {})
            monitor.stderr = restored.get("e", -1)
            try:
                if "c" in restored:
                    monitor.console = socket.socket(fileno=restored["c"])
                if names := [name for name in NAMES if name in restored]:
                    fds = [restored[name] for name in names]
                    self._attach(monitor, {"stdio": list(names)}, fds)
                    for fd in fds:
                        os.close(fd)
                else:
                    self._attach(monitor, message, fds)
                failpoint("keeper.adopt.stdio")
                self._adopt(monitor, integer(message, "pid"), integer(message, "start_time"), str(message["console"]))
            except BaseException:
                monitor.drain()
                self._drop(monitor)
                raise
            failpoint("keeper.adopt.done")
        elif monitor.stdio is None and monitor.end is None:
            self._attach(monitor, message, fds)
            if monitor.console is not None:
                self._loop.forget(monitor.console.fileno())
                self._watch_console(monitor, "")
        self._loop.answer(connection, {"ok": True})

    def _adopt(self, monitor: Monitor, pid: int, started: int, console: str) -> None:
        pidfd = os.pidfd_open(pid)
        if start_time(pid) != started:
            os.close(pidfd)
            raise ValueError(f"process {pid} is another one now")
        monitor.pid, monitor.pidfd = pid, pidfd
        self._monitors[monitor.ident] = monitor
        self._loop.add(pidfd, lambda: self._adopted_exited(monitor))
        self._watch_servers(monitor)
        if monitor.stderr >= 0:
            self._watch_stderr(monitor)
        try:
            self._watch_console(monitor, console)
        except OSError as error:
            monitor.log.append(f"\n[the console is lost: {error.strerror}]\n".encode())

    def _attach(self, monitor: Monitor, message: wire.Message, fds: list[int]) -> list[int]:
        """Give a monitor the streams that the message names; the descriptors that are left."""
        names = strings(message, "stdio")
        stdio, rest = self._streams.attach(monitor.ident, names, fds, lambda: self._interest(monitor))
        monitor.stdio = stdio
        return rest

    def _forget_restored(self, ident: str) -> None:
        for part, fd in self._restored.pop(ident, {}).items():
            self._manager.remove(stored(ident, part))
            os.close(fd)

    # -- while they run --------------------------------------------------------------------------------------------

    def watch(self, connection: socket.socket, message: wire.Message, _fds: list[int]) -> None:
        """Events of one monitor on this connection; ``running`` tells whether there is one."""
        monitor = self._monitors.get(str(message["id"]))
        if monitor is not None:
            monitor.watchers.append(connection)
        self._loop.answer(connection, {"ok": True, "running": monitor is not None})

    def watch_all(self, connection: socket.socket, _message: wire.Message, _fds: list[int]) -> None:
        """The end of every monitor on this connection, from now on."""
        self._loop.answer(connection, {"ok": True})
        if connection.fileno() >= 0 and connection not in self._everything:
            self._everything.append(connection)

    def close_io(self, connection: socket.socket, message: wire.Message, _fds: list[int]) -> None:
        """Close the streams of a task, with what fits written."""
        ident = str(message["id"])
        self._streams.close(ident)
        if ident not in self._monitors:
            self._forget_restored(ident)
        failpoint("keeper.close-io")
        self._loop.answer(connection, {"ok": True})

    def input(self, connection: socket.socket, message: wire.Message, _fds: list[int]) -> None:
        """The console's descriptor, to be written to by the caller."""
        monitor = self._monitors.get(str(message["id"]))
        if monitor is None or monitor.console is None:
            raise ValueError("no console")
        self._loop.answer(connection, {"ok": True}, (input_of(monitor.console),))

    def helper(self, connection: socket.socket, message: wire.Message, _fds: list[int]) -> None:
        """The network helper of a container: its pid (0: there is none), and whether it has failed."""
        monitor = self._monitors.get(str(message["id"]))
        pid, failed = (monitor.helper, monitor.helper_failed) if monitor is not None else (0, False)
        self._loop.answer(connection, {"ok": True, "pid": pid, "failed": failed})

    def serve(self, ident: str, pid_file: str) -> None:
        """A process has begun to serve a container's monitor, which is launched later, and is ended should that process end before it."""
        pid = read_pid(pid_file)
        if pid > 1:
            self._children.claim(pid, lambda status: self._unserve(ident, status))

    def _watch_servers(self, monitor: Monitor) -> None:
        """Watch the file servers of an adopted monitor, whose bundles are in its directory; one that has ended is its end, too."""
        for name in SERVERS:
            pid_file = os.path.join(monitor.directory, name, "pid")
            if not os.path.exists(pid_file):
                continue
            pidfd = open_server(pid_file, f"unikeel-{monitor.ident}.{name}")
            if pidfd < 0:
                self._unserve(monitor.ident, None)
                continue
            monitor.servers.append(pidfd)
            self._loop.add(pidfd, partial(self._server_ended, monitor, pidfd))

    def _server_ended(self, monitor: Monitor, pidfd: int) -> None:
        self._loop.forget(pidfd)
        self._unserve(monitor.ident, None)

    def _unserve(self, ident: str, status: int | None) -> None:
        monitor = self._monitors.get(ident)
        if monitor is not None and monitor.end is None and not monitor.unserved:
            how = "" if status is None else f" with status {os.waitstatus_to_exitcode(status)}"
            say(f"the file server of {ident} ended{how}")
            monitor.unserved = time.monotonic() + _UNSERVED_SECONDS

    def _watch_stderr(self, monitor: Monitor) -> None:
        os.set_blocking(monitor.stderr, False)
        self._loop.add(monitor.stderr, lambda: self._stderr_ready(monitor))
        self._manager.put(stored(monitor.ident, "e"), monitor.stderr)

    def _watch_console(self, monitor: Monitor, path: str) -> None:
        console = monitor.console
        if console is None:
            console = monitor.connect(path)
        stdin = monitor.stdio.stdin if monitor.stdio is not None else None
        write = stdin.flush if stdin is not None else None
        self._loop.add(console.fileno(), lambda: self._console_ready(monitor), write)
        self._manager.put(stored(monitor.ident, "c"), console.fileno())
        if stdin is not None:
            stdin.connect(console)
        self._interest(monitor)

    def _interest(self, monitor: Monitor) -> None:
        """What of the monitor is waited for depends on how far the readers of its output are, and on what is typed."""
        if monitor.console is not None:
            read, write = monitor.console_interest
            self._loop.want(monitor.console.fileno(), read=read, write=write)
        if monitor.stderr >= 0:
            self._loop.want(monitor.stderr, read=monitor.stderr_interest, write=False)

    def _console_ready(self, monitor: Monitor) -> None:
        console = monitor.console
        if console is None:
            return
        if monitor.read_console():
            for watcher in list(monitor.watchers):
                self._loop.hint(watcher, {"event": "console"})
            self._interest(monitor)
        else:
            if monitor.stdio is not None and monitor.stdio.stdin is not None:
                monitor.stdio.stdin.close()
            self._loop.forget(console.fileno())
            console.close()
            monitor.console = None
            self._manager.remove(stored(monitor.ident, "c"))

    def _stderr_ready(self, monitor: Monitor) -> None:
        if monitor.read_stderr():
            self._interest(monitor)
        else:
            self._loop.forget(monitor.stderr)
            os.close(monitor.stderr)
            monitor.stderr = -1
            self._manager.remove(stored(monitor.ident, "e"))

    # -- the end ---------------------------------------------------------------------------------------------------

    def _adopted_exited(self, monitor: Monitor) -> None:
        """Whether and how an adopted monitor has ended. The kernel tells once its new parent has reaped it: wait for that (HUP)."""
        try:
            status = exit_by_pidfd(monitor.pidfd)
        except OSError:
            status = None
            if has_ended(monitor.pidfd):
                self._exited(monitor, None)
            return
        if status is not None:
            self._exited(monitor, status)
        elif not monitor.reap_deadline and has_ended(monitor.pidfd):
            self._loop.only_hangup(monitor.pidfd)
            monitor.reap_deadline = time.monotonic() + _REAP_SECONDS
        elif monitor.reap_deadline and time.monotonic() >= monitor.reap_deadline:
            self._exited(monitor, None)

    def _exited(self, monitor: Monitor, status: int | None) -> None:
        """The monitor has ended: all it said first, then its status to disk, then the news to those who watch."""
        failpoint("keeper.exit.seen")
        monitor.reap_deadline = 0.0
        monitor.end = (status, time.time_ns())
        monitor.drain()
        self._store_end(monitor)

    def _store_end(self, monitor: Monitor) -> None:
        if monitor.end is None:
            return
        report: dict[str, int | None] = {}
        try:
            report = monitor.store_exit(*monitor.end)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):  # where the container is removed, nobody asks any more
                say(f"the end of {monitor.ident} cannot be stored yet: {error}")
                monitor.retry_at = time.monotonic() + _RETRY_SECONDS
                return
        failpoint("keeper.exit.stored")
        self._monitors.pop(monitor.ident, None)
        watchers = list(monitor.watchers)
        for watcher in watchers:
            self._loop.answer(watcher, {"event": "exit", **report})
        for watcher in list(self._everything):
            self._loop.answer(watcher, {"event": "exit", "id": monitor.ident, **report})
        failpoint("keeper.exit.told")
        self._drop(monitor)
        if monitor.reaper and not watchers and not self._everything:
            self._reaper.run(monitor.reaper)

    def _drop(self, monitor: Monitor) -> None:
        """Forget a monitor, with its helper and all that is held for it."""
        if self._monitors.get(monitor.ident) is monitor:
            del self._monitors[monitor.ident]
        if monitor.helper:
            self._children.kill(monitor.helper)
        for fd in monitor.servers:
            self._loop.forget(fd)
        for fd, part in ((monitor.stderr, "e"), (monitor.pidfd, ""), (_number(monitor.console), "c")):
            self._loop.forget(fd)
            if part and fd >= 0:
                self._manager.remove(stored(monitor.ident, part))
        if monitor.stdio is not None:
            monitor.stdio.finish()
        self._holding.touch(monitor.holds)
        monitor.close()
        remove_stand_in(monitor.ident)

    def due(self, now: float) -> float | None:
        """When :meth:`tick` is to be called next, on the monotonic clock."""
        times = [monitor.retry_at for monitor in self._monitors.values() if monitor.retry_at]
        times += [monitor.unserved for monitor in self._monitors.values() if monitor.unserved]
        if any(monitor.reap_deadline for monitor in self._monitors.values()):
            times.append(now + _REAP_LOOK_SECONDS)
        return min(times, default=None)

    def tick(self, now: float) -> None:
        """Do again what could not be done."""
        for monitor in list(self._monitors.values()):
            if monitor.reap_deadline:
                self._adopted_exited(monitor)
            elif monitor.retry_at and now >= monitor.retry_at:
                monitor.retry_at = 0.0
                self._store_end(monitor)
            elif monitor.unserved and now >= monitor.unserved:
                monitor.unserved = 0.0
                if monitor.end is None and monitor.pid > 1:
                    monitor.remark(wire.UNSERVED)
                    self._kill(monitor)

    def _kill(self, monitor: Monitor) -> None:
        if monitor.pidfd < 0:
            self._children.kill(monitor.pid)
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(monitor.pidfd, signal.SIGKILL)


def _number(console: Console | None) -> int:
    return console.fileno() if console is not None else -1
