"""A stand-in for containerd, as far as boot files need one: snapshots whose mounts are given, views, leases, containers, images, content.

What it holds is files in a directory, so that it survives the process that uses it, as containerd does. It keeps containerd's rules (containerd.md 3.2, 4):
a key is taken once, a view needs a committed parent, what no lease keeps :meth:`FakeContainerd.collect` takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Unpack
from urllib.parse import quote, unquote

from unikeel.containerd.calling import Options
from unikeel.containerd.records import (
    COMMITTED,
    VIEW,
    ContainerRecord,
    Descriptor,
    ImageRecord,
    Lease,
    LeaseResource,
    Mount,
    Namespace,
    Plugin,
    ServerInfo,
    SnapshotInfo,
)
from unikeel.errors import AlreadyExists, FailedPrecondition, NotFound

JSON = dict[str, object]


class Shelf:
    """Things by name, in a directory."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        os.makedirs(directory, exist_ok=True)

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, quote(name, safe=""))

    def names(self) -> list[str]:
        return sorted(unquote(name) for name in os.listdir(self._directory) if not name.startswith("."))

    def items(self) -> Iterator[tuple[str, JSON]]:
        """Names and what they name. Others may take things away meanwhile."""
        for name in self.names():
            with contextlib.suppress(NotFound):
                yield name, self.get(name)

    def get(self, name: str) -> JSON:
        try:
            with open(self._path(name), encoding="utf-8") as file:
                found: JSON = json.load(file)
        except FileNotFoundError:
            raise NotFound(f"{name}: not found") from None
        return found

    def put(self, name: str, value: JSON, *, new: bool = False) -> None:
        if new and os.path.exists(self._path(name)):
            raise AlreadyExists(f"{name}: already exists")
        path = os.path.join(self._directory, f".{os.getpid()}")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(value, file)
        os.rename(path, self._path(name))

    def remove(self, name: str) -> None:
        self.get(name)
        os.unlink(self._path(name))


