"""The daemon's parent: starts it, starts it again when it has died, ends it in order.

The first time it dies the next one is started at once, then after a pause that doubles each time, until one has served for a while. What the daemon
says by itself goes to ``daemon.log``. The daemon ends when its link ends; one that an earlier keeper left is waited for, then killed, before another is
started: there are never two.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from unikeel.keeper.children import Children
from unikeel.keeper.failpoint import failpoint
from unikeel.keeper.front import Front
from unikeel.keeper.link import Link
from unikeel.keeper.loop import Loop, bound, say
from unikeel.keeper.processes import start_time
from unikeel.keeper.reaper import enter
from unikeel.keeper.systemd import Manager
from unikeel.keeper.waiting import Waiting

_PAUSES: Final = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)
#: One that has served for so long has proved itself.
_PROVED_SECONDS: Final = 10.0
_END_SECONDS: Final = 10.0
#: How long a daemon may go on without its link: one that dies, one of an earlier keeper.
_UNLINKED_SECONDS: Final = 2.0
_LOG_SECONDS: Final = 10.0
#: Of a test that stops the daemon somewhere: only the first one is to stop, or as many as the last variable says.
_STOPPING: Final = ("UNIKEEL_FAILPOINT", "UNIKEEL_FAILPOINT_FILE")
_STOPPED: Final = "UNIKEEL_FAILPOINT_DAEMONS"


class Daemon(NamedTuple):
    """The program (an absolute path) with its arguments, its environment, and the directory of its records here."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str


