"""Putting a directory of images in order: half-made images go, removed ones, and files that no record names; clones that the host's end took are made again."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from unikeel.errors import BadContent, Unavailable
from unikeel.records.failpoint import failpoint
from unikeel.snapshots.contract import Reconciled
from unikeel.snapshots.image_files import ImageFiles, translated
from unikeel.snapshots.metadata import Metadata
from unikeel.snapshots.rows import Record


class Tidier:
    """Tidies one directory of images by its records; several processes may do so at once.

    :param boot: the identifier of this boot of the host.
    """

    def __init__(self, metadata: Metadata, files: ImageFiles, boot: str) -> None:
        self._metadata = metadata
        self._files = files
        self._boot = boot

    def undo(self, record: Record) -> None:
        """Take away what was half made: first the file, then the record that tells of it."""
        if self._files.remove(record.id):
            self._files.sync()
        failpoint("snapshots.undo.unlinked")
        self._metadata.abandon(record)

    def cleanup(self) -> int:
        """Take away the images of removed snapshots; returns how many snapshots that were."""
        total = 0
        while batch := self._metadata.trash():
            with translated("take away removed snapshots"):
                for number in batch:
                    self._files.remove(number)
                self._files.sync()
            failpoint("snapshots.cleanup.unlinked")
            self._metadata.forget(batch)
            total += len(batch)
        return total

    def reconcile(self, is_dead: Callable[[str], bool]) -> Reconciled:
        """Undo the work of dead owners, empty the trash, and compare the files with the records."""
        undone = self._metadata.abandoned(is_dead)
        with translated("undo half-made snapshots"):
            for record in undone:
                self.undo(record)
        self.cleanup()
        self.make_again()
        files, faulty = self._compare()
        return Reconciled(tuple(record.info.name for record in undone), files, faulty)

    def make_again(self) -> int:
        """Clone those images again that the end of the host took before they, or anything in them, were on the disk; how many that were.

        What is missing although it was made in this boot, or seen in an earlier one after its own, was taken by somebody else: that is reported, not mended.
        """
        suspects = self._metadata.lost_with_host(self._boot)
        if not suspects:
            return 0
        with translated("clone again what the end of the host took"):
            there = self._files.numbers()
            made = [record for record in suspects if record.id not in there and self._cloned_again(record)]
            failpoint("snapshots.again.made")
            self._files.sync()
        failpoint("snapshots.again.synced")
        there |= {record.id for record in made}
        self._metadata.on_disk(record.id for record in suspects if record.id in there)
        return len(made)

    def _cloned_again(self, record: Record) -> bool:
        """Clone a parent again; False if it cannot be done, which leaves the snapshot faulty."""
        assert record.parent_id is not None
        try:
            fd = self._files.cloned(record.parent_id)
        except (BadContent, Unavailable):
            return False

        def give_name() -> None:
            with suppress(FileExistsError):  # another process was quicker, and a guest may have it by now
                self._files.give_free_name(fd, record.id)

        try:
            self._metadata.while_active(record.id, give_name)
        finally:
            os.close(fd)
        return True

    def _compare(self) -> tuple[int, tuple[str, ...]]:
        """Take away files without a record (how many), and find records without a file (their names).

        Others work meanwhile. A file gets its name after its record is written, or in the same transaction: one seen before a
        transaction of ours, in which no record names it, is garbage. It is gone for good before an id of a transaction that came to
        nothing, which is used again, can be given to another. A record read *before* the files were listed lacks its
        file if it is still there *after*.
        """
        before = self._metadata.with_content()
        with translated("look through the snapshot directory"):
            present = self._files.numbers()
            garbage = 0
            if present - self._metadata.ids_with_content():
                garbage = self._metadata.if_nameless(present, self._take_away)
        lacking = before.keys() - present
        after = self._metadata.with_content() if lacking else {}
        return garbage, tuple(name for number, name in after.items() if number in lacking)

    def _take_away(self, garbage: set[int]) -> None:
        for number in garbage:
            self._files.remove(number)
        self._files.sync()
