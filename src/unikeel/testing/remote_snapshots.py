"""Snapshots behind a gRPC socket, as the synchronous calls of a store: what lets one suite drive a store in-process, a snapshotter at
its own socket, and one behind a real containerd."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

from unikeel.containerd.client import Containerd
from unikeel.containerd.records import Mount as RemoteMount
from unikeel.containerd.records import SnapshotInfo
from unikeel.snapshots.contract import Info, Kind, Mount, Usage

T = TypeVar("T")
#: Seconds that one call may take: machines may be emulated, and busy.
_PATIENCE: Final = 300.0


class RemoteSnapshots:
    """One snapshotter in one namespace. The calls are those of :class:`~unikeel.snapshots.contract.SnapshotStore`, and so are their errors.

    :param address: the socket of a containerd, or of a snapshotter. :param snapshotter: how containerd calls it.
    """

    def __init__(self, address: str, snapshotter: str, namespace: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="remote snapshots", daemon=True)
        self._thread.start()
        self._containerd = Containerd(address, namespace)
        self._snapshots = self._containerd.snapshots(snapshotter)
        self._closed = False

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_PATIENCE)

    def prepare(self, key: str, parent: str, labels: Mapping[str, str] | None = None) -> list[Mount]:
        """See the contract."""
        return _mounts(self._call(self._snapshots.prepare(key, parent, labels, timeout=_PATIENCE)))

    def view(self, key: str, parent: str, labels: Mapping[str, str] | None = None) -> list[Mount]:
        """See the contract."""
        return _mounts(self._call(self._snapshots.view(key, parent, labels, timeout=_PATIENCE)))

    def mounts(self, key: str) -> list[Mount]:
        """See the contract."""
        return _mounts(self._call(self._snapshots.mounts(key, timeout=_PATIENCE)))

    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, *, parent: str = "") -> None:
        """See the contract."""
        self._call(self._snapshots.commit(name, key, labels, parent=parent, timeout=_PATIENCE))

    def remove(self, key: str) -> None:
        """See the contract."""
        self._call(self._snapshots.remove(key, timeout=_PATIENCE))

    def stat(self, key: str) -> Info:
        """See the contract."""
        return _info(self._call(self._snapshots.stat(key, timeout=_PATIENCE)))

    def update(self, name: str, labels: Mapping[str, str], fieldpaths: Iterable[str] = ()) -> Info:
        """See the contract."""
        return _info(self._call(self._snapshots.update(name, labels, list(fieldpaths), timeout=_PATIENCE)))

    def list(self, filters: Iterable[str] = ()) -> Iterator[Info]:
        """See the contract."""
        return map(_info, self._call(self._snapshots.list(list(filters), timeout=_PATIENCE)))

    def usage(self, key: str) -> Usage:
        """See the contract."""
        used = self._call(self._snapshots.usage(key, timeout=_PATIENCE))
        return Usage(used.size, used.inodes)

    def cleanup(self) -> None:
        """See the contract; nobody says how many there were."""
        self._call(self._snapshots.cleanup(timeout=_PATIENCE))

    def close(self) -> None:
        """End the connection. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._call(self._containerd.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _mounts(found: tuple[RemoteMount, ...]) -> list[Mount]:
    return [Mount(one.type, one.source, one.options) for one in found]


def _info(found: SnapshotInfo) -> Info:
    return Info(found.name, found.parent, Kind(found.kind), found.created_ns, found.updated_ns, found.labels)