class State:
    """What all namespaces share. :ivar calls: names of the calls made. :ivar faults: errors to raise at a call, before it does anything.
    :ivar late: the same, after it was done: containerd went away before it could answer. :ivar slow_view: turns of the event loop that a snapshotter takes
    for a view."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.calls: list[str] = []
        self.faults: dict[str, list[Exception]] = {}
        self.late: dict[str, list[Exception]] = {}
        self.slow_view = 2

    def before(self, call: str) -> None:
        self.calls.append(call)
        if self.faults.get(call):
            raise self.faults[call].pop(0)

    def after(self, call: str) -> None:
        if self.late.get(call):
            raise self.late[call].pop(0)

    def shelf(self, *parts: str) -> Shelf:
        return Shelf(os.path.join(self.directory, *(quote(part, safe="") for part in parts)))


class FakeSnapshots:
    """The snapshots of one snapshotter in one namespace."""

    def __init__(self, state: State, namespace: str, name: str) -> None:
        self.name = name
        self._state = state
        self._shelf = state.shelf("snapshots", namespace, name)
        self._leases = state.shelf("leases", namespace)

    def commit(self, name: str, parent: str, mounts: Sequence[Mount], created_ns: int = 1) -> None:
        """Have a committed snapshot; views of it are mounted so."""
        self._put(name, parent, COMMITTED, [list(mount) for mount in mounts], {}, created_ns)

    def _put(self, name: str, parent: str, kind: str, mounts: object, labels: Mapping[str, str], created: int) -> None:
        value: JSON = {"parent": parent, "kind": kind, "mounts": mounts, "labels": dict(labels), "created": created}
        self._shelf.put(name, value, new=True)

    def names(self, kind: str = VIEW) -> list[str]:
        """The snapshots of a kind."""
        return [name for name, value in self._shelf.items() if value["kind"] == kind]

    async def stat(self, key: str, **_options: Unpack[Options]) -> SnapshotInfo:
        """One snapshot."""
        self._state.before("stat")
        return self._info(key)

    def _info(self, key: str) -> SnapshotInfo:
        return self._told(key, self._shelf.get(key))

    def _told(self, key: str, found: JSON) -> SnapshotInfo:
        labels = found["labels"]
        created = int(str(found["created"]))
        named = {str(name): str(value) for name, value in labels.items()} if isinstance(labels, dict) else {}
        return SnapshotInfo(key, str(found["parent"]), str(found["kind"]), created, created, named)

    async def view(
        self, key: str, parent: str, labels: Mapping[str, str] | None = None, **options: Unpack[Options]
    ) -> tuple[Mount, ...]:
        """Make a view. As in containerd, its lease has to be there when the snapshotter has done its work."""
        self._state.before("view")
        base = self._shelf.get(parent)
        if base["kind"] != COMMITTED:
            raise FailedPrecondition(f"{parent} is not committed")
        for _ in range(self._state.slow_view):
            await asyncio.sleep(0)
        lease = options.get("lease", "")
        if lease:
            self._leases.get(lease)
        self._put(key, parent, VIEW, base["mounts"], labels or {}, time.time_ns())
        if lease:
            keep(self._leases, lease, f"snapshots/{self.name}", key)
        self._state.after("view")
        return self._mounts(key)

    def _mounts(self, key: str) -> tuple[Mount, ...]:
        found = self._shelf.get(key)["mounts"]
        assert isinstance(found, list)
        return tuple(Mount(one[0], one[1], one[2], tuple(one[3])) for one in found)

    async def mounts(self, key: str, **_options: Unpack[Options]) -> tuple[Mount, ...]:
        """How a view is mounted."""
        self._state.before("mounts")
        if self._shelf.get(key)["kind"] == COMMITTED:
            raise FailedPrecondition(f"{key} is committed")
        return self._mounts(key)

    async def remove(self, key: str, **_options: Unpack[Options]) -> None:
        """Remove one that nothing is made on."""
        self._state.before("remove")
        if any(value["parent"] == key for _, value in self._shelf.items()):
            raise FailedPrecondition(f"cannot remove {key}: it has children")
        self._shelf.remove(key)
        self._state.after("remove")

    async def list(self, filters: Sequence[str] = (), **_options: Unpack[Options]) -> list[SnapshotInfo]:
        """Those that one of the filters fits."""
        self._state.before("list")
        return [info for one in self._shelf.items() if fits(filters, (info := self._told(*one)).labels)]

    def collect(self) -> None:
        """Take the views that no lease keeps."""
        kept = [keep for lease in self._leases.names() for keep in resources_of(self._leases, lease)]
        for name in self.names():
            if LeaseResource(f"snapshots/{self.name}", name) not in kept:
                self._shelf.remove(name)


class FakeLeases:
    """The leases of one namespace."""

    def __init__(self, state: State, namespace: str) -> None:
        self._state = state
        self._shelf = state.shelf("leases", namespace)

    def names(self) -> list[str]:
        """All of them."""
        return self._shelf.names()

    async def create(self, name: str, labels: Mapping[str, str] | None = None, **_options: Unpack[Options]) -> Lease:
        """Make one."""
        self._state.before("lease")
        self._shelf.put(name, {"labels": dict(labels or {}), "resources": []}, new=True)
        self._state.after("lease")
        return Lease(name, dict(labels or {}))

    async def delete(self, name: str, *, sync: bool = False, **_options: Unpack[Options]) -> None:
        """Delete one."""
        del sync
        self._state.before("unlease")
        self._shelf.remove(name)
        self._state.after("unlease")

    async def resources(self, name: str, **_options: Unpack[Options]) -> list[LeaseResource]:
        """What it keeps."""
        return resources_of(self._shelf, name)

    async def add_resource(self, name: str, kind: str, resource: str, **_options: Unpack[Options]) -> None:
        """Have it keep something that is there."""
        self._state.before("add_resource")
        keep(self._shelf, name, kind, resource)
        self._state.after("add_resource")

    async def list(self, filters: Sequence[str] = (), **_options: Unpack[Options]) -> list[Lease]:
        """Those that one of the filters fits."""
        found = []
        for name, value in self._shelf.items():
            labels = value["labels"]
            assert isinstance(labels, dict)
            if fits(filters, labels):
                found.append(Lease(name, labels))
        return found


def keep(leases: Shelf, lease: str, kind: str, resource: str) -> None:
    """A lease keeps something."""
    found = leases.get(lease)
    kept = found["resources"]
    assert isinstance(kept, list)
    leases.put(lease, {**found, "resources": [*kept, [kind, resource]]})


def resources_of(leases: Shelf, lease: str) -> list[LeaseResource]:
    """What a lease keeps."""
    found = leases.get(lease)["resources"]
    assert isinstance(found, list)
    return [LeaseResource(kind, name) for kind, name in found]


def fits(filters: Sequence[str], labels: Mapping[str, str]) -> bool:
    """Whether labels fit one of the filters, of which only ``labels."NAME"==VALUE`` is known."""
    pairs = [one.removeprefix('labels."').split('"==') for one in filters]
    return not filters or any(labels.get(name) == value for name, value in pairs)


class FakeStore:
    """Containers, images and content, by name: given, and told again."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.container_records: dict[str, ContainerRecord] = {}
        self.image_records: dict[str, ImageRecord] = {}
        self.blobs: dict[str, bytes] = {}


