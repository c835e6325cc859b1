"""The back end ``file``: every snapshot with content of its own is one image file, named by its id.

Order of things, so that a kill at any instruction leaves nothing that the next reconciliation cannot tell: a record in state
``creating`` is written before the file is made; the file and its name are on disk before the record becomes ``ready``; a
removed record's id is in the trash, in the same transaction, before the file goes. Ids are never used twice, so a file can be
taken away at leisure. Committed images are opened for reading only.

The first of these records is not flushed: if it goes with the host's power, its id was given to nobody, and the file of that name, if there is one, is one that
no record names.

On XFS, a clone of a committed image is made without a name, which it is given within the one transaction that writes its record; and it is not flushed. The
record is. A file that the host's end took is made again from the parent: nobody can have flushed anything into it, since that would have had its name on the disk, and
its name is not there without the whole clone (:attr:`~unikeel.snapshots.image_files.ImageFiles.in_order`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from unikeel.errors import BadContent, FailedPrecondition, Unavailable, UnikeelError
from unikeel.kernel.reflink import shared_bytes
from unikeel.lean import TYPE_CHECKING, Final
from unikeel.records.database import Database
from unikeel.records.failpoint import failpoint
from unikeel.records.owners import boot_id
from unikeel.snapshots.contract import RAW_ONLY, Disk, How, Info, Kind, Mount, Reconciled, Usage
from unikeel.snapshots.copying import make_writable
from unikeel.snapshots.image_files import ImageFiles, translated
from unikeel.snapshots.metadata import Metadata
from unikeel.snapshots.recorded import IsDead, RecordedStore, everyone_lives
from unikeel.snapshots.rows import Clone, Record
from unikeel.snapshots.spare_files import SpareFiles, is_scarce
from unikeel.snapshots.spare_records import is_unpacking
from unikeel.snapshots.tidying import Tidier

if TYPE_CHECKING:
    from unikeel.snapshots.spares import SpareLimits, Spares

#: The size of an empty file system, in bytes, unless the store is told another one. Files are sparse.
EMPTY_SIZE: Final = 1 << 30

_ACTIVE: Final = ("loop", "rw")
_READ_ONLY: Final = ("loop", "ro", "noload")


class FileStore(RecordedStore):
    """A :class:`~unikeel.snapshots.contract.SnapshotStore` of image files in one directory.

    :param directory: where the images are; made if missing. One directory belongs to one record store.
    :param database: the state root's record store; not closed by :meth:`close`.
    :param consumer: whose names these are; stores with different consumers do not see each other's snapshots.
    :param owner: the token of this process's :class:`~unikeel.records.owners.Owner`.
    :param is_dead: tells whether an owner's token is a dead process's; what such a one left half made is undone when its name
        is wanted, and by :meth:`reconcile`. Without it, everyone counts as living.
    :param empty_size: the size of file systems made without a parent, in bytes.
    :param store: what the records are called that belong to this directory; several such stores may share a record store.
    :param admit: asked before anything is made; raises ``ResourceExhausted`` if there is no room for it.
    :param spares: how many snapshots are made ahead for parents in demand, where files can share blocks; None: none.
    :param boot: the identifier of this boot of the host; empty: it is asked of the kernel.
    :param scarce: whether room is getting scarce, so that spares are given back; without it, when less than a tenth of the disk is free.
    :raise FailedPrecondition: the directory and the record store do not belong together; nothing was changed.
    """

    _flushes_intents = False

    def __init__(
        self,
        directory: str,
        database: Database,
        *,
        consumer: str,
        owner: str,
        is_dead: IsDead = everyone_lives,
        empty_size: int = EMPTY_SIZE,
        store: str = "file",
        admit: Callable[[], None] | None = None,
        spares: SpareLimits | None = None,
        scarce: Callable[[], bool] | None = None,
        boot: str = "",
    ) -> None:
        metadata = Metadata(database, store=store, consumer=consumer, owner=owner)
        super().__init__(metadata, is_dead, point="snapshots")
        self._admit = admit
        self._files = ImageFiles(directory)
        self._boot = boot or boot_id()
        self._tidier = Tidier(self._metadata, self._files, self._boot)
        self._empty_size = empty_size
        try:
            self._check_mark(directory)
        except BaseException:
            self._files.close()
            raise
        self._spares = self._spares_of(spares, scarce or (lambda: is_scarce(directory))) if spares else None

    def _spares_of(self, limits: SpareLimits, scarce: Callable[[], bool]) -> Spares:
        from unikeel.snapshots.spares import Spares

        return Spares(self._metadata.spares(), SpareFiles(self._files, self._tidier), limits, scarce)

    def _calling(self) -> AbstractContextManager[None]:
        """A call is being answered, in whose way no spare should be."""
        return nullcontext() if self._spares is None else self._spares.calling()

    def _check_mark(self, directory: str) -> None:
        with translated(f"read the mark of the snapshot directory {directory}"):
            tied, mark = self._metadata.mark(), self._files.mark()
            if tied and tied == mark:
                return
            if tied and not mark and not self._metadata.with_content():
                self._files.set_mark(tied)
                return
            tied = self._metadata.tie(self._new_mark)
            if tied == self._files.mark():
                return
        raise FailedPrecondition(
            f"the snapshot directory {directory} does not belong to this record store",
            "put back the directory or the record store that belong together",
        )

    def _new_mark(self) -> str:
        mark = os.urandom(16).hex()
        self._files.set_mark(mark)
        return mark

    # --- making ---------------------------------------------------------------------------------------------------------

    def prepare(
        self, key: str, parent: str, labels: Mapping[str, str] | None = None, *, formats: frozenset[str] = RAW_ONLY
    ) -> list[Mount]:
        """See the contract. One durable transaction and, if there is no spare, a file: a clone whose name is a part of it on XFS, else one that is durable before."""
        with self._calling(), self._cloning(parent) as clone, self._errors(f"make snapshot {key!r}"):
            record = self._begin(key, parent, Kind.ACTIVE, labels, clone)
            failpoint("snapshots.prepare.recorded")
            how = record.how if record.ready else self._make(record, formats)
        if self._spares is not None and how is How.REFLINK and record.parent_id is not None and not is_unpacking(key):
            self._spares.asked_for(record.parent_id)
        failpoint("snapshots.prepare.done")
        return self._mounts(record.id, record.parent_id, Kind.ACTIVE, how)

    @contextmanager
    def _cloning(self, parent: str) -> Iterator[Clone | None]:
        """A clone of the parent for a new record; None: where its name would not do, where there is a spare, and where blocks cannot be shared."""
        above = self._metadata.sought(parent) if self._files.in_order else None
        if above is None or (self._spares is not None and self._metadata.has_spare(above.id)):
            yield None
            return
        try:
            with self._errors(f"clone snapshot {parent!r}"):
                fd = self._files.cloned(above.id)
        except Unavailable:
            yield None
            return
        failpoint("snapshots.prepare.cloned")

        def give_name(number: int) -> None:
            self._files.give_name(fd, number)
            failpoint("snapshots.prepare.named")

        try:
            yield Clone(above.id, give_name, self._boot)
        finally:
            os.close(fd)

    def make_spares(self, parent: str, count: int) -> int:
        """Make snapshots ahead of a parent's demand, now, if this store makes any; returns how many. :raise NotFound: no such parent. :raise Unavailable: blocks cannot be shared."""
        above = self._metadata.find(parent)
        for _ in range(count if self._spares is not None else 0):
            assert self._spares is not None
            self._spares.make(above.id)
        return count if self._spares is not None else 0

    def _make(self, record: Record, formats: frozenset[str]) -> How:
        """Make the image of an announced snapshot, and the record ready."""
        with self._making(record):
            fd = self._files.create(record.id)
            try:
                how, size = self._fill(record, fd, formats)
                failpoint("snapshots.prepare.made")
                os.fsync(
                    fd
                )  # of a new file: ext4, XFS and btrfs put its name on disk with it, which saves one more wait
            finally:
                os.close(fd)
            failpoint("snapshots.prepare.synced")
            self._metadata.finish(record, how, size, Usage(0, 0))
        return how

    def _fill(self, record: Record, fd: int, formats: frozenset[str]) -> tuple[How, int]:
        """Give a new image its content; returns how, and the size that a guest sees."""
        if record.parent_id is None:
            from unikeel.snapshots.empty import write_empty

            write_empty(fd, self._empty_size)
            return How.EMPTY, os.fstat(fd).st_size
        source = self._files.open(record.parent_id)
        try:
            return make_writable(source, fd, formats), record.virtual_size
        finally:
            os.close(source)

    def view(self, key: str, parent: str, labels: Mapping[str, str] | None = None) -> list[Mount]:
        """See the contract. A view of a parent is a record alone; it shows the parent's own file."""
        with self._calling():
            record = self._begin(key, parent, Kind.VIEW, labels)
            failpoint("snapshots.view.recorded")
            if not record.ready:
                self._make_sealed(record, lambda fd: self._fill_nothing(record, fd), How.EMPTY, "snapshots.view")
        failpoint("snapshots.view.done")
        return self._mounts(record.id, record.parent_id, Kind.VIEW, record.how)

    def _fill_nothing(self, record: Record, fd: int) -> None:
        self._fill(record, fd, RAW_ONLY)

    def import_committed(self, name: str, labels: Mapping[str, str] | None, fill: Callable[[int], object]) -> Info:
        """See the contract."""
        record = self._begin(name, "", Kind.COMMITTED, labels)
        failpoint("snapshots.import.recorded")
        self._make_sealed(record, fill, How.FILLED, "snapshots.import")
        failpoint("snapshots.import.done")
        return record.info

    def _make_sealed(self, record: Record, fill: Callable[[int], object], how: How, point: str) -> None:
        """Make an image that is read-only from the start, and its record ready."""
        with self._making(record):
            fd = self._files.create(record.id)
            try:
                fill(fd)
                failpoint(f"{point}.made")
                self._files.seal(fd)
                status = os.fstat(fd)
            finally:
                os.close(fd)
            self._files.sync()
            failpoint(f"{point}.synced")
            self._metadata.finish(record, how, status.st_size, Usage(status.st_blocks * 512, 1))

    def _undo(self, record: Record) -> None:
        self._tidier.undo(record)

    def _begin(
        self, name: str, parent: str, kind: Kind, labels: Mapping[str, str] | None, clone: Clone | None = None
    ) -> Record:
        if self._admit is not None and not (kind is Kind.VIEW and parent):  # such a view takes no room
            self._admit()
        return super()._begin(name, parent, kind, labels, clone)

    def _errors(self, doing: str) -> AbstractContextManager[None]:
        return translated(doing)

    # --- looking ----------------------------------------------------------------------------------------------------------

    def mounts(self, key: str) -> list[Mount]:
        """See the contract. An overlay's mount has the type ``qcow2``, which no host mounts by mistake."""
        record = self._with_mounts(key)
        self._mend(record)
        return self._mounts(record.id, record.parent_id, record.info.kind, record.how)

    def _mounts(self, number: int, parent: int | None, kind: Kind, how: How) -> list[Mount]:
        source = self._files.path(parent if how is How.PARENT and parent is not None else number)
        if how is How.QCOW2:
            return [Mount("qcow2", source, ("rw",))]
        return [Mount("ext4", source, _ACTIVE if kind is Kind.ACTIVE else _READ_ONLY)]

    def disk(self, key: str) -> Disk:
        """See the contract. ``how`` is ``parent`` for what is used in place: views and committed snapshots."""
        record = self._metadata.find(key)
        size, parent = record.virtual_size, record.parent_id
        if record.info.kind is not Kind.ACTIVE:
            number = parent if record.how is How.PARENT and parent is not None else record.id
            return Disk(self._files.path(number), "raw", None, True, size, How.PARENT)
        self._mend(record)
        path = self._files.path(record.id)
        if record.how is How.QCOW2 and parent is not None:
            return Disk(path, "qcow2", self._files.path(parent), False, size, record.how)
        return Disk(path, "raw", None, False, size, record.how)

    def _mend(self, record: Record) -> None:
        """Make an active image writable again that a killed commit sealed and did not record, and one again that the host's end took."""
        if record.info.kind is not Kind.ACTIVE:
            return
        try:
            sealed = self._files.is_sealed(record.id)
        except BadContent:
            self._tidier.make_again()
            sealed = self._files.is_sealed(record.id)
        if sealed:
            self._metadata.still_active(record, lambda: self._files.unseal(record.id))

    def usage(self, key: str) -> Usage:
        """See the contract. Blocks shared with other files are not counted for active snapshots that share any."""
        record = self._metadata.find(key)
        if record.info.kind is Kind.COMMITTED or record.how is How.PARENT:
            return record.used
        self._mend(record)
        fd = self._files.open(record.id)
        try:
            return self._occupied(fd, record.how)
        finally:
            os.close(fd)

    def _occupied(self, fd: int, how: How) -> Usage:
        blocks = os.fstat(fd).st_blocks * 512
        if how is How.REFLINK:
            with suppress(Unavailable):
                blocks = max(0, blocks - shared_bytes(fd))
        return Usage(blocks, 1)

    # --- changing ---------------------------------------------------------------------------------------------------------

    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, *, parent: str = "") -> None:
        """See the contract. One transaction, within which the image becomes read-only; its data is on disk before."""
        self._check_free(name)
        record = self._metadata.find(key)
        self._check_committable(record, parent)
        with self._calling(), translated(f"commit snapshot {key!r}"):
            self._mend(record)
            fd = self._files.open(record.id)
            try:
                os.fsync(fd)
                failpoint("snapshots.commit.synced")
                used = self._occupied(fd, record.how)
                self._commit(name, record, labels or {}, used, fd)
            finally:
                os.close(fd)
        failpoint("snapshots.commit.done")

    def _check_committable(self, record: Record, parent: str) -> None:
        super()._check_committable(record, parent)
        if record.how is How.QCOW2:
            raise FailedPrecondition(
                f"snapshot {record.info.name!r} is an overlay that only its monitor may read",
                "prepare it for raw images to commit it",
            )

    def _commit(self, name: str, record: Record, labels: Mapping[str, str], used: Usage, fd: int) -> None:
        def seal() -> None:
            self._files.seal(fd)
            failpoint("snapshots.commit.sealed")

        try:
            self._metadata.commit(name, record, labels, used, seal)
        except BaseException:
            with suppress(UnikeelError, OSError):
                self._metadata.still_active(record, lambda: self._files.unseal(record.id))
            raise

    def cleanup(self) -> int:
        """See the contract. In batches, so that another process may take part."""
        return self._tidier.cleanup()

    def reconcile(self, is_dead: Callable[[str], bool] | None = None) -> Reconciled:
        """See the contract. May run beside living processes."""
        return self._tidier.reconcile(is_dead or self._is_dead)

    def close(self) -> None:
        """See the contract. Spares stay."""
        if self._spares is not None:
            self._spares.close()
        self._files.close()
