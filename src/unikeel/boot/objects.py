"""Cache objects on disk: ``objects/ab/<sha256>``, mode 0444, complete and on disk before they have their name.

What was just read serves at once, complete but neither hashed nor synced, under a provisional name, ``objects/pending/<owner>…``; it gets its
own soon, or goes when its owner has died.

They are opened only through a read-only detached clone of the directory, so that a descriptor handed to a monitor gives
nobody, not even uid 0 or the file's owner, a way to change the bytes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unikeel.kernel import mounts
from unikeel.kernel.fd import OwnedFd
from unikeel.lean import Final

_HEX: Final = frozenset("0123456789abcdef")

#: Where objects lie whose digest is not known yet; provisional names begin with it.
PENDING: Final = "pending"

#: Opens a directory so that nothing beneath it can be changed through it.
Door = Callable[[str], OwnedFd]


class ObjectStore:
    """The files of one cache.

    :param directory: holds ``objects`` and ``tmp``, which are made if they are missing.
    :param owner: token of this process; names of unfinished files begin with it.
    :param door: how ``objects`` is opened for reading; tests without root pass a plain open.
    """

    def __init__(self, directory: str, owner: str, door: Door = mounts.sealed_clone) -> None:
        self._objects = os.path.join(directory, "objects")
        self._tmp = os.path.join(directory, "tmp")
        self._owner = owner
        self._door = door
        self._sealed: OwnedFd | None = None
        self._count = 0
        self._pending = os.path.join(self._objects, PENDING)
        for path in (self._objects, self._tmp, self._pending):
            os.makedirs(path, mode=0o700, exist_ok=True)

    def sealed(self) -> OwnedFd:
        """The directory as objects are opened in it; the first call opens it.

        :raise OSError: it cannot be opened as it must be. :raise Unavailable: the kernel lacks the calls.
        """
        if self._sealed is None:
            self._sealed = self._door(self._objects)
        return self._sealed

    def open(self, digest: str, size: int) -> OwnedFd | None:
        """An object, read-only; None if it is missing, not a regular file, or has another size.

        Raises as :meth:`sealed`.
        """
        sealed = self.sealed()
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = OwnedFd(os.open(_relative(digest), flags, dir_fd=sealed.fileno()))
        except FileNotFoundError:
            return None
        info = os.fstat(fd.fileno())
        if stat.S_ISREG(info.st_mode) and info.st_size == size:
            return fd
        fd.close()
        return None

    def close(self) -> None:
        """Close the directory; open objects stay open."""
        if self._sealed is not None:
            self._sealed.close()
            self._sealed = None

    @contextmanager
    def unfinished(self) -> Iterator[tuple[str, int]]:
        """The path and descriptor of a new empty file; whatever is left at the path afterwards is removed."""
        self._count += 1
        path = os.path.join(self._tmp, f"{self._owner}.{os.getpid()}.{self._count}.{os.urandom(4).hex()}")
        try:
            with OwnedFd(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)) as fd:
                yield path, fd.fileno()
        finally:
            _unlink(path)

    def provide(self, path: str) -> str:
        """Give an unfinished file a provisional name, by which :meth:`open` finds it; the name."""
        name = f"{PENDING}/{os.path.basename(path)}"
        os.rename(path, self.path(name))
        return name

    def path(self, digest: str) -> str:
        """Where an object is, also one with a provisional name."""
        return os.path.join(self._objects, _relative(digest))

    def publish(self, path: str, digest: str) -> None:
        """Give a complete file, already synced, its name; the name is on disk when this returns.

        Called in a write transaction, as :meth:`discard` is, so that the two never meet.
        """
        directory = os.path.join(self._objects, digest[:2])
        try:
            os.mkdir(directory, 0o700)
            _sync_directory(self._objects)
        except FileExistsError:
            pass
        os.rename(path, os.path.join(directory, digest))
        _sync_directory(directory)

    def discard(self, digest: str) -> bool:
        """Take an object away; whether it was there. Who has it open keeps it."""
        return _unlink(self.path(digest))

    def digests(self) -> list[str]:
        """All objects on disk, recorded or not."""
        found = []
        for prefix in os.listdir(self._objects):
            found += [name for name in os.listdir(os.path.join(self._objects, prefix)) if _is_digest(name)]
        return found

    def sweep(self, is_dead: Callable[[str], bool]) -> list[tuple[str, int]]:
        """Remove the unfinished files of dead owners, and those that never got their digest; their names and sizes."""
        swept = []
        for path in [os.path.join(place, name) for place in (self._tmp, self._pending) for name in os.listdir(place)]:
            name = os.path.basename(path)
            if is_dead(name.partition(".")[0]):
                try:
                    swept.append((name, os.lstat(path).st_size))
                except FileNotFoundError:
                    continue
                _unlink(path)
        return swept


def owner_of(digest: str) -> str:
    """The process that computes the digest of an object with a provisional name; empty for all others."""
    place, _, name = digest.rpartition("/")
    return name.partition(".")[0] if place == PENDING else ""


def digest_of(fd: int) -> str:
    """SHA-256, in hex, of a whole file, read in pieces."""
    import hashlib

    with open(os.dup(fd), "rb", buffering=0) as file:
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _relative(digest: str) -> str:
    return digest if digest.startswith(PENDING) else f"{digest[:2]}/{digest}"


def _is_digest(name: str) -> bool:
    return len(name) == 64 and _HEX.issuperset(name)


def _sync_directory(path: str) -> None:
    with OwnedFd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        os.fsync(fd.fileno())


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True
