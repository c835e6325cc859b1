"""A snapshot store in memory: the model that real stores are compared with, and a stand-in for tests of what uses one.

Contents are sealed-off anonymous files of this process, named by ``/proc/self/fd``; closing the store drops them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from unikeel.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from unikeel.kernel.sparse import sparse_copy
from unikeel.snapshots.contract import RAW_ONLY, Disk, How, Info, Kind, Mount, Reconciled, Usage
from unikeel.snapshots.filters import parse_filters
from unikeel.snapshots.naming import check_name, encode_labels, relabelled


@dataclass(frozen=True)
class _Entry:
    info: Info
    fd: int
    how: How


class FakeStore:
    """A :class:`~unikeel.snapshots.contract.SnapshotStore` without a disk.

    :param empty_size: the size of snapshots without a parent, in bytes; they are all zero and hold no file system.
    """

    def __init__(self, *, empty_size: int = 1 << 24) -> None:
        self._entries: dict[str, _Entry] = {}
        self._removed: list[int] = []
        self._empty_size = empty_size
        self._last_ns = 0

    def _now(self) -> int:
        self._last_ns = max(time.time_ns(), self._last_ns + 1)
        return self._last_ns

    def _find(self, name: str) -> _Entry:
        if name not in self._entries:
            raise NotFound(f"snapshot {name!r} does not exist")
        return self._entries[name]

    def _check_free(self, name: str) -> None:
        check_name(name)
        if name in self._entries:
            raise AlreadyExists(f"snapshot {name!r} exists already")

    def _check_new(self, name: str, parent: str, labels: Mapping[str, str]) -> None:
        check_name(name)
        encode_labels(labels)
        self._check_free(name)
        if not parent:
            return
        if parent not in self._entries:
            raise NotFound(f"the parent snapshot {parent!r} does not exist")
        if self._entries[parent].info.kind is not Kind.COMMITTED:
            raise InvalidArgument(f"the parent snapshot {parent!r} is not committed")

    def _empty(self) -> int:
        fd = os.memfd_create("snapshot", os.MFD_CLOEXEC)
        os.ftruncate(fd, self._empty_size)
        return fd

    def _copy(self, name: str) -> int:
        source, fd = self._entries[name].fd, os.memfd_create("snapshot", os.MFD_CLOEXEC)
        sparse_copy(source, fd)
        return fd

    def _add(self, name: str, parent: str, kind: Kind, labels: Mapping[str, str], entry: tuple[int, How]) -> Info:
        now = self._now()
        info = Info(name, parent, kind, now, now, dict(labels))
        self._entries[name] = _Entry(info, *entry)
        return info

    def prepare(
        self, key: str, parent: str, labels: Mapping[str, str] | None = None, *, formats: frozenset[str] = RAW_ONLY
    ) -> list[Mount]:
        """As the contract; always a raw copy."""
        del formats
        self._check_new(key, parent, labels or {})
        entry = (self._copy(parent), How.COPY) if parent else (self._empty(), How.EMPTY)
        self._add(key, parent, Kind.ACTIVE, labels or {}, entry)
        return self.mounts(key)

    def view(self, key: str, parent: str, labels: Mapping[str, str] | None = None) -> list[Mount]:
        """As the contract."""
        self._check_new(key, parent, labels or {})
        entry = (self._entries[parent].fd, How.PARENT) if parent else (self._empty(), How.EMPTY)
        self._add(key, parent, Kind.VIEW, labels or {}, entry)
        return self.mounts(key)

    def mounts(self, key: str) -> list[Mount]:
        """As the contract."""
        entry = self._find(key)
        if entry.info.kind is Kind.COMMITTED:
            raise FailedPrecondition(f"snapshot {key!r} is committed")
        options = ("loop", "rw") if entry.info.kind is Kind.ACTIVE else ("loop", "ro", "noload")
        return [Mount("ext4", f"/proc/self/fd/{entry.fd}", options)]

    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, *, parent: str = "") -> None:
        """As the contract."""
        self._check_free(name)
        entry = self._find(key)
        if entry.info.kind is not Kind.ACTIVE:
            raise FailedPrecondition(f"snapshot {key!r} is not active")
        if parent and parent != entry.info.parent:
            raise InvalidArgument(f"snapshot {key!r} was prepared on {entry.info.parent!r}")
        encode_labels(labels or {})
        now = self._now()
        info = Info(name, entry.info.parent, Kind.COMMITTED, now, now, dict(labels or {}))
        renamed = {key: (name, replace(entry, info=info))}  # it keeps its place in the order
        self._entries = dict(renamed.get(old, (old, other)) for old, other in self._entries.items())

    def remove(self, key: str) -> None:
        """As the contract."""
        entry = self._find(key)
        if any(other.info.parent == key for other in self._entries.values()):
            raise FailedPrecondition(f"cannot remove snapshot {key!r}: others are made on it")
        del self._entries[key]
        if entry.how is not How.PARENT:
            self._removed.append(entry.fd)

    def stat(self, key: str) -> Info:
        """As the contract."""
        return self._find(key).info

    def update(self, name: str, labels: Mapping[str, str], fieldpaths: Iterable[str] = ()) -> Info:
        """As the contract."""
        entry = self._find(name)
        changed = relabelled(entry.info.labels, labels, fieldpaths)
        encode_labels(changed)
        info = entry.info._replace(labels=changed, updated_ns=self._now())
        self._entries[name] = replace(entry, info=info)
        return info

    def list(self, filters: Iterable[str] = ()) -> Iterator[Info]:
        """As the contract."""
        matches = parse_filters(filters)
        return iter([entry.info for entry in self._entries.values() if matches(entry.info)])

    def usage(self, key: str) -> Usage:
        """As the contract."""
        entry = self._find(key)
        return Usage(0, 0) if entry.how is How.PARENT else Usage(os.fstat(entry.fd).st_blocks * 512, 1)

    def cleanup(self) -> int:
        """As the contract."""
        count = len(self._removed)
        while self._removed:
            os.close(self._removed.pop())
        return count

    def disk(self, key: str) -> Disk:
        """As the contract."""
        entry = self._find(key)
        read_only = entry.info.kind is not Kind.ACTIVE
        size, how = os.fstat(entry.fd).st_size, How.PARENT if read_only else entry.how
        return Disk(f"/proc/self/fd/{entry.fd}", "raw", None, read_only, size, how)

    def import_committed(self, name: str, labels: Mapping[str, str] | None, fill: Callable[[int], object]) -> Info:
        """As the contract."""
        self._check_new(name, "", labels or {})
        fd = os.memfd_create("snapshot", os.MFD_CLOEXEC)
        try:
            fill(fd)
        except BaseException:
            os.close(fd)
            raise
        return self._add(name, "", Kind.COMMITTED, labels or {}, (fd, How.FILLED))

    def reconcile(self, is_dead: Callable[[str], bool] | None = None) -> Reconciled:
        """Nothing of this store outlives its process."""
        del is_dead
        return Reconciled()

    def close(self) -> None:
        """As the contract."""
        self.cleanup()
        for entry in self._entries.values():
            if entry.how is not How.PARENT:
                os.close(entry.fd)
        self._entries.clear()
