"""The strategy ``copy``: what others do, and our baseline. Mount, copy to memory, unmount, for each container.

The container's own snapshot is mounted as long as no guest of it ran (and it is a raw image), else the committed parent.
The copies lie on one tmpfs, mounted with the first copy and unmounted with the last, in a directory per container; they are kept
until the container is removed and serve its restarts. A row says so before the tmpfs is mounted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

from unikeel.boot import flight
from unikeel.boot.contract import FILL, INTENT_COPY, BootFile, Choice, Freed, Opened, Reach, Source, Timeline, Wanted
from unikeel.boot.ledger import CopyRow, Ledger
from unikeel.boot.mounted import Mounter
from unikeel.boot.reaching import reach
from unikeel.boot.sources import check_path, check_size, open_mounted
from unikeel.boot.spans import span
from unikeel.errors import Unavailable
from unikeel.kernel import locks, mounts
from unikeel.kernel.fd import OwnedFd, open_path
from unikeel.kernel.memfd import sealed
from unikeel.lean import Final
from unikeel.records.failpoint import failpoint
from unikeel.records.intents import Intent, Intents

NAME: Final = Choice.COPY.value
_CHUNK: Final = 8 << 20
_WRITABLE: Final = mounts.Attributes(read_only=False)


class Copies:
    """The per-container copies of one state root.

    :param directory: where the tmpfs is mounted; made if it is missing. :param boot: the host's boot id.
    """

    def __init__(
        self,
        directory: str,
        ledger: Ledger,
        intents: Intents,
        reach: Reach,
        mounter: Mounter,
        *,
        locks: str,
        seconds: float,
        boot: str,
    ) -> None:
        self._directory = directory
        self._ledger = ledger
        self._intents = intents
        self._reach = reach
        self._mounter = mounter
        self._locks = locks
        self._seconds = seconds
        self._boot = boot

    def open(self, source: Source, wanted: Sequence[Wanted], timeline: Timeline, *, keep: bool) -> Opened:
        """See :class:`~unikeel.boot.contract.Strategy`. Files that are only read are not copied."""
        for want in wanted:
            check_path(want.path)
        row = self._row(source, wanted)
        if row is None and not keep:
            return self._look(source, wanted, timeline)
        if row is not None:
            try:
                return self._open_copies(source.container, wanted, hit=True)
            except FileNotFoundError:  # a release was killed half way, or somebody unmounted the tmpfs
                self._mark_incomplete(row)
        self._copy_once(source, wanted, timeline)
        return self._open_copies(source.container, wanted, hit=False)

    def _mark_incomplete(self, row: CopyRow) -> None:
        with self._ledger.database.write() as cursor:
            self._ledger.put_copy_in(cursor, row._replace(complete=False))

    def _row(self, source: Source, wanted: Sequence[Wanted]) -> CopyRow | None:
        """The row of a complete copy of all that is wanted, made in this boot of the host."""
        for row in self._ledger.copies(source.container):
            right = row.complete and row.boot == self._boot and row.key == source.parent.key
            if right and row.paths.issuperset(want.path for want in wanted):
                return row
        return None

    def _look(self, source: Source, wanted: Sequence[Wanted], timeline: Timeline) -> Opened:
        """Read without keeping: into memory, so that nothing holds on to the mount when it has gone."""
        opened = Opened({}, hit=False, notes=[])
        try:
            with self._mounted(source, timeline) as mount:
                for want in wanted:
                    with open_mounted(mount.fileno(), want) as origin:
                        size = os.fstat(origin.fileno()).st_size
                        fd = sealed("boot file", copier(origin.fileno(), want.path))
                    opened.files[want.role] = BootFile(want.role, want.path, fd, size)
        except BaseException:
            opened.close()
            raise
        return opened

    @contextmanager
    def _mounted(self, source: Source, timeline: Timeline) -> Iterator[OwnedFd]:
        """The container's own snapshot as long as no guest wrote to it, else the parent; unmounted, then given back, after the block."""
        with ExitStack() as stack:
            with span(timeline, "boot.copy.mount", parent=source.parent.name):
                host = source.rootfs
                if not host or source.guest_ran:
                    host = stack.enter_context(
                        reach(self._reach, source.parent, FILL, source.container, timeline)
                    ).mounts
                mount = stack.enter_context(self._mounter.mount(host))
            yield mount

    def _open_copies(self, container: str, wanted: Sequence[Wanted], *, hit: bool) -> Opened:
        opened = Opened({}, hit, [])
        try:
            with mounts.sealed_clone(self._path(container)) as sealed:
                for want in wanted:
                    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
                    fd = OwnedFd(os.open(_name(want.path), flags, dir_fd=sealed.fileno()))
                    size = os.fstat(fd.fileno()).st_size
                    opened.files[want.role] = BootFile(want.role, want.path, fd, size)
                    check_size(want, size)
        except BaseException:
            opened.close()
            raise
        return opened

    # -- making a copy ----------------------------------------------------------------------------------------------

    def _copy_once(self, source: Source, wanted: Sequence[Wanted], timeline: Timeline) -> None:
        def work() -> None:
            if self._row(source, wanted) is None:
                self._make(source, wanted, timeline)

        path = self._lock(source.container)
        what = f"copying the boot files of {source.parent.name}"
        with span(timeline, "boot.copy.fill", parent=source.parent.name):
            flight.once(path, self._seconds, what, work, lambda _none: None)

    def _lock(self, container: str) -> str:
        return os.path.join(self._locks, f"{_name(container)}.copy")

    def _make(self, source: Source, wanted: Sequence[Wanted], timeline: Timeline) -> None:
        container = source.container
        paths = frozenset(want.path for want in wanted)
        row = CopyRow(container, source.parent.key, self._boot, complete=False, paths=paths)
        with self._ledger.database.write() as cursor:
            self._ledger.put_copy_in(cursor, row, source.parent)
            number = self._intents.begin_in(cursor, INTENT_COPY, container, consumer=source.parent.consumer)
        failpoint("boot.copy.intent")
        try:
            self._ensure_tmpfs()
            failpoint("boot.copy.tmpfs")
            self._copy_files(source, wanted, timeline)
        except BaseException:
            self._discard(container)
            self._intents.done(number)
            raise
        failpoint("boot.copy.copied")
        with self._ledger.database.write() as cursor:
            self._ledger.put_copy_in(cursor, CopyRow(container, row.key, self._boot, complete=True, paths=paths))
            self._ledger.use_in(cursor, container, NAME, source.parent)
            self._intents.done_in(cursor, number)
        failpoint("boot.copy.recorded")

    def _copy_files(self, source: Source, wanted: Sequence[Wanted], timeline: Timeline) -> None:
        directory = self._path(source.container)
        _remove_directory(directory)
        os.mkdir(directory, 0o700)
        with self._mounted(source, timeline) as mount:
            failpoint("boot.copy.mounted")
            for want in wanted:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                path = os.path.join(directory, _name(want.path))
                if os.path.lexists(path):  # one path in two roles
                    continue
                with open_mounted(mount.fileno(), want) as origin, open_path(path, flags) as target:
                    _copy(origin.fileno(), target.fileno(), want.path)
                    os.fchmod(target.fileno(), 0o444)

    def _ensure_tmpfs(self) -> None:
        """Mount the tmpfs, of unlimited size, unless it is there. A row of ours exists already: nobody unmounts it again."""
        with self._tmpfs_lock():
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            if mounts.is_mount_point(self._directory):
                return
            with mounts.detached_mount("tmpfs", None, (("size", "0"), ("mode", "0700")), _WRITABLE) as mount:
                mounts.move_mount(mount, self._directory)

    def _tmpfs_lock(self) -> AbstractContextManager[None]:
        return locks.locked(os.path.join(self._locks, "copies.tmpfs"))

    # -- giving up --------------------------------------------------------------------------------------------------

    def release(self, container: str) -> None:
        """See :class:`~unikeel.boot.contract.Strategy`."""
        if self._ledger.copies(container):
            self._discard(container)
            locks.forget(self._lock(container))

    def _discard(self, container: str) -> int:
        """Remove a container's copy, and the tmpfs with the last one; bytes given back."""
        size = self.size(container)
        _remove_directory(self._path(container))
        failpoint("boot.copy.discarded")
        with self._ledger.database.write() as cursor:
            self._ledger.remove_copy_in(cursor, container)
            self._ledger.leave_in(cursor, container, NAME)
        self.unmount_if_last()
        return size

    def unmount_if_last(self) -> bool:
        """Unmount the tmpfs if no row needs it; whether it did. Files that a monitor has open live on."""
        with self._tmpfs_lock():
            if self._ledger.copies() or not mounts.is_mount_point(self._directory):
                return False
            mounts.unmount(self._directory)
            return True

    def size(self, container: str) -> int:
        """Bytes that a container's copy occupies."""
        try:
            with os.scandir(self._path(container)) as entries:
                return sum(entry.stat().st_size for entry in entries)
        except FileNotFoundError:
            return 0

    def undo(self, intent: Intent) -> list[Freed]:
        """A process died while it copied: what there is of the copy goes."""
        rows = self._ledger.copies(intent.subject)
        if not rows or rows[0].complete:
            return []
        return [Freed(NAME, intent.subject, self._discard(intent.subject))]

    def sweep(self) -> list[Freed]:
        """Forget the copies of earlier boots of the host, whose tmpfs is gone, and a tmpfs that nobody needs."""
        stale = [row.container for row in self._ledger.copies() if row.boot != self._boot]
        freed = [Freed(NAME, container, self._discard(container)) for container in stale]
        if self.unmount_if_last():
            freed.append(Freed("tmpfs", self._directory, 0))
        return freed

    def _path(self, container: str) -> str:
        return os.path.join(self._directory, _name(container))


def _name(text: str) -> str:
    """A file name for a path or an id."""
    import hashlib

    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def copier(origin: int, path: str) -> Callable[[int], None]:
    """What copies a whole open file to a descriptor. :raise Unavailable: it is shorter than it was."""
    return lambda target: _copy(origin, target, path)


def _copy(origin: int, target: int, path: str) -> None:
    size = os.fstat(origin).st_size
    done = 0
    while done < size:
        count = os.sendfile(target, origin, done, min(_CHUNK, size - done))
        if not count:
            raise Unavailable(f"{path} ended after {done} of {size} bytes")
        done += count


def _remove_directory(path: str) -> None:
    """Remove a copy's directory, which holds files only; one that is missing is fine."""
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return
    for name in names:
        os.unlink(os.path.join(path, name))
    os.rmdir(path)
