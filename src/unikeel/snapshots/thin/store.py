"""The back end ``thin``: every snapshot with content of its own is a thin device, whose number is its record's id.

Order of things, so that a kill at any instruction leaves nothing that the next reconciliation cannot tell: a record in state ``creating`` is on the disk
before the pool is told anything; the device is in the pool before the record becomes ``ready``; a removed record's id is in the trash, in the same transaction,
before its device goes. An active device always has a record or is in the trash; numbers are never used twice.

A committed snapshot's device is read-only: sealed by the commit while it is active, and given a read-only table whenever it becomes active again. A view of
it is that device itself, which all its views share. Whose device has not been wanted for a while does without one until it is.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress

from unikeel.errors import InvalidArgument, Unavailable, UnikeelError
from unikeel.kernel import block
from unikeel.lean import Final
from unikeel.records.database import Database
from unikeel.records.failpoint import failpoint
from unikeel.snapshots.contract import RAW_ONLY, Disk, How, Info, Kind, Mount, Reconciled, Usage
from unikeel.snapshots.metadata import Metadata
from unikeel.snapshots.recorded import IsDead, RecordedStore, everyone_lives
from unikeel.snapshots.rows import Record
from unikeel.snapshots.spare_records import SpareRecords, is_unpacking
from unikeel.snapshots.spares import NO_SPARES, SpareLimits, Spares
from unikeel.snapshots.thin.base import Base
from unikeel.snapshots.thin.beside import Beside
from unikeel.snapshots.thin.devices import ThinDevices
from unikeel.snapshots.thin.errors import pool_errors
from unikeel.snapshots.thin.importing import fill_device
from unikeel.snapshots.thin.locks import lock_file
from unikeel.snapshots.thin.ownership import claim_pool
from unikeel.snapshots.thin.reference import ThinPoolRef
from unikeel.snapshots.thin.spare_devices import SpareDevices
from unikeel.snapshots.thin.tidying import ThinTidier

#: The size of an empty file system, in bytes, unless the store is told another one. Only what is written to occupies anything.
EMPTY_SIZE: Final = 10 << 30

#: How often it is looked for committed snapshots' devices that can rest, and how long nobody must have been shown one, in seconds.
_LOOK_SECONDS: Final = 60.0
_IDLE_SECONDS: Final = 900.0
_ACTIVE: Final = ("rw",)
_READ_ONLY: Final = ("ro", "noload")


def _always() -> None:
    """There is always room, as far as a store knows that nobody told otherwise."""


def _never() -> bool:
    return False


class ThinStore(RecordedStore):
    """A :class:`~unikeel.snapshots.contract.SnapshotStore` of thin devices in one pool, which is active and stays so.

    :param pool: the pool; it belongs to one record store.
    :param database: the state root's record store; not closed by :meth:`close`. Files beside it order the processes that use the pool.
    :param consumer: whose names these are; stores with different consumers do not see each other's snapshots. It does not begin with ``@``.
    :param owner: the token of this process's :class:`~unikeel.records.owners.Owner`.
    :param is_dead: tells whether an owner's token is a dead process's; what such a one left half made is undone when its name is wanted, and by
        :meth:`reconcile`. Without it, everyone counts as living.
    :param empty_size: the size of file systems made without a parent, in bytes.
    :param admit: called before anything is made; raises ``ResourceExhausted`` while the pool should take no more.
    :param scarce: whether room in the pool is getting scarce, so that spares are given back.
    :param spares: how many snapshots are made ahead for parents in demand; none, unless told.
    :raise FailedPrecondition: the pool and the record store do not belong together; nothing was changed.
    """

    def __init__(
        self,
        pool: ThinPoolRef,
        database: Database,
        *,
        consumer: str,
        owner: str,
        is_dead: IsDead = everyone_lives,
        empty_size: int = EMPTY_SIZE,
        admit: Callable[[], object] = _always,
        scarce: Callable[[], bool] = _never,
        spares: SpareLimits = NO_SPARES,
    ) -> None:
        if consumer.startswith("@"):
            raise InvalidArgument(f"a consumer of snapshots cannot be called {consumer!r}")
        metadata = Metadata(database, store=pool.store, consumer=consumer, owner=owner)
        super().__init__(metadata, is_dead, point="thin")
        self._pool = pool
        self._admit = admit
        self._rested = time.monotonic()
        self._directory = os.path.dirname(os.path.abspath(database.path))
        self._devices = ThinDevices(pool, lock_file(database.path, pool.name))
        try:
            self._tidier = ThinTidier(metadata, self._devices)
            claim_pool(pool, metadata, self._devices)
            self._base_maker = Base(self._devices, database, self._tidier, owner, is_dead, self._directory, empty_size)
            records = SpareRecords(database, store=pool.store, owner=owner)
            self._beside = Beside()
            self._spares = Spares(records, SpareDevices(self._devices, self._tidier), spares, scarce)
        except BaseException:
            self._devices.close()
            raise

    # --- making ---------------------------------------------------------------------------------------------------------

    def prepare(
        self, key: str, parent: str, labels: Mapping[str, str] | None = None, *, formats: frozenset[str] = RAW_ONLY
    ) -> list[Mount]:
        """See the contract; snapshots are always raw. Two durable transactions, one message to the pool, and four ioctls beside these."""
        del formats
        self._admit()
        with self._spares.calling():
            record = self._begin(key, parent, Kind.ACTIVE, labels)
            failpoint("thin.prepare.recorded")
            if record.ready:  # it was a spare
                path = self._shown_at_once(record)
            else:
                with self._making(record):
                    path = self._make(record)
        if not is_unpacking(key):
            self._spares.asked_for(self._origin(record))
        failpoint("thin.prepare.done")
        return [Mount("ext4", path, _ACTIVE)]

    def make_spares(self, parent: str, count: int) -> int:
        """Make snapshots ahead of a parent's demand, now; returns how many there are. :raise NotFound: no such parent. :raise InvalidArgument: it is not committed."""
        above = self._metadata.find(parent)
        if above.info.kind is not Kind.COMMITTED:
            raise InvalidArgument(f"the parent snapshot {parent!r} is not committed but {above.info.kind.value}")
        for _ in range(count):
            self._admit()
            self._spares.make(above.id)
        return count

    def _make(self, record: Record) -> str:
        """Make the device of an announced snapshot of something, and the record ready; the device's path.

        The pool writes its metadata while the host's device is added, and the record goes to the disk while that is put in use: once the pool has answered,
        what a record says is there is there, shown or not.
        """
        try:
            with self._beside(lambda: self._devices.stage(record.id)) as staging:
                self._devices.snapshot(record.id, self._origin(record))
        except FileExistsError:
            if staging.result():
                self._devices.unstage(record.id)
            raise self._taken(record) from None
        failpoint("thin.prepare.snapped")
        how = How.EMPTY if record.parent_id is None else How.SNAPSHOT
        try:
            with self._beside(lambda: self._metadata.finish(record, how, record.virtual_size, Usage(0, 0))):
                path = self._devices.show_new(record.id, record.virtual_size, staged=staging.result())
        except BaseException:
            with suppress(UnikeelError):
                self._metadata.unfinish(record)
            raise
        failpoint("thin.prepare.shown")
        return path

    def _taken(self, record: Record) -> Unavailable:
        """The pool has a device of this number, which is not ours to take away: the record alone goes, so that undoing leaves the device alone."""
        self._metadata.abandon(record)
        return Unavailable(
            f"the pool {self._pool.name!r} has a device of number {record.id} that the record store does not know",
            f"was the record store put back from a copy? see `unikeel pool check {self._pool.name}`",
        )

    def _origin(self, record: Record) -> int:
        """What a snapshot's device is made from, or shows."""
        return self._base_maker.record().id if record.parent_id is None else record.parent_id

    def _base(self, parent: str) -> Record | None:
        if parent:
            return None
        with self._errors("make the empty file system"):
            return self._base_maker.record()

    def view(self, key: str, parent: str, labels: Mapping[str, str] | None = None) -> list[Mount]:
        """See the contract. A record, and the parent's own device, which is mostly active already."""
        with self._spares.calling():
            record = self._begin(key, parent, Kind.VIEW, labels)
            failpoint("thin.view.recorded")
            path = self._shown_at_once(record)
        failpoint("thin.view.done")
        return [Mount("ext4", path, _READ_ONLY)]

    def _shown_at_once(self, record: Record) -> str:
        """The path of what was there before it was asked for; if it cannot be shown, nothing was asked for."""
        try:
            return self._shown(record)
        except BaseException:
            with suppress(UnikeelError):
                self._metadata.discard(record.info.name)
            raise

    def import_committed(self, name: str, labels: Mapping[str, str] | None, fill: Callable[[int], object]) -> Info:
        """See the contract."""
        self._admit()
        record = self._begin(name, "", Kind.COMMITTED, labels)
        failpoint("thin.import.recorded")
        with self._making(record):
            fill_device(self._devices, self._metadata, record, self._directory, fill)
        return record.info

    def _undo(self, record: Record) -> None:
        self._tidier.undo(record)

    def _errors(self, doing: str) -> AbstractContextManager[None]:
        return pool_errors(self._pool.name, doing)

    # --- looking ----------------------------------------------------------------------------------------------------------

    def mounts(self, key: str) -> list[Mount]:
        """See the contract. A device that is not active, as after a reboot, becomes so."""
        record = self._with_mounts(key)
        return [Mount("ext4", self._shown(record), _ACTIVE if record.info.kind is Kind.ACTIVE else _READ_ONLY)]

    def disk(self, key: str) -> Disk:
        """See the contract. ``how`` is ``parent`` for what is used in place: views and committed snapshots."""
        record = self._metadata.find(key)
        active = record.info.kind is Kind.ACTIVE
        how = record.how if active else How.PARENT
        return Disk(self._shown(record), "raw", None, not active, record.virtual_size, how)

    def _shown(self, record: Record) -> str:
        """The path of the device that a snapshot is seen by, which is active then."""
        number = self._origin(record) if record.how is How.PARENT else record.id
        active = record.info.kind is Kind.ACTIVE
        with self._errors(f"show snapshot {record.info.name!r}"):
            path = self._devices.show(number, record.virtual_size, read_only=not active)
            if active and self._devices.is_sealed(number):  # by a commit that was killed
                self._metadata.still_active(record, lambda: self._devices.unseal(number))
            return path

    def usage(self, key: str) -> Usage:
        """See the contract. What is counted are blocks of the pool beyond those that there were when the snapshot was made; the parent's blocks that it has
        written over are not."""
        record = self._metadata.find(key)
        if record.info.kind is not Kind.ACTIVE:
            return record.used
        self._shown(record)
        with self._errors(f"measure snapshot {key!r}"):
            return self._used(record, self._devices.mapped(record.id))

    def _used(self, record: Record, mapped: int) -> Usage:
        shared = self._base_maker.record().mapped if record.parent_id is None else record.mapped_above
        return Usage(max(0, mapped - shared), 1)

    # --- changing ---------------------------------------------------------------------------------------------------------

    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, *, parent: str = "") -> None:
        """See the contract. The device's data is on the disk before; one transaction, within which it becomes read-only. If somebody has it mounted against the
        rules, what is committed is a copy of this moment, which that one cannot write to."""
        with self._spares.calling():
            self._check_free(name)
            record = self._metadata.find(key)
            self._check_committable(record, parent)
            self._commit(name, record, labels)
        failpoint("thin.commit.done")

    def _commit(self, name: str, record: Record, labels: Mapping[str, str] | None) -> None:
        key = record.info.name
        self._shown(record)
        with self._errors(f"commit snapshot {key!r}"):
            try:
                fd = self._devices.opened_alone(record.id)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                fd = -1
        if fd < 0:
            self._commit_copy(name, record, labels)
        else:
            try:
                self._commit_sealed(name, record, labels or {}, fd)
            finally:
                os.close(fd)

    def _commit_sealed(self, name: str, record: Record, labels: Mapping[str, str], fd: int) -> None:
        def seal() -> None:
            block.set_read_only(fd, on=True)
            failpoint("thin.commit.sealed")

        with self._errors(f"commit snapshot {record.info.name!r}"):
            os.fsync(fd)
            failpoint("thin.commit.synced")
            mapped = self._devices.mapped(record.id)
            try:
                self._metadata.commit(name, record, labels, self._used(record, mapped), seal, mapped=mapped)
            except BaseException:
                with suppress(UnikeelError, OSError):
                    self._metadata.still_active(record, lambda: self._devices.unseal(record.id))
                raise

    def _commit_copy(self, name: str, record: Record, labels: Mapping[str, str] | None) -> None:
        made = self._begin(name, record.info.parent, Kind.COMMITTED, labels)
        failpoint("thin.commit.announced")
        with self._making(made):
            try:
                self._devices.snapshot(made.id, record.id)
            except FileExistsError:
                raise self._taken(made) from None
            failpoint("thin.commit.copied")
            mapped = self._devices.mapped(record.id)
            self._metadata.replace(record, made, self._used(record, mapped), mapped)

    def remove(self, key: str) -> None:
        """See the contract."""
        with self._spares.calling():
            super().remove(key)

    def cleanup(self) -> int:
        """See the contract. In batches, so that another process may take part. Devices of committed snapshots that are not in use go back to the kernel, too."""
        cleaned = self._tidier.cleanup()
        if time.monotonic() - self._rested > _LOOK_SECONDS:
            self.rest(_IDLE_SECONDS)
        return cleaned

    def rest(self, seconds: float) -> int:
        """Make the devices of committed snapshots inactive that have no view, that nobody has open, and that nobody was shown for so long; how many those were."""
        self._rested = time.monotonic()
        with self._errors("let idle devices rest"):
            idle = self._devices.active() & self._metadata.without_views()
            return sum(self._devices.rest(number, seconds) for number in idle)

    def reconcile(self, is_dead: IsDead | None = None) -> Reconciled:
        """See the contract. May run beside living processes."""
        with self._errors("look for spares"):
            self._spares.drop_resting()
        return self._tidier.reconcile(is_dead or self._is_dead)

    def close(self) -> None:
        """See the contract. Devices stay active."""
        self._spares.close()
        self._beside.close()
        self._devices.close()
