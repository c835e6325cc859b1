"""The content of a spare in a store of files: an image that shares all its blocks with its parent's."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

from unikeel.kernel.reflink import clone_file
from unikeel.lean import Final
from unikeel.records.failpoint import failpoint
from unikeel.snapshots.contract import How
from unikeel.snapshots.image_files import ImageFiles, translated
from unikeel.snapshots.rows import Record
from unikeel.snapshots.tidying import Tidier

#: Less than this part of a disk free is scarce.
_SCARCE: Final = 0.1


class SpareFiles:
    """See :class:`~unikeel.snapshots.spares.SpareContent`. Only where files can share blocks: a copy made for nobody takes a whole image's room."""

    point = "snapshots"

    def __init__(self, files: ImageFiles, tidier: Tidier) -> None:
        self._files = files
        self._tidier = tidier

    def make(self, record: Record, origin: int) -> How:
        """Clone the parent's file; name and content are on the disk afterwards. :raise Unavailable: blocks cannot be shared."""
        fd = self._files.create(record.id)
        try:
            source = self._files.open(origin)
            try:
                clone_file(source, fd)
            finally:
                os.close(source)
            failpoint("snapshots.spare.made")
            os.fsync(fd)
        finally:
            os.close(fd)
        failpoint("snapshots.spare.synced")
        return How.REFLINK

    def is_there(self, number: int) -> bool:
        """A file is always as it was."""
        del number
        return True

    def undo(self, record: Record) -> None:
        """File first, then record."""
        self._tidier.undo(record)

    def cleanup(self) -> int:
        """Of the whole store."""
        return self._tidier.cleanup()

    def errors(self, doing: str) -> AbstractContextManager[None]:
        """As everywhere in a store of files."""
        return translated(doing)


def is_scarce(directory: str) -> bool:
    """Whether the disk that a directory lies on is getting full. What cannot be told is not."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return False
    return found.f_bavail < found.f_blocks * _SCARCE
