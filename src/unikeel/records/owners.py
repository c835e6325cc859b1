"""Who a record belongs to, and whether that process still lives.

Every process that works on a state root holds an exclusive ``flock`` on a file of its own in ``owners/`` for as long as it
lives; the kernel drops the lock with the process, whatever killed it. So "is this owner dead?" is answered by trying its lock,
which neither a recycled pid nor a reboot can confuse. The file's content (pid, start time, boot id) is for people.
"""

from __future__ import annotations

import errno
import fcntl
import os
from functools import cache
from types import TracebackType

from unikeel.lean import Final, Self

#: How the files of owners end, after their token.
SUFFIX: Final = ".lock"
_SHORT: Final = 4096


@cache
def boot_id() -> str:
    """The kernel's random identifier of this boot of the host."""
    return _read("/proc/sys/kernel/random/boot_id").decode("ascii").strip()


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot (proc(5), field 22); 0 if there is no such process."""
    try:
        return int(_read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _read(path: str) -> bytes:
    """A short file of the kernel's, without what Python's files are for."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _SHORT)
    finally:
        os.close(fd)


class Owner:
    """This process as an owner of records: holds its lock from construction until :meth:`close`.

    :param directory: the state root's ``owners`` directory, which must exist.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.token, self._fd = "", -1
        while self._fd < 0:
            self.token = f"{os.getpid()}-{os.urandom(6).hex()}"
            self._fd = _locked_file(os.path.join(directory, self.token + SUFFIX))

    def is_dead(self, token: str) -> bool:
        """Whether the owner behind a token is gone. Our own token is alive."""
        if token == self.token:
            return False
        return owner_is_dead(self._directory, token)

    def close(self) -> None:
        """Give the lock up and take the file away. Closing twice is fine."""
        if self._fd < 0:
            return
        os.unlink(os.path.join(self._directory, self.token + SUFFIX))
        os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _locked_file(path: str) -> int:
    """A new file, locked, as a descriptor; -1 if a sweeper took it away between our making and our locking it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    if os.fstat(fd).st_nlink == 0:
        os.close(fd)
        return -1
    os.write(fd, f"{os.getpid()} {start_time(os.getpid())} {boot_id()}\n".encode())
    return fd


def owner_is_dead(directory: str, token: str) -> bool:
    """Whether no process holds the lock of this token."""
    path = os.path.join(directory, token + SUFFIX)
    try:
        fd = _lock_of_the_dead(path)
    except FileNotFoundError:
        return True
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def _lock_of_the_dead(path: str) -> int:
    """The lock of an owner that does not live, as a descriptor; -1 if it does. :raise FileNotFoundError: it has no file any more."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return -1
        raise
    return fd


def was_killed(directory: str, token: str) -> bool:
    """Whether this owner died without closing, and nobody has swept up since: its file is there, unlocked."""
    return bool(token) and os.path.exists(os.path.join(directory, token + SUFFIX)) and owner_is_dead(directory, token)


def sweep(directory: str) -> None:
    """Take away the files of dead owners, after the records that name them are dealt with.

    Each is taken away under its own lock: whoever is about to become an owner has made its file and waits for that lock, sees then that the file is gone, and makes
    another. To look first and take away later would leave a living owner without its file, and everybody else would think it dead.
    """
    for name in os.listdir(directory):
        if not name.endswith(SUFFIX):
            continue
        path = os.path.join(directory, name)
        try:
            fd = _lock_of_the_dead(path)
        except FileNotFoundError:
            continue
        if fd < 0:
            continue
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue
        finally:
            os.close(fd)
