"""What snapshots without a parent are made from: one empty file system, made once for each size, that nobody sees in a list."""

from __future__ import annotations

import threading
from contextlib import suppress

from unikeel.errors import AlreadyExists, NotFound, UnikeelError
from unikeel.records.database import Database
from unikeel.snapshots.contract import Kind
from unikeel.snapshots.metadata import Metadata
from unikeel.snapshots.recorded import IsDead
from unikeel.snapshots.rows import BASES, Record
from unikeel.snapshots.thin.devices import ThinDevices
from unikeel.snapshots.thin.importing import fill_device
from unikeel.snapshots.thin.reference import IDENTITY_ID
from unikeel.snapshots.thin.tidying import ThinTidier


class Base:
    """The empty file system of one size in one pool. Its root directory has mode 0755 and is empty.

    :param directory: where there is room for a sparse file of it, for a moment. :param size: in bytes.
    """

    def __init__(
        self,
        devices: ThinDevices,
        database: Database,
        tidier: ThinTidier,
        owner: str,
        is_dead: IsDead,
        directory: str,
        size: int,
    ) -> None:
        self._devices = devices
        self._metadata = Metadata(database, store=devices.pool.store, consumer=BASES, owner=owner)
        self._tidier = tidier
        self._is_dead = is_dead
        self._directory = directory
        self._size = size
        self._name = f"ext4 of {size} bytes"
        self._record: Record | None = None
        self._turn = threading.Lock()

    def record(self) -> Record:
        """Its record; it is made if it is not there.

        :raise AlreadyExists: another process is making it at this moment.
        """
        if self._record is None:
            with self._turn:
                if self._record is None:
                    self._record = self._found() or self._made()
        return self._record

    def _found(self) -> Record | None:
        try:
            return self._metadata.find(self._name)
        except NotFound:
            return None

    def _made(self) -> Record:
        """Make it, or wait for who does: the lock of the number that is no snapshot's orders the processes."""
        with self._devices.alone(IDENTITY_ID):
            found = self._found()
            if found is not None:
                return found
            stale = self._metadata.unfinished(self._name)
            if stale is not None:
                if not self._is_dead(stale.owner):
                    raise AlreadyExists("the empty file system is being made by another call")
                self._tidier.undo(stale)
            record = self._metadata.begin(self._name, "", Kind.COMMITTED, {})
            try:
                return fill_device(self._devices, self._metadata, record, self._directory, self._write)
            except BaseException:
                with suppress(UnikeelError, OSError):
                    self._tidier.undo(record)
                raise

    def _write(self, fd: int) -> None:
        from unikeel.snapshots.empty import write_empty

        write_empty(fd, self._size)
