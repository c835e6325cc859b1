"""Making a disk for a task: the image of its parent, if there is none yet, and the task's own snapshot of that.

The parent is reached by a view, mounted detached and read-only as boot files are, read by descriptors and written as an ext4 file system by our own writer.
Nothing of it is run, and no helper sees it (docs/decisions/0013-made-disks.md).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from unikeel.boot import flight
from unikeel.boot.contract import FILL, Parent, Reach, Timeline
from unikeel.boot.mounted import Mounter
from unikeel.boot.reaching import reach
from unikeel.engine.made import KIND, MadeDisks, labels_of
from unikeel.errors import AlreadyExists, DeadlineExceeded, FailedPrecondition, NotFound, UnikeelError
from unikeel.kernel import locks
from unikeel.lean import Final
from unikeel.records.failpoint import failpoint
from unikeel.snapshots.contract import RAW_OR_QCOW2, Disk
from unikeel.snapshots.ext4 import write_image
from unikeel.snapshots.ext4.trees import Bounds, HostTree
from unikeel.values import NamedTuple

#: The file system of a made disk.
FILE_SYSTEM: Final = "ext4"
#: How often a disk is tried to be made: its image may be collected between its making and its use.
_TRIES: Final = 3


class MakingLimits(NamedTuple):
    """The most bytes that an image's files may have, the free space that it gets, and how long making one may take, in seconds."""

    size: int
    free: int
    seconds: float


class DiskMaker:
    """Makes disks for tasks.

    :param locks: directory of lock files; made if it is missing.
    """

    def __init__(self, made: MadeDisks, way: Reach, mounter: Mounter, locks: str, limits: MakingLimits) -> None:
        self._made = made
        self._store = made.store
        self._way = way
        self._mounter = mounter
        self._locks = locks
        self._limits = limits
        os.makedirs(locks, mode=0o700, exist_ok=True)

    def provide(
        self,
        parent: Parent,
        task: str,
        timeline: Timeline,
        *,
        read_only: bool,
        formats: frozenset[str] = RAW_OR_QCOW2,
    ) -> Disk:
        """A task's disk, made now; its image too, if nobody has made that yet.

        :param read_only: the task gets the image itself, which it cannot write to. :param formats: what its monitor takes.
        :raise FailedPrecondition: the parent is not to be trusted. :raise ResourceExhausted: it is too large, or the disk is full.
        :raise DeadlineExceeded: making took too long. :raise Unavailable, BadContent: it cannot be read.
        """
        if not parent.trusted:
            raise FailedPrecondition(
                f"no disk is made of {parent.name}: it is not what the image's layers make, and its files might be anybody's",
                "run the container on a snapshotter of block devices, or create it from its image",
            )
        self._made.release(task)  # of an earlier attempt
        for attempt in range(_TRIES):
            self._ensure(parent, timeline)
            failpoint("disk.image")
            try:
                if read_only:
                    self._store.view(task, parent.key)
                else:
                    self._store.prepare(task, parent.key, formats=formats)
                break
            except NotFound:
                if attempt + 1 == _TRIES:
                    raise
        failpoint("disk.prepared")
        return self._store.disk(task)

    def _ensure(self, parent: Parent, timeline: Timeline) -> None:
        if self._exists(parent):
            return
        start = time.monotonic_ns()
        path = os.path.join(self._locks, f"{parent.key}.{KIND}")
        attributes: dict[str, str | int | bool] = {"parent": parent.name}
        try:
            attributes.update(
                flight.once(
                    path,
                    self._limits.seconds,
                    f"making the disk of {parent.name}",
                    lambda: self._make_unless_made(parent),
                    lambda _found: None,
                )
            )
            locks.forget(path)
        except UnikeelError as error:
            attributes["error"] = type(error).__name__
            raise
        finally:
            timeline("disk.make", start, time.monotonic_ns(), attributes)

    def _exists(self, parent: Parent) -> bool:
        try:
            self._store.stat(parent.key)
        except NotFound:
            return False
        return True

    def _make_unless_made(self, parent: Parent) -> dict[str, str | int | bool]:
        """What the timeline is to know of it."""
        if self._exists(parent):
            return {"waited": True}
        failpoint("disk.make.begin")
        look = _deadline(self._limits.seconds, parent.name)
        # A view of our own: the cache gives the one back that it reads from, whoever else has it just then.
        with reach(self._way, parent, FILL, KIND) as reached:
            mount = self._mounter.mount(reached.mounts)
            with HostTree(mount, Bounds(self._limits.size), look) as tree:
                failpoint("disk.make.seen")
                try:
                    self._store.import_committed(parent.key, labels_of(parent), lambda fd: self._fill(fd, parent, tree))
                except AlreadyExists:
                    return {"waited": True}
                failpoint("disk.make.done")
                return {"files": tree.entries, "bytes": tree.size}

    def _fill(self, fd: int, parent: Parent, tree: HostTree) -> None:
        failpoint("disk.make.recorded")
        write_image(
            fd, tree.root, uuid=bytes.fromhex(parent.key[:32]), free_bytes=self._limits.free, open_data=tree.open
        )


def _deadline(seconds: float, name: str) -> Callable[[], None]:
    """Raises once the time is up."""
    end = time.monotonic() + seconds

    def look() -> None:
        if time.monotonic() > end:
            raise DeadlineExceeded(
                f"making the disk of {name} took longer than {seconds:g} s", "raise containerd.made_timeout"
            )

    return look
