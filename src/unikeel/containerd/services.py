"""The part of containerd's client that boot files need, as a contract: :class:`~unikeel.containerd.client.Containerd` fulfils it, and so does the
tests' stand-in. What the methods do and raise is written there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, Self, Unpack

from unikeel.containerd.calling import Options
from unikeel.containerd.records import (
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


class Snapshots(Protocol):
    """The snapshots of a snapshotter."""

    async def stat(self, key: str, **options: Unpack[Options]) -> SnapshotInfo: ...
    async def view(
        self, key: str, parent: str, labels: Mapping[str, str] | None = None, **options: Unpack[Options]
    ) -> tuple[Mount, ...]: ...
    async def mounts(self, key: str, **options: Unpack[Options]) -> tuple[Mount, ...]: ...
    async def remove(self, key: str, **options: Unpack[Options]) -> None: ...
    async def list(self, filters: Sequence[str] = (), **options: Unpack[Options]) -> list[SnapshotInfo]: ...


class Leases(Protocol):
    """The leases of a namespace."""

    async def create(self, name: str, labels: Mapping[str, str] | None = None, **options: Unpack[Options]) -> Lease: ...
    async def delete(self, name: str, *, sync: bool = False, **options: Unpack[Options]) -> None: ...
    async def resources(self, name: str, **options: Unpack[Options]) -> list[LeaseResource]: ...
    async def add_resource(self, name: str, kind: str, resource: str, **options: Unpack[Options]) -> None: ...
    async def list(self, filters: Sequence[str] = (), **options: Unpack[Options]) -> list[Lease]: ...


class Containers(Protocol):
    """The containers of a namespace."""

    async def get(self, container: str, **options: Unpack[Options]) -> ContainerRecord: ...


class Images(Protocol):
    """The images of a namespace."""

    async def get(self, name: str, **options: Unpack[Options]) -> ImageRecord: ...


class Content(Protocol):
    """The blobs of a namespace."""

    async def read(self, blob: Descriptor | str, limit: int = ..., **options: Unpack[Options]) -> bytes: ...
    async def copy(self, blob: Descriptor | str, fd: int, limit: int, **options: Unpack[Options]) -> int: ...


class Namespaces(Protocol):
    """The namespaces."""

    async def list(self, **options: Unpack[Options]) -> list[Namespace]: ...


class Introspection(Protocol):
    """What containerd tells of itself."""

    async def server(self, **options: Unpack[Options]) -> ServerInfo: ...
    async def plugins(self, filters: Sequence[str] = (), **options: Unpack[Options]) -> list[Plugin]: ...


class Client(Protocol):
    """One containerd, in one namespace."""

    @property
    def address(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def leases(self) -> Leases: ...
    @property
    def containers(self) -> Containers: ...
    @property
    def images(self) -> Images: ...
    @property
    def content(self) -> Content: ...
    @property
    def namespaces(self) -> Namespaces: ...
    @property
    def introspection(self) -> Introspection: ...
    def snapshots(self, name: str) -> Snapshots: ...
    def with_namespace(self, namespace: str) -> Self: ...
