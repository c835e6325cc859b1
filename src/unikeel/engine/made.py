"""Made disks: block images of committed snapshots that are none themselves, made once, and the tasks' snapshots of them.

They lie in the state root's snapshot store, under a consumer of their own. An image's name is the parent's key, its labels say which parent that is; each task's
snapshot is named by the task. So a task is recorded as the user of an image by having a snapshot of it, and an image cannot go before its last one.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Mapping

from unikeel.boot.contract import Freed, Holding, Parent
from unikeel.errors import FailedPrecondition, NotFound, UnikeelError
from unikeel.lean import Final
from unikeel.records.failpoint import failpoint
from unikeel.snapshots.contract import Info, Kind
from unikeel.snapshots.file_store import FileStore

CONSUMER: Final = "containerd"
KIND: Final = "disk"
_PREFIX: Final = "unikeel/made."


def labels_of(parent: Parent) -> dict[str, str]:
    """What an image is labelled with."""
    fields = parent._asdict()
    return {f"{_PREFIX}{name}": str(fields[name]) for name in _FIELDS}


_FIELDS: Final = ("consumer", "namespace", "snapshotter", "name", "created_ns")


def parent_of(labels: Mapping[str, str]) -> Parent:
    """The parent that an image was made of."""
    consumer, namespace, snapshotter, name, created = (labels.get(f"{_PREFIX}{field}", "") for field in _FIELDS)
    return Parent(consumer, namespace, snapshotter, name, int(created or 0), "", trusted=True)


class MadeDisks:
    """What there is of them in one state root. Used by several threads, and beside other processes.

    :param store: the snapshot store, as the consumer :data:`CONSUMER`; closed with this.
    """

    def __init__(self, store: FileStore) -> None:
        self.store = store
        #: Since when an image has no user, and when it was last given up then: between two ticks it may have had one again.
        self._unused: dict[str, tuple[float, int]] = {}
        self._asked: dict[str, float] = {}

    def _images(self) -> dict[str, tuple[Info, tuple[str, ...]]]:
        """Every image with the tasks that use it."""
        users: dict[str, list[str]] = defaultdict(list)
        images = {}
        for info in self.store.list():
            if info.kind is Kind.COMMITTED:
                images[info.name] = info
            else:
                users[info.parent].append(info.name)
        return {name: (info, tuple(users[name])) for name, info in images.items()}

    def listing(self) -> list[Holding]:
        """The images, as ``unikeel boot ls`` shows them."""
        found = []
        for name, (info, users) in self._images().items():
            parent = parent_of(info.labels)
            with contextlib.suppress(NotFound):
                size = self.store.usage(name).size + sum(self._size_of(user) for user in users)
                found.append(
                    Holding(
                        KIND, name, (parent.name,), users, size, info.updated_ns, parent.namespace, parent.snapshotter
                    )
                )
        return found

    def _size_of(self, task: str) -> int:
        try:
            return self.store.usage(task).size
        except UnikeelError:
            return 0

    def release(self, task: str) -> None:
        """The task is removed: its disk goes. Nothing happens if it has none."""
        try:
            info = self.store.stat(task)
            self.store.remove(task)
        except NotFound:
            return
        failpoint("disk.removed")
        self.store.cleanup()
        with contextlib.suppress(UnikeelError):  # the time of its last use
            self.store.update(info.parent, self.store.stat(info.parent).labels)

    def collect(self) -> list[Freed]:
        """Take away the images that no task uses."""
        return [freed for name, (_, users) in self._images().items() if not users for freed in self._drop(name)]

    def tick(self, linger: float, is_gone: Callable[[Parent], bool], every: float = 60.0) -> list[Freed]:
        """Take away those that no task has used for a time, or whose parent is gone.

        :param linger: that time in seconds. :param every: so often it is asked for a parent.
        """
        now = time.monotonic()
        unused = {name: info for name, (info, users) in self._images().items() if not users}
        self._unused = {name: self._since(name, info.updated_ns, now) for name, info in unused.items()}
        self._asked = {name: self._asked.get(name, now - every) for name in unused}
        freed = []
        for name, info in unused.items():
            due = now - self._unused[name][0] >= linger
            if not due and now - self._asked[name] >= every:
                self._asked[name] = now
                due = is_gone(parent_of(info.labels))
            if due:
                freed += self._drop(name)
        return freed

    def _since(self, name: str, given_up: int, now: float) -> tuple[float, int]:
        known = self._unused.get(name)
        return known if known is not None and known[1] == given_up else (now, given_up)

    def _drop(self, name: str) -> list[Freed]:
        """Who makes a snapshot of it at this moment keeps it, or finds it gone and makes it anew."""
        try:
            size = self.store.usage(name).size
            self.store.remove(name)
        except (NotFound, FailedPrecondition):
            return []
        failpoint("disk.image-removed")
        self.store.cleanup()
        return [Freed(KIND, name, size)]

    def reconcile(self, is_dead: Callable[[str], bool], exists: Callable[[str], bool]) -> list[Freed]:
        """Undo what dead processes left half made, and take away the disks of tasks that are no more.

        :param exists: whether a task has a record; asked after the disks were listed.
        """
        freed = [Freed(KIND, name, 0) for name in self.store.reconcile(is_dead).undone]
        orphans = [info.name for info in self.store.list() if info.kind is not Kind.COMMITTED]
        for name in orphans:
            if not exists(name):
                self.release(name)
                freed.append(Freed(KIND, name, 0))
        return freed

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()
