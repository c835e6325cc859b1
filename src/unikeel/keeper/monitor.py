"""One running monitor, as the keeper sees it: its console, its standard error, its process, who watches it.

The console is a unix socket on which the monitor listens, whose client the keeper is, or a pair of fifos (:mod:`.console`). Should the keeper be killed,
the monitor goes on, and the next keeper connects again. What the guest prints is appended to ``console.log``; past the configured size
the file becomes ``console.log.1`` and a new one is begun, so that a guest cannot fill the host's disk.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket

from unikeel.keeper.console import Console, connect
from unikeel.keeper.remarks import Remarks
from unikeel.keeper.stdio import Stdio

_CHUNK = 64 * 1024
_STDERR_MAX = 64 * 1024


class Log:
    """A file that is appended to, and turned over so that it and its predecessor together have at most ``limit`` bytes (or one chunk)."""

    def __init__(self, path: str, limit: int) -> None:
        self.path = path
        self._limit = limit // 2
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._size = os.fstat(self._fd).st_size

    def append(self, data: bytes) -> None:
        """Append; a full disk loses the bytes rather than the keeper."""
        if self._size and self._size + len(data) > self._limit:
            self._turn_over()
        try:
            self._size += os.write(self._fd, data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise

    def _turn_over(self) -> None:
        """Where no new file can be begun, the old one goes on."""
        old = self._fd
        try:
            os.replace(self.path, self.path + ".1")
            self._open()
        except OSError:
            return
        os.close(old)

    def close(self) -> None:
        """Close the file. Closing twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Monitor:
    """A monitor and what the keeper holds for it."""

    def __init__(self, ident: str, directory: str, log_limit: int, holds: frozenset[str]) -> None:
        self.ident = ident
        self.directory = directory
        self.holds = holds
        self.reaper: list[str] = []
        self.pid = 0
        self.pidfd = -1
        self.helper = 0
        self.helper_failed = False
        #: When an adopted monitor that has ended is given up for lost, on the monotonic clock; 0: it runs.
        self.reap_deadline = 0.0
        #: How it ended, once it has, until that is stored: wait status (None: unknown) and time.
        self.end: tuple[int | None, int] | None = None
        #: When it is killed because a process that it cannot do without has ended, on the monotonic clock; 0: it is served.
        self.unserved = 0.0
        #: Its file servers, if an earlier keeper had made them: they are not our children.
        self.servers: list[int] = []
        #: When storing that is tried again, on the monotonic clock.
        self.retry_at = 0.0
        self.console: Console | None = None
        self.stderr = -1
        #: The streams of the task, if it has any beside the log.
        self.stdio: Stdio | None = None
        self.log = Log(os.path.join(directory, "console.log"), log_limit)
        self.watchers: list[socket.socket] = []
        self._stderr_room = _STDERR_MAX
        self._remarks = Remarks()

    def connect(self, path: str) -> Console:
        """Reach the console. :raise OSError: that fails."""
        self.console = console = connect(path)
        return console

    def read_console(self) -> bool:
        """Take what the guest printed to the log; False when the monitor has closed its end."""
        if self.console is None:
            return False
        try:
            data = self.console.recv(_CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if not data:
            return False
        self.log.append(data)
        if self.stdio is not None and self.stdio.stdout is not None:
            self.stdio.stdout.write(data)
        return True

    def read_stderr(self) -> bool:
        """Take what the monitor itself said to ``monitor.log`` (its first 64 KiB); False at the end."""
        try:
            data = os.read(self.stderr, _CHUNK)
        except BlockingIOError:
            return True
        self._say(self._remarks.feed(data) if data else self._remarks.end())
        return bool(data)

    def remark(self, text: str) -> None:
        """Add a line of our own to what the monitor said."""
        self._say(self._remarks.end())
        self._say(f"{text}\n".encode())

    def _say(self, data: bytes) -> None:
        if not data:
            return
        if self.stdio is not None and self.stdio.stderr is not None:
            self.stdio.stderr.write(data)
        room = data[: self._stderr_room]
        self._stderr_room -= len(room)
        if room:
            path = os.path.join(self.directory, "monitor.log")
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.write(fd, room)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                    raise
            finally:
                os.close(fd)

    @property
    def console_interest(self) -> tuple[bool, bool]:
        """Whether the console is to be read from, which waits for a reader that is behind, and to be written to."""
        stdio = self.stdio
        if stdio is None:
            return True, False
        full = stdio.stdout is not None and stdio.stdout.full
        return not full, stdio.stdin is not None and stdio.stdin.waiting

    @property
    def stderr_interest(self) -> bool:
        """Whether its standard error is to be read from."""
        return self.stdio is None or self.stdio.stderr is None or not self.stdio.stderr.full

    def drain(self) -> None:
        """Read to the end what is still in the pipes of a monitor that has exited; bounded by what can be in them."""
        for _ in range(1024):
            if self.console is None or not self._more(self.console.fileno()) or not self.read_console():
                break
        for _ in range(1024):
            if self.stderr < 0 or not self._more(self.stderr) or not self.read_stderr():
                break
        self._say(self._remarks.end())

    @staticmethod
    def _more(fd: int) -> bool:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))

    def forget_exit(self) -> None:
        """Take the report of an earlier run away."""
        try:
            os.unlink(os.path.join(self.directory, "exit.json"))
        except FileNotFoundError:
            return

    def store_exit(self, status: int | None, when: int) -> dict[str, int | None]:
        """Write the exit (raw wait status, or ``None`` if unknowable) to ``exit.json``, durably and whole."""
        report = {"pid": self.pid, "status": status, "when": when}
        path = os.path.join(self.directory, "exit.json")
        data = json.dumps(report).encode()
        fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.write(fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(path + ".new", path)
        return report

    def close(self) -> None:
        """Let go of everything that is held for it."""
        if self.console is not None:
            self.console.close()
            self.console = None
        for fd in self.servers:
            os.close(fd)
        self.servers.clear()
        for name in ("stderr", "pidfd"):
            fd = int(getattr(self, name))
            if fd >= 0:
                os.close(fd)
                setattr(self, name, -1)
        self.log.close()
