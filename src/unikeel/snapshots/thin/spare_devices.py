"""The content of a spare in a thin pool: a device that is there and active."""

from __future__ import annotations

from contextlib import AbstractContextManager

from unikeel.records.failpoint import failpoint
from unikeel.snapshots.contract import How
from unikeel.snapshots.rows import Record
from unikeel.snapshots.thin.devices import ThinDevices
from unikeel.snapshots.thin.errors import pool_errors
from unikeel.snapshots.thin.tidying import ThinTidier


class SpareDevices:
    """See :class:`~unikeel.snapshots.spares.SpareContent`."""

    point = "thin"

    def __init__(self, devices: ThinDevices, tidier: ThinTidier) -> None:
        self._devices = devices
        self._tidier = tidier

    def make(self, record: Record, origin: int) -> How:
        """The pool's message, and the device shown."""
        self._devices.snapshot(record.id, origin)
        failpoint("thin.spare.snapped")
        self._devices.show_new(record.id, record.virtual_size)
        return How.SNAPSHOT

    def is_there(self, number: int) -> bool:
        """Whether its device is active: after a reboot it is not."""
        return self._devices.is_ready(number)

    def undo(self, record: Record) -> None:
        """Device first, then record."""
        self._tidier.undo(record)

    def cleanup(self) -> int:
        """Of the whole pool."""
        return self._tidier.cleanup()

    def errors(self, doing: str) -> AbstractContextManager[None]:
        """As everywhere in a pool."""
        return pool_errors(self._devices.pool.name, doing)
