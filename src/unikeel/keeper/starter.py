"""Starting the keeper's process: one per state root.

It holds ``keeper.lock`` for as long as it lives; starting one is serialized by ``keeper.start``. The listening socket is made here, so that it can be
connected to before the process has finished starting.
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
import time
from contextlib import closing

from unikeel.keeper.wire import short_path
from unikeel.lean import Final, NoReturn, socket
from unikeel.values import NamedTuple

_LOG_MAX: Final = 256 * 1024
_LOOK_SECONDS: Final = 0.01
#: What of the environment is the daemon's, through the keeper's.
_DAEMON_PREFIXES: Final = ("UNIKEEL_", "LC_")
_DAEMON_NAMES: Final = ("HOME", "LANG")
#: What a service manager tells a service.
SERVICE_VARIABLES: Final = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "LISTEN_PIDFDID", "FDSTORE")


class KeeperSettings(NamedTuple):
    """Where the keeper's socket is, and its idle times in seconds (its own, a held view's).

    ``daemon``: the command of the daemon, whose parent it is; empty: it has none. ``listen``: names and paths at which it listens for the daemon from the
    beginning. ``starts``: whether a keeper may be started where none lives; not by the daemon, whose keeper lives or is to be left alone.
    """

    directory: str
    idle: float = 3.0
    view_idle: float = 2.0
    daemon: tuple[str, ...] = ()
    listen: tuple[tuple[str, str], ...] = ()
    starts: bool = True


def new_socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)


def locked(directory: str, seconds: float = 0.0) -> int:
    """The lock that says "a keeper lives"; waits so long for one that is dying. :raise BlockingIOError: one lives."""
    gate = os.open(os.path.join(directory, "keeper.start"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    lock = os.open(os.path.join(directory, "keeper.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)
        end = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise
                select.select((), (), (), _LOOK_SECONDS)
            else:
                return lock
    except BaseException:
        os.close(lock)
        raise
    finally:
        os.close(gate)


def bind(directory: str) -> socket.socket:
    """The listening socket, in place of one that an earlier keeper left. Only for who has the lock."""
    path = os.path.join(directory, "keeper.sock")
    if os.path.lexists(path):
        os.unlink(path)
    listener = new_socket()
    try:
        with short_path(directory, "keeper.sock") as short:
            listener.bind(short)
        os.chmod(path, 0o600)
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


def open_log(directory: str) -> int:
    """``keeper.log``, begun anew where it is long."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    log = os.open(os.path.join(directory, "keeper.log"), flags, 0o600)
    if os.fstat(log).st_size > _LOG_MAX:
        os.ftruncate(log, 0)
    return log


def _command(settings: KeeperSettings, *, foreground: bool) -> list[str]:
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    call = "main(foreground=True)" if foreground else "main()"
    code = f"import sys; sys.path.insert(0, {source!r}); from unikeel.keeper.main import main; {call}"
    argv = [sys.executable, "-I", "-S", "-c", code, str(settings.idle), str(settings.view_idle)]
    argv.append(os.path.abspath(settings.directory))
    if settings.daemon:
        import json

        argv.append(json.dumps({"daemon": settings.daemon, "listen": settings.listen}))
    return argv


def become(settings: KeeperSettings) -> NoReturn:
    """Be the keeper from here on, in the foreground: this process is replaced by it. For a service's main process."""
    environment = _environment(daemon=bool(settings.daemon))
    environment.update({name: os.environ[name] for name in SERVICE_VARIABLES if name in os.environ})
    os.execve(sys.executable, _command(settings, foreground=True), environment)  # noqa: S606 - there is no shell


class Starter:
    """Starts the keeper's process, and reaps the intermediate one that it leaves behind."""

    def __init__(self, settings: KeeperSettings) -> None:
        self._settings = settings
        self._intermediate = 0

    def start(self) -> bool:
        """Start a keeper unless one lives; returns whether this call did. The socket can be connected to at once."""
        settings = self._settings
        if not settings.starts:
            return False
        directory = settings.directory
        gate = os.open(os.path.join(directory, "keeper.start"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(gate, fcntl.LOCK_EX)
            lock = os.open(os.path.join(directory, "keeper.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                return False
            try:
                self._spawn(lock)
            finally:
                os.close(lock)
        finally:
            os.close(gate)
        return True

    def _spawn(self, lock: int) -> None:
        directory = self._settings.directory
        log = open_log(directory)
        try:
            listener = bind(directory)
            with closing(listener):
                self.reap()
                self._intermediate = self._posix_spawn(listener.fileno(), lock, log)
        finally:
            os.close(log)

    def _posix_spawn(self, listener: int, lock: int, log: int) -> int:
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in (listener, lock, log)]
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, high[2], 1),
            (os.POSIX_SPAWN_DUP2, high[2], 2),
            (os.POSIX_SPAWN_DUP2, high[1], 3),
            (os.POSIX_SPAWN_DUP2, high[0], 4),
        ]
        argv = _command(self._settings, foreground=False)
        environment = _environment(daemon=bool(self._settings.daemon))
        try:
            return os.posix_spawn(sys.executable, argv, environment, file_actions=actions)
        finally:
            for fd in high:
                os.close(fd)

    def reap(self) -> None:
        """Wait for the intermediate process (which ends as soon as the interpreter is up)."""
        pid, self._intermediate = self._intermediate, 0
        if pid:
            os.waitpid(pid, 0)


def _environment(*, daemon: bool) -> dict[str, str]:
    """What the keeper gets of our environment: where programs are, and the fail points that are its own; for a daemon, what is the daemon's too."""
    environment = {"PATH": os.environ.get("PATH", os.defpath)}
    if daemon:
        wanted = [name for name in os.environ if name in _DAEMON_NAMES or name.startswith(_DAEMON_PREFIXES)]
    else:
        ours = os.environ.get("UNIKEEL_FAILPOINT", "").startswith("keeper")
        wanted = [*(("UNIKEEL_FAILPOINT", "UNIKEEL_FAILPOINT_FILE") if ours else ()), "UNIKEEL_FAILPOINT_TRACE"]
    environment.update({name: os.environ[name] for name in wanted if name in os.environ})
    return environment
