"""The strategy ``cache``: read once in user space, keep by content, hand to every container.

No mount of the image, no loop device, no trust needed: the committed snapshot is read by :mod:`unikeel.boot.readers`. The
kept bytes are found by (parent's key, path), stored once per SHA-256, and hashed again in every boot of the host before their first use.
What our readers cannot read (several layers, xfs) is mounted, if it is trusted, and copied from there.

The container that a fill is made for does not wait for the digest: what was read is recorded under a provisional name and handed over; a
thread hashes it, sees that it is on disk, and gives it its own. Meanwhile it serves everybody; if the process dies first, it counts for nothing.

The bound: objects occupy at most ``size`` bytes, except that what is in use always stays. So a boot file larger than the
whole cache is kept while a container uses it, at the cost of everything unused, and goes when the container is removed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from unikeel.boot.contract import FILL, BootFile, Choice, Freed, Opened, Parent, Reach, Source, Timeline, Wanted
from unikeel.boot.ledger import Entry, Ledger
from unikeel.boot.objects import ObjectStore, digest_of, owner_of
from unikeel.boot.policy import victims
from unikeel.boot.sources import check_size, open_mounted, open_source
from unikeel.boot.spans import span
from unikeel.errors import ResourceExhausted, Unavailable
from unikeel.kernel.fd import OwnedFd
from unikeel.lean import TYPE_CHECKING, Final, sqlite3
from unikeel.records.failpoint import failpoint
from unikeel.values import NamedTuple

if TYPE_CHECKING:
    from unikeel.boot.mounted import Mounter
    from unikeel.boot.settling import Settler

NAME: Final = Choice.CACHE.value
_ROUNDS: Final = 4


class _File(NamedTuple):
    """A file to be read: what writes it to a descriptor, and its size."""

    copy_to: Callable[[int], None]
    size: int


def _in_mount(mount: OwnedFd, wanted: Sequence[Wanted]) -> Iterator[tuple[Wanted, _File]]:
    from unikeel.boot.copies import copier

    for want in wanted:
        with open_mounted(mount.fileno(), want) as origin:
            yield want, _File(copier(origin.fileno(), want.path), os.fstat(origin.fileno()).st_size)


class Cache:
    """The cache of one state root, as one process sees it.

    :param size: its bound in bytes. :param seconds: how long a fill may take. :param boot: the host's boot id.
    :param locks: directory of lock files. :param owner: the token of this process.
    """

    def __init__(
        self,
        store: ObjectStore,
        ledger: Ledger,
        way: Reach,
        mounter: Callable[[], Mounter],
        *,
        locks: str,
        size: int,
        seconds: float,
        boot: str,
        owner: str,
        is_dead: Callable[[str], bool],
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._way = way
        self._mounter = mounter
        self._owner = owner
        self._is_dead = is_dead
        self._settler: Settler | None = None
        self._locks = locks
        self._size = size
        self._seconds = seconds
        self._boot = boot

    def open(self, source: Source, wanted: Sequence[Wanted], timeline: Timeline, *, keep: bool) -> Opened:
        """See :class:`~unikeel.boot.contract.Strategy`. A warm call is one transaction and one open per file."""
        hit, notes = True, list[str]()
        for _ in range(_ROUNDS):
            entries = self._look_up(source, wanted, keep=keep)
            if entries is not None:
                opened = self._open_all(entries, wanted, hit=hit, notes=notes)
                if opened is not None:
                    return opened
            hit = False
            notes += self._fill(source, wanted, timeline, keep=keep)
        raise Unavailable(f"the boot files of {source.parent.name} do not stay in the cache", "see what removes them")

    def _look_up(self, source: Source, wanted: Sequence[Wanted], *, keep: bool) -> dict[str, Entry] | None:
        """The entries of all paths wanted, the user recorded; None if one is missing or was not hashed in this boot."""
        parent = source.parent
        if not keep:
            entries = self._ledger.entries(parent.key)
            return entries if self._complete(entries, wanted) else None
        with self._ledger.database.write(flush=False) as cursor:
            entries = self._ledger.entries_in(cursor, parent.key)
            if not self._complete(entries, wanted):
                return None
            self._ledger.use_in(cursor, source.container, NAME, parent)
            self._ledger.touch_in(cursor, {entries[want.path].digest for want in wanted})
        return entries

    def _complete(self, entries: dict[str, Entry], wanted: Sequence[Wanted]) -> bool:
        """Whether all is there; :raise PathError: one is larger than is wanted now."""
        for want in wanted:
            entry = entries.get(want.path)
            if entry is None or (entry.verified != self._boot and not self._is_settling(entry)):
                return False
            check_size(want, entry.size)
        return True

    def _is_settling(self, entry: Entry) -> bool:
        """Whether a living process has just read it, and is about to know its digest."""
        owner = owner_of(entry.digest)
        return bool(owner) and (owner == self._owner or not self._is_dead(owner))

    def _open_all(
        self, entries: dict[str, Entry], wanted: Sequence[Wanted], *, hit: bool, notes: list[str]
    ) -> Opened | None:
        """Open what the entries name; None if one is not there as recorded, which is then forgotten."""
        opened = Opened({}, hit, notes)
        try:
            for want in wanted:
                entry = entries[want.path]
                fd = self._store.open(entry.digest, entry.size)
                if fd is None:
                    if not owner_of(entry.digest):  # else it has just got its own name
                        notes.append(self._drop_damaged(entry, "it is missing or has another size"))
                    opened.close()
                    return None
                digest = None if owner_of(entry.digest) else entry.digest
                opened.files[want.role] = BootFile(want.role, want.path, fd, entry.size, digest)
        except BaseException:
            opened.close()
            raise
        return opened

    def _drop_damaged(self, entry: Entry, why: str) -> str:
        with self._ledger.database.write() as cursor:
            self._ledger.remove_in(cursor, entry.digest)
            self._store.discard(entry.digest)
        return f"the cache object {entry.digest[:12]} of {entry.path} was dropped and read again: {why}"

    # -- filling ----------------------------------------------------------------------------------------------------

    def _fill(self, source: Source, wanted: Sequence[Wanted], timeline: Timeline, *, keep: bool) -> list[str]:
        """Have all paths in the cache, by us or by another who is at it; what was found wrong on the way.

        The user is recorded already meanwhile: what is read for it is not pushed out by what is read for others.
        """

        def work() -> list[str]:
            return self._fill_missing(source, wanted, timeline)

        def meanwhile() -> None:
            if keep:
                self._ledger.use(source.container, NAME, source.parent)

        from unikeel.boot import flight

        path = os.path.join(self._locks, f"{source.parent.key}.cache")
        what = f"reading the boot files of {source.parent.name}"
        with span(timeline, "boot.cache.fill", parent=source.parent.name):
            return flight.once(path, self._seconds, what, work, lambda _notes: None, meanwhile)

    def _fill_missing(self, source: Source, wanted: Sequence[Wanted], timeline: Timeline) -> list[str]:
        entries = self._ledger.entries(source.parent.key)
        notes = [
            note
            for want in wanted
            if want.path in entries
            for note in self._verify(source, entries[want.path], timeline)
        ]
        entries = self._ledger.entries(source.parent.key)
        missing = list({want.path: want for want in wanted if want.path not in entries}.values())
        if missing:
            failpoint("boot.cache.fill")
            self._read_from_parent(source, missing, timeline)
        return notes

    def _verify(self, source: Source, entry: Entry, timeline: Timeline) -> list[str]:
        """Hash an object again if that was not done in this boot of the host."""
        if entry.verified == self._boot:
            return []
        if self._is_settling(entry):
            return self._verify_settling(source, entry)
        if owner_of(entry.digest):
            return [self._drop_damaged(entry, "who read it died before it was hashed")]
        fd = self._store.open(entry.digest, entry.size)
        if fd is None:
            return [self._drop_damaged(entry, "it is missing or has another size")]
        with fd, span(timeline, "boot.cache.verify", path=entry.path, bytes=entry.size):
            if digest_of(fd.fileno()) != entry.digest:
                return [self._drop_damaged(entry, "its bytes have changed")]
        with self._ledger.database.write() as cursor:
            self._ledger.verified_in(cursor, entry.digest, self._boot)
        return []

    def _verify_settling(self, source: Source, entry: Entry) -> list[str]:
        """See that an object without a digest is there, unless it has just got one."""
        fd = self._store.open(entry.digest, entry.size)
        if fd is not None:
            fd.close()
            return []
        now = self._ledger.entries(source.parent.key).get(entry.path)
        return [self._drop_damaged(entry, "it is missing")] if now == entry else []

    def _read_from_parent(self, source: Source, missing: Sequence[Wanted], timeline: Timeline) -> None:
        with ExitStack() as stack:
            made: list[tuple[Wanted, str, int]] = []
            with self._files(source, missing, timeline) as files:
                for want, file in files:
                    path, fd = stack.enter_context(self._store.unfinished())
                    failpoint("boot.cache.unfinished")
                    self._copy(file.copy_to, fd, file.size)
                    os.fchmod(fd, 0o444)
                    made.append((want, path, file.size))
            self._keep(source.parent, made)

    @contextmanager
    def _files(
        self, source: Source, wanted: Sequence[Wanted], timeline: Timeline
    ) -> Iterator[Iterator[tuple[Wanted, _File]]]:
        """The files in the parent, one after the other, which is given back after the block."""
        from unikeel.boot.hostmounts import image_of
        from unikeel.boot.reaching import reach

        parent = source.parent
        with reach(self._way, parent, FILL, timeline=timeline) as reached:
            image = image_of(reached.mounts)
            if image is not None:
                from unikeel.boot.readers import open_reader

                with open_source(image.source) as fd, open_reader(fd.fileno()) as reader:
                    opened = ((want, reader.open(want.path, want.max_size)) for want in wanted)
                    yield ((want, _File(file.copy_to, file.info.size)) for want, file in opened)
                return
            if not parent.trusted:
                raise Unavailable(
                    f"{parent.name} is not one image, and what is not made of the image's own layers is never mounted"
                )
            with self._mounter().mount(reached.mounts) as mount:
                yield _in_mount(mount, wanted)

    def _copy(self, copy_to: Callable[[int], None], fd: int, size: int) -> None:
        """Copy into the unfinished file; where the disk is full, all that is unused goes, once."""
        try:
            copy_to(fd)
        except ResourceExhausted as error:
            if not self.trim(0):
                raise Unavailable(f"the cache's disk is full: {error.message}", "free space on it") from error
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_SET)
            try:
                copy_to(fd)
            except ResourceExhausted as again:
                raise Unavailable(f"the cache's disk is full: {again.message}", "free space on it") from again
        if os.fstat(fd).st_size != size:
            raise Unavailable(f"{os.fstat(fd).st_size} bytes were read of a file of {size}")

    def _keep(self, parent: Parent, made: Sequence[tuple[Wanted, str, int]]) -> None:
        """Record what was read, all at once; what its digest is, shows later. The bytes are not flushed yet, so neither is the record."""
        names: list[str] = []
        try:
            with self._ledger.database.write(flush=False) as cursor:
                self._trim_in(cursor, self._size - sum(size for _, _, size in made))
                for want, path, size in made:
                    names.append(self._store.provide(path))
                    entry = Entry(want.path, names[-1], size, verified="")
                    self._ledger.add_in(cursor, parent, entry)
                failpoint("boot.cache.provided")
        except BaseException:
            for name in names:
                self._store.discard(name)
            raise
        failpoint("boot.cache.recorded")
        if self._settler is None:
            from unikeel.boot.settling import Settler

            self._settler = Settler(self._store, self._ledger, self._boot)
        for name in names:
            self._settler.add(name)

    def settle(self, seconds: float | None = None) -> bool:
        """Wait until everything that this process read has its digest; whether that is so."""
        return self._settler is None or self._settler.wait(seconds)

    # -- the bound --------------------------------------------------------------------------------------------------

    def trim(self, room: int | None = None) -> list[Freed]:
        """Take unused objects away, the least recently used first, until the rest fits the bound (or ``room`` bytes)."""
        with self._ledger.database.write() as cursor:
            return self._trim_in(cursor, self._size if room is None else room)

    def _trim_in(self, cursor: sqlite3.Cursor, room: int) -> list[Freed]:
        if self._ledger.size_in(cursor) <= max(room, 0):
            return []
        gone = victims(self._ledger.kept_in(cursor), max(room, 0))
        for entry in gone:
            self._ledger.remove_in(cursor, entry.digest)
            self._store.discard(entry.digest)
        return [Freed("object", entry.digest, entry.size) for entry in gone]

    def release(self, container: str) -> None:
        """See :class:`~unikeel.boot.contract.Strategy`: the entries stay, bounded."""
        with self._ledger.database.write(flush=False) as cursor:
            left = self._ledger.leave_in(cursor, container, NAME)
            is_over = left and self._ledger.size_in(cursor) > self._size
        if is_over:
            self.trim()

    def sweep(self) -> list[Freed]:
        """Take away the objects that no record names (what a fill left that was killed before it recorded), and the records of objects
        whose digest nobody computes any more."""
        with self._ledger.database.write() as cursor:
            orphans = [kept for kept in self._ledger.kept_in(cursor) if self._is_orphan(kept.digest)]
            for kept in orphans:
                self._ledger.remove_in(cursor, kept.digest)
                self._store.discard(kept.digest)
            known = {entry.digest for entry in self._ledger.kept_in(cursor)}
            strays = [digest for digest in self._store.digests() if digest not in known]
            for digest in strays:
                self._store.discard(digest)
        freed = [Freed("object", kept.digest, kept.size) for kept in orphans]
        return freed + [Freed("object", digest, 0) for digest in strays]

    def _is_orphan(self, digest: str) -> bool:
        owner = owner_of(digest)
        return bool(owner) and owner != self._owner and self._is_dead(owner)
