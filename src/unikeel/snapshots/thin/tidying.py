"""Taking away what is not wanted any more: half-made devices, removed ones, and those that no record names."""

from __future__ import annotations

from collections.abc import Callable

from unikeel.records.failpoint import failpoint
from unikeel.snapshots.contract import Reconciled
from unikeel.snapshots.metadata import Metadata
from unikeel.snapshots.rows import Record
from unikeel.snapshots.thin.devices import ThinDevices
from unikeel.snapshots.thin.errors import pool_errors
from unikeel.snapshots.thin.reference import IDENTITY_ID


class ThinTidier:
    """Tidies one pool by its records; several processes may do so at once."""

    def __init__(self, metadata: Metadata, devices: ThinDevices) -> None:
        self._metadata = metadata
        self._devices = devices

    def undo(self, record: Record) -> None:
        """Take away what was half made: first the device, then the record that tells of it. What somebody holds goes to the trash."""
        if not self._metadata.is_unfinished(record.id):
            return
        gone = self._take_away(record.id)
        failpoint("thin.undo.gone")
        if gone:
            self._metadata.abandon(record)
        else:
            self._metadata.abandon_to_trash(record)

    def _take_away(self, number: int) -> bool:
        """Make a device inactive and delete it; False: somebody holds it."""
        if not self._devices.hide(number):
            return False
        failpoint("thin.device.hidden")
        return self._devices.delete(number)

    def cleanup(self) -> int:
        """Take away the devices of removed snapshots; returns how many snapshots that were. What somebody still holds waits for the next time."""
        total, after = 0, 0
        while batch := self._metadata.trash(after):
            after = batch[-1]
            with pool_errors(self._devices.pool.name, "take away removed snapshots"):
                gone = [number for number in batch if self._take_away(number)]
            failpoint("thin.cleanup.gone")
            self._metadata.forget(gone)
            total += len(gone)
        return total

    def reconcile(self, is_dead: Callable[[str], bool]) -> Reconciled:
        """Undo the work of dead owners, empty the trash, wake what a killed process left suspended, and compare the pool with the records."""
        undone = self._metadata.abandoned(is_dead)
        with pool_errors(self._devices.pool.name, "undo half-made snapshots"):
            for record in undone:
                self.undo(record)
        self.cleanup()
        with pool_errors(self._devices.pool.name, f"compare the pool {self._devices.pool.name!r} with its records"):
            strays, faulty = self._compare()
        return Reconciled(tuple(record.info.name for record in undone), strays, faulty)

    def _compare(self) -> tuple[int, tuple[str, ...]]:
        """Take away devices without a record (how many), and find records without a device (their names).

        Others work meanwhile. A record is written before its device is made, and numbers are not used again: a device seen *before* the records were read is
        a stray if none of them names it. A record read *before* the pool was looked at lacks its device if it is still there *after*.
        """
        before = self._metadata.with_content()
        active, present = self._devices.active(), self._devices.numbers()
        strays = (active | present) - self._metadata.known_ids() - {IDENTITY_ID}
        for number in strays:
            self._take_away(number)
        for number in active - strays:
            self._devices.wake(number)
        lacking = before.keys() - present
        after = self._metadata.with_content() if lacking else {}
        return len(strays), tuple(name for number, name in after.items() if number in lacking)