class _Containers:
    def __init__(self, state: State, store: FakeStore) -> None:
        self._state, self._store = state, store

    async def get(self, container: str, **_options: Unpack[Options]) -> ContainerRecord:
        self._state.before("container")
        if container not in self._store.container_records:
            raise NotFound(f"container {container}: not found")
        return self._store.container_records[container]


class _Images:
    def __init__(self, state: State, store: FakeStore) -> None:
        self._state, self._store = state, store

    async def get(self, name: str, **_options: Unpack[Options]) -> ImageRecord:
        self._state.before("image")
        if name not in self._store.image_records:
            raise NotFound(f"image {name}: not found")
        return self._store.image_records[name]


class _Content:
    def __init__(self, state: State, store: FakeStore) -> None:
        self._state, self._store = state, store

    async def read(self, blob: Descriptor | str, limit: int = 1 << 30, **_options: Unpack[Options]) -> bytes:
        del limit
        self._state.before("read")
        digest = blob if isinstance(blob, str) else blob.digest
        if digest not in self._store.blobs:
            raise NotFound(f"content {digest}: not found")
        return self._store.blobs[digest]

    async def copy(self, blob: Descriptor | str, fd: int, limit: int, **options: Unpack[Options]) -> int:
        return os.write(fd, await self.read(blob, limit, **options))


class _Namespaces:
    def __init__(self, state: State) -> None:
        self._state = state

    async def list(self, **_options: Unpack[Options]) -> list[Namespace]:
        self._state.before("namespaces")
        return [Namespace(name) for name in self._state.shelf("leases").names()]


class _Introspection:
    def __init__(self, state: State) -> None:
        self._state = state

    async def server(self, **_options: Unpack[Options]) -> ServerInfo:
        return ServerInfo("uuid", 1, 1)

    async def plugins(self, filters: Sequence[str] = (), **_options: Unpack[Options]) -> list[Plugin]:
        del filters
        names = {
            one
            for space in self._state.shelf("snapshots").names()
            for one in self._state.shelf("snapshots", space).names()
        }
        return [Plugin("io.containerd.snapshotter.v1", name, {}, (), "") for name in sorted(names)]


class FakeContainerd:
    """A :class:`~unikeel.containerd.services.Client`. :param directory: what it holds, shared by all that are made on it."""

    def __init__(self, directory: str, namespace: str = "default", *, state: State | None = None) -> None:
        self.state = state or State(directory)
        self.namespace = namespace
        self.address = "/run/fake.sock"
        self.store = FakeStore(self.state)
        self.leases = FakeLeases(self.state, namespace)
        self.containers = _Containers(self.state, self.store)
        self.images = _Images(self.state, self.store)
        self.content = _Content(self.state, self.store)
        self.namespaces = _Namespaces(self.state)
        self.introspection = _Introspection(self.state)

    def snapshots(self, name: str) -> FakeSnapshots:
        """The snapshots of a snapshotter."""
        return FakeSnapshots(self.state, self.namespace, name)

    def with_namespace(self, namespace: str) -> FakeContainerd:
        """The same, for another namespace, with the same containers, images and content."""
        other = FakeContainerd(self.state.directory, namespace, state=self.state)
        for name in ("store", "containers", "images", "content"):
            setattr(other, name, getattr(self, name))
        return other

    def collect(self, snapshotter: str) -> None:
        """What containerd's garbage collector does."""
        self.snapshots(snapshotter).collect()
