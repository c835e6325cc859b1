"""What is in a pool, by ids, whichever kind it is: for checking and repairing. Nobody uses the pool while something is taken away."""

from __future__ import annotations

import errno
import os

from unikeel.errors import BadContent, FailedPrecondition
from unikeel.kernel.devmapper import Control, nodes, thin
from unikeel.lean import Protocol
from unikeel.snapshots.image_files import ImageFiles, translated
from unikeel.snapshots.pools.definition import Pool, PoolKind
from unikeel.snapshots.pools.file_pool import FilePool
from unikeel.snapshots.pools.registry import Registry
from unikeel.snapshots.pools.thin_pool import ThinPool
from unikeel.snapshots.thin.identity import read_identity
from unikeel.snapshots.thin.reference import IDENTITY_ID


class Contents(Protocol):
    """What is in an active pool."""

    def mark(self) -> str:
        """What the pool says that it is; empty: nothing."""

    def sizes(self) -> dict[int, int]:
        """All ids, and the bytes that each refers to. :raise BadContent: that cannot be read."""

    def delete(self, number: int) -> None:
        """Take an id away; one that is not there is fine. :raise FailedPrecondition: it is in use."""

    def tie(self) -> str:
        """Mark the pool, which holds nothing; the mark."""

    def close(self) -> None:
        """Let go of it."""


def contents_of(registry: Registry, pool: Pool) -> Contents:
    """The contents of an active pool."""
    if pool.kind is PoolKind.THIN:
        return ThinContents(ThinPool(registry, pool))
    return FileContents(FilePool(registry, pool))


class ThinContents:
    """Thin devices."""

    def __init__(self, pool: ThinPool) -> None:
        self._pool = pool

    def mark(self) -> str:
        """See :class:`Contents`."""
        return read_identity(self._pool.ref)

    def sizes(self) -> dict[int, int]:
        """See :class:`Contents`."""
        block = self._pool.pool.block_size
        found = self._pool.devices()
        return {number: details.mapped_blocks * block for number, details in found.items() if number != IDENTITY_ID}

    def delete(self, number: int) -> None:
        """See :class:`Contents`."""
        ref = self._pool.ref
        with translated(f"delete thin device {number} of pool {ref.name!r}"), Control() as control:
            name = ref.thin_name(number)
            info = control.info(name)
            if info is not None and info.uuid != ref.thin_uuid(number):
                raise FailedPrecondition(f"device-mapper's device {name} is not of pool {ref.name!r}")
            if info is not None:
                nodes.remove(name)
                control.remove(name)
            try:
                control.message(ref.dm_name, thin.delete(number))
            except OSError as error:
                if error.errno != errno.ENODATA:
                    raise

    def tie(self) -> str:
        """See :class:`Contents`. The mark is the identity, which is there since the pool was made."""
        found = self.mark()
        if found != self._pool.pool.uuid:
            raise BadContent(f"pool {self._pool.pool.name!r} says of itself that it is {found or 'nothing'}")
        return found

    def close(self) -> None:
        """There is nothing."""


class FileContents:
    """Images in a directory."""

    def __init__(self, pool: FilePool) -> None:
        self._files = ImageFiles(pool.directory)

    def mark(self) -> str:
        """See :class:`Contents`."""
        return self._files.mark()

    def sizes(self) -> dict[int, int]:
        """See :class:`Contents`."""
        return {number: os.stat(self._files.path(number)).st_blocks * 512 for number in self._files.numbers()}

    def delete(self, number: int) -> None:
        """See :class:`Contents`."""
        with translated(f"take away {self._files.path(number)}"):
            self._files.remove(number)

    def tie(self) -> str:
        """See :class:`Contents`."""
        mark = self._files.mark()
        if not mark:
            mark = os.urandom(16).hex()
            self._files.set_mark(mark)
        return mark

    def close(self) -> None:
        """Close the directory."""
        self._files.close()