class Supervisor:
    """One daemon at a time. ``host``: the host's mount namespace as a descriptor, if ours is another one; else -1."""

    def __init__(
        self,
        loop: Loop,
        children: Children,
        front: Front,
        waiting: Waiting,
        daemon: Daemon,
        manager: Manager,
        host: int,
    ) -> None:
        self._loop = loop
        self._children = children
        self._front = front
        self._waiting = waiting
        self._daemon = daemon
        self._manager = manager
        self._host = host
        self._environment = dict(daemon.environment)
        self._to_stop = int(self._environment.pop(_STOPPED, "1"))
        self._link: Link | None = None
        self._pause = 0
        self._start_at = time.monotonic()
        #: When the present daemon began to serve; when it is killed; 0: not.
        self._ready_at = 0.0
        self._kill_at = 0.0
        self._log_at = 0.0
        self._stopping = False
        self._started = 0
        #: The daemon of an earlier keeper, as long as it lives.
        self._earlier = -1
        #: The daemon's process; 0: none.
        self.pid = 0
        self._log = self._open_log()
        self._find_earlier()

    @property
    def restarts(self) -> int:
        """How often a daemon was started in place of one that died."""
        return max(0, self._started - 1)

    @property
    def ready(self) -> bool:
        """Whether a daemon serves."""
        return self._ready_at > 0

    @property
    def finished(self) -> bool:
        """After :meth:`stop`: whether no daemon is left."""
        return self._stopping and not self.pid and self._earlier < 0

    # -- the daemon of an earlier keeper ---------------------------------------------------------------------------

    def _record(self) -> str:
        return os.path.join(self._daemon.directory, "daemon.json")

    def _find_earlier(self) -> None:
        try:
            with open(self._record(), encoding="ascii") as file:
                record = json.load(file)
            pid, started = int(record["pid"]), int(record["start_time"])
            if pid <= 1:
                return
            pidfd = os.pidfd_open(pid)
        except (OSError, ValueError, KeyError, TypeError):
            return
        try:
            lives = start_time(pid) == started
        except (OSError, ValueError, IndexError):
            lives = False
        if not lives:
            os.close(pidfd)
            return
        say(f"the daemon of an earlier keeper, process {pid}, is still there: it is waited for")
        self._earlier = pidfd
        self._kill_at = time.monotonic() + _UNLINKED_SECONDS
        self._loop.add(pidfd, self._earlier_ended)

    def _earlier_ended(self) -> None:
        self._loop.forget(self._earlier)
        os.close(self._earlier)
        self._earlier = -1
        self._kill_at = 0.0

    # -- its life --------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        failpoint("keeper.daemon.begin")
        bound(self._log)
        try:
            self._link = self._spawn()
        except OSError as error:
            say(f"the daemon cannot be started: {self._daemon.argv[0]}: {error}")
            self._again()
            return
        failpoint("keeper.daemon.spawned")
        self._started += 1
        if self._started >= self._to_stop:
            for name in _STOPPING:
                self._environment.pop(name, None)
        self._write_record()
        failpoint("keeper.daemon.started")

    def _spawn(self) -> Link:
        argv = list(self._daemon.argv)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            with theirs:
                fds = [theirs.fileno()]
                if self._host >= 0:
                    argv = enter(argv, 4)
                    fds.append(self._host)
                self.pid = self._children.start(argv, fds, self._log, self._ended, environment=self._environment)
            return Link(self._loop, ours, self, self._unlinked)
        except OSError:
            ours.close()
            raise

    def _write_record(self) -> None:
        path = self._record()
        try:
            record = json.dumps({"pid": self.pid, "start_time": start_time(self.pid)})
            with open(path + ".new", "w", encoding="ascii") as file:
                file.write(record)
            os.replace(path + ".new", path)
        except (OSError, ValueError, IndexError) as error:
            say(f"the daemon's process cannot be recorded: {error}")

    def said_ready(self) -> None:
        """The daemon serves from now on."""
        if self._link is None or self._ready_at or self._stopping:
            return
        self._ready_at = time.monotonic()
        failpoint("keeper.daemon.ready")
        self._front.serving(self._link)
        self._waiting.serving()
        self._tell(f"serving, daemon {self.pid}", "READY=1", f"MAINPID={os.getpid()}")

    def said_frame(self, number: int, frame: bytes) -> None:
        """The daemon answers."""
        self._front.said_frame(number, frame)

    def said_close(self, number: int) -> None:
        """The daemon wants a connection closed."""
        self._front.said_close(number)

    def said_park(self, number: int, stream: int) -> None:
        """A request only waits."""
        self._front.said_park(number, stream)

    def _unlinked(self) -> None:
        """The link is broken: its end must be near, or is made to be."""
        if self.pid and not self._stopping:
            self._kill_at = time.monotonic() + _UNLINKED_SECONDS

    def _ended(self, status: int) -> None:
        failpoint("keeper.daemon.ended")
        pid, self.pid = self.pid, 0
        served = time.monotonic() - self._ready_at if self._ready_at else 0.0
        if self._link is not None:
            self._link.drain()
            self._link.shut()
            self._link = None
        code = os.waitstatus_to_exitcode(status)
        how = f"killed by signal {-code}" if code < 0 else f"with status {code}"
        say(f"the daemon, process {pid}, has ended: {how}, having served {served:.1f} s")
        bound(self._log)
        self._ready_at = self._kill_at = 0.0
        with contextlib.suppress(OSError):
            os.unlink(self._record())
        if served >= _PROVED_SECONDS:
            self._pause = 0
        self._front.gone(in_order=self._stopping)
        self._waiting.gone(in_order=self._stopping)
        if not self._stopping:
            self._tell(f"the daemon has ended ({how}) and is started again")
            self._again()

    def _again(self) -> None:
        self._start_at = time.monotonic() + _PAUSES[min(self._pause, len(_PAUSES) - 1)]
        self._pause += 1

    def _tell(self, status: str, *lines: str) -> None:
        self._manager.tell("\n".join((*lines, f"STATUS={status}")))

    # -- time ------------------------------------------------------------------------------------------------------

    def due(self) -> float | None:
        """When :meth:`tick` is to be called next, on the monotonic clock."""
        times = [self._kill_at] if self._kill_at else []
        if not self.pid and self._earlier < 0 and not self._stopping:
            times.append(self._start_at)
        if self._log_at:
            times.append(self._log_at)
        return min(times, default=None)

    def tick(self, now: float) -> None:
        """Do what is due: start, kill, keep the log short."""
        if self._kill_at and now >= self._kill_at:
            self._kill_at = 0.0
            if self._earlier >= 0:
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(self._earlier, signal.SIGKILL)
            elif self.pid:
                say(f"the daemon, process {self.pid}, does not end and is killed")
                self._children.kill(self.pid)
        if not self.pid and self._earlier < 0 and not self._stopping and now >= self._start_at:
            self._start()
        if now >= self._log_at:
            self._log_at = now + _LOG_SECONDS
            bound(self._log)

    def stop(self) -> None:
        """End in order: the daemon is told, and has a while to finish what it does."""
        if self._stopping:
            return
        self._stopping = True
        failpoint("keeper.daemon.stop")
        self._waiting.stop()
        self._manager.tell("STOPPING=1\nSTATUS=waiting for the daemon to end")
        if self.pid:
            self._children.kill(self.pid, signal.SIGTERM)
            self._kill_at = time.monotonic() + _END_SECONDS
            if self._link is not None:
                self._link.finish()

    def _open_log(self) -> int:
        path = os.path.join(self._daemon.directory, "daemon.log")
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def daemon_environment() -> dict[str, str]:
    """What of the keeper's environment the daemon gets: nothing that would change its interpreter."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("UNIKEEL_", "LC_"))}
    kept.update({name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ})
    return kept
