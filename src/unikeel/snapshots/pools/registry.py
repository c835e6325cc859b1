"""The pools of a state root, in files, so that a lost or damaged record store does not take the way to them along::

ROOT/pools/
  lock                held while a pool is made or taken away
  NAME/
    definition.json   what it is made of (:mod:`.definition`)
    lock              shared: a store uses the pool; exclusive: it is repaired or taken away
    activation.lock   held while it is activated or grown
    data, metadata    a pool on files: those
    mounted/          a pool of the kind ``file``: its file system
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from unikeel.errors import AlreadyExists, BadContent, FailedPrecondition, InvalidArgument, NotFound
from unikeel.kernel.fd import OwnedFd, open_path
from unikeel.lean import Final
from unikeel.snapshots.image_files import translated
from unikeel.snapshots.pools.definition import LIMIT, Pool, PoolState, check_name, decode, encode

_DEFINITION: Final = "definition.json"
_NEW: Final = "definition.new"
_USE: Final = "lock"
_ACTIVATION: Final = "activation.lock"
_LOCKS: Final = (_USE, _ACTIVATION)


class Registry:
    """The pools below one directory. Looking makes nothing.

    :param directory: ``ROOT/pools``; made (0700) with the first pool.
    """

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)

    # --- paths ------------------------------------------------------------------------------------------------------------

    def place(self, name: str) -> str:
        """The directory of a pool."""
        return os.path.join(self.directory, name)

    def data_file(self, name: str) -> str:
        """The file of a pool on files."""
        return os.path.join(self.place(name), "data")

    def metadata_file(self, name: str) -> str:
        """The metadata's file of a thin pool on files."""
        return os.path.join(self.place(name), "metadata")

    def mounted(self, name: str) -> str:
        """Where the file system of a pool of the kind ``file`` is mounted."""
        return os.path.join(self.place(name), "mounted")

    @property
    def database(self) -> str:
        """The record store beside the pools."""
        return os.path.join(os.path.dirname(self.directory), "state.db")

    # --- looking ------------------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """All pools, also half-made ones, sorted."""
        try:
            found = os.listdir(self.directory)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in found if os.path.isdir(self.place(name)))

    def read(self, name: str) -> Pool:
        """A pool's definition, in whatever state. :raise NotFound: there is none. :raise BadContent: it is damaged."""
        check_name(name)
        path = os.path.join(self.place(name), _DEFINITION)
        try:
            with open_path(path, os.O_RDONLY | os.O_NOFOLLOW) as file:
                pool = decode(os.read(file.fileno(), LIMIT + 1), path)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"there is no pool {name!r}", self._known()) from None
        if pool.name != name:
            raise BadContent(f"{path} is the definition of another pool, {pool.name!r}")
        return pool

    def _known(self) -> str:
        names = self.names()
        return f"known: {', '.join(names)}" if names else "make one with `unikeel pool create`"

    def find(self, name: str) -> Pool:
        """A pool that can be used. :raise NotFound: there is none. :raise FailedPrecondition: it is half made or half gone."""
        pool = self.read(name)
        if pool.state is not PoolState.READY:
            raise FailedPrecondition(
                f"pool {name!r} is being {_GERUND[pool.state]}", "if nobody does, `unikeel reconcile` clears it up"
            )
        return pool

    # --- writing -----------------------------------------------------------------------------------------------------------

    def add(self, pool: Pool) -> None:
        """Write a new pool's definition down, durably, before anything of it is made. The registry's lock is held.

        The locks are made only here: one that is opened later cannot come into being in a directory that is going away.

        :raise AlreadyExists: the name is taken.
        """
        check_name(pool.name)
        with translated(f"make the directory of pool {pool.name!r}"):
            try:
                os.mkdir(self.place(pool.name), 0o700)
            except FileExistsError:
                raise AlreadyExists(f"pool {pool.name!r} exists already") from None
            _sync_directory(self.directory)
            for lock in _LOCKS:
                _lock_file(self.place(pool.name), lock, os.O_CREAT).close()
        self.write(pool)

    def write(self, pool: Pool) -> None:
        """Put a definition in place of the old one, durably."""
        with translated(f"write the definition of pool {pool.name!r}"):
            place = open_path(self.place(pool.name), os.O_RDONLY | os.O_DIRECTORY)
            with place:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
                with OwnedFd(os.open(_NEW, flags, 0o600, dir_fd=place.fileno())) as file:
                    os.write(file.fileno(), encode(pool))
                    os.fsync(file.fileno())
                os.rename(_NEW, _DEFINITION, src_dir_fd=place.fileno(), dst_dir_fd=place.fileno())
                os.fsync(place.fileno())

    def forget(self, name: str) -> None:
        """Take a pool's directory away, the definition last. Nothing of it is mounted or in use any more; the registry's lock is held."""
        place = self.place(name)
        with translated(f"take away the directory of pool {name!r}"):
            for entry in sorted(os.listdir(place), key=lambda entry: entry == _DEFINITION):
                path = os.path.join(place, entry)
                if os.path.isdir(path) and not os.path.islink(path):
                    os.rmdir(path)
                else:
                    os.unlink(path)
            os.rmdir(place)
            _sync_directory(self.directory)

    # --- taking turns --------------------------------------------------------------------------------------------------------

    @contextmanager
    def changing(self) -> Iterator[None]:
        """While pools are made or taken away: one process at a time. Makes the directory."""
        with translated(f"open {self.directory}"):
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            lock = _lock_file(self.directory, "lock", os.O_CREAT)
        with lock:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
            yield

    @contextmanager
    def activating(self, name: str) -> Iterator[None]:
        """While a pool is activated, grown or taken down: one process at a time. :raise NotFound: it went."""
        with self._lock(name, _ACTIVATION, fcntl.LOCK_EX):
            yield

    def use(self, name: str) -> OwnedFd:
        """Say that a store uses the pool, until the descriptor is closed. :raise FailedPrecondition: it is being repaired or taken away."""
        return self._lock(name, _USE, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def alone(self, name: str) -> OwnedFd:
        """Keep stores from using the pool, until the descriptor is closed. :raise FailedPrecondition: one does."""
        return self._lock(name, _USE, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _lock(self, name: str, file: str, how: int) -> OwnedFd:
        try:
            lock = _lock_file(self.place(name), file)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"there is no pool {name!r}", self._known()) from None
        try:
            fcntl.flock(lock.fileno(), how)
        except OSError as error:
            lock.close()
            if error.errno != errno.EWOULDBLOCK:
                raise
            shared = how & fcntl.LOCK_SH
            text = "is being repaired or taken away" if shared else "is in use by a store of another process"
            hint = "wait for that" if shared else "stop the daemon and the commands that use it"
            raise FailedPrecondition(f"pool {name!r} {text}", hint) from None
        except BaseException:
            lock.close()
            raise
        return lock


_GERUND: Final = {PoolState.CREATING: "made", PoolState.DESTROYING: "taken away"}


def _lock_file(directory: str, name: str, more: int = 0) -> OwnedFd:
    return open_path(os.path.join(directory, name), os.O_RDWR | os.O_NOFOLLOW | more)


def _sync_directory(path: str) -> None:
    with open_path(path, os.O_RDONLY | os.O_DIRECTORY) as directory:
        os.fsync(directory.fileno())


def choose(registry: Registry, name: str) -> str:
    """The pool that is meant: the one named, or the only one there is. :raise InvalidArgument: there are several. :raise NotFound: there is none."""
    if name:
        return name
    names = registry.names()
    if not names:
        raise NotFound("there is no pool", "make one with `unikeel pool create`")
    if len(names) > 1:
        raise InvalidArgument("there are several pools", f"name one of {', '.join(names)}")
    return names[0]
