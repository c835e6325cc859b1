"""Taking away what is not wanted any more: half-made images, removed ones, and files that no record names."""

from __future__ import annotations

from collections.abc import Callable

from unikeel.records.failpoint import failpoint
from unikeel.snapshots.contract import Reconciled
from unikeel.snapshots.image_files import ImageFiles, translated
from unikeel.snapshots.metadata import Metadata
from unikeel.snapshots.rows import Record


class Tidier:
    """Tidies one directory of images by its records; several processes may do so at once."""

    def __init__(self, metadata: Metadata, files: ImageFiles) -> None:
        self._metadata = metadata
        self._files = files

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
        files, faulty = self._compare()
        return Reconciled(tuple(record.info.name for record in undone), files, faulty)

    def _compare(self) -> tuple[int, tuple[str, ...]]:
        """Take away files without a record (how many), and find records without a file (their names).

        Others work meanwhile. A record is written before its file is made, and ids are not used again: a file seen *before*
        the records were read is garbage if none of them names it. A record read *before* the files were listed lacks its
        file if it is still there *after*.
        """
        before = self._metadata.with_content()
        with translated("look through the snapshot directory"):
            present = self._files.numbers()
            garbage = present - self._metadata.known_ids()
            for number in garbage:
                self._files.remove(number)
        lacking = before.keys() - present
        after = self._metadata.with_content() if lacking else {}
        return len(garbage), tuple(name for number, name in after.items() if number in lacking)
