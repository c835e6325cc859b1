"""A small containerd for tests: gRPC over a unix socket, images, content, snapshots, leases, containers and tasks in memory.

It knows what the client's tests need of the semantics (containerd.md, sections 3 and 4), and writes down every call.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.protocol import H2Protocol
from grpclib.server import Server, Stream

from unikeel.containerd.wire import (
    containers_pb2,
    content_pb2,
    diff_pb2,
    event_service_pb2,
    images_pb2,
    introspection_pb2,
    leases_pb2,
    namespaces_pb2,
    snapshots_pb2,
    task_types_pb2,
    tasks_pb2,
    types_pb2,
    version_pb2,
)

_V = "containerd.services"


class Asked(NamedTuple):
    """One call: its method, namespace, lease and request."""

    method: str
    namespace: str
    lease: str
    request: Any


def missing(what: str) -> GRPCError:
    """What containerd answers for what is not there."""
    return GRPCError(Status.NOT_FOUND, f"{what}: not found")


class _Server(Server):
    """A server that can go away as a killed process does."""

    def __init__(self, services: list[Any]) -> None:
        super().__init__(services)
        self._protocols: list[H2Protocol] = []

    def _protocol_factory(self) -> H2Protocol:
        self._protocols.append(super()._protocol_factory())
        return self._protocols[-1]

    def vanish(self) -> None:
        """End every connection in the middle of whatever it does."""
        for protocol in self._protocols:
            transport = getattr(protocol.connection, "_transport", None)  # it is gone when the connection is
            if transport is not None:
                transport.abort()
        self.close()


class Fake:
    """The state, and the methods."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.blobs: dict[str, bytes] = {}
        self.labels: dict[str, dict[str, str]] = {}
        self.partial: dict[str, bytes] = {}
        self.locked: set[str] = set()
        self.images: dict[str, images_pb2.Image] = {}
        self.snapshots: dict[tuple[str, str], snapshots_pb2.Info] = {}
        self.leases: dict[str, leases_pb2.Lease] = {}
        self.resources: dict[str, list[leases_pb2.Resource]] = {}
        self.containers: dict[str, containers_pb2.Container] = {}
        self.tasks: dict[str, task_types_pb2.Process] = {}
        self.ended: dict[str, asyncio.Event] = {}
        self.events: list[types_pb2.Envelope] = []
        self.given_up = asyncio.Event()
        self.fail: dict[str, GRPCError] = {}
        self.reset: set[str] = set()
        self.slow: dict[str, float] = {}
        self._handlers: dict[str, Handler] = {}
        for method, request, response in _UNARY:
            self._add(method, Cardinality.UNARY_UNARY, request, response, self._unary(method))
        self._add(
            f"{_V}.snapshots.v1.Snapshots/List",
            Cardinality.UNARY_STREAM,
            snapshots_pb2.ListSnapshotsRequest,
            snapshots_pb2.ListSnapshotsResponse,
            self._list_snapshots,
        )
        self._add(
            f"{_V}.content.v1.Content/Read",
            Cardinality.UNARY_STREAM,
            content_pb2.ReadContentRequest,
            content_pb2.ReadContentResponse,
            self._read,
        )
        self._add(
            f"{_V}.content.v1.Content/Write",
            Cardinality.STREAM_STREAM,
            content_pb2.WriteContentRequest,
            content_pb2.WriteContentResponse,
            self._write,
        )
        self._add(
            f"{_V}.events.v1.Events/Subscribe",
            Cardinality.UNARY_STREAM,
            event_service_pb2.SubscribeRequest,
            types_pb2.Envelope,
            self._subscribe,
        )

    def __mapping__(self) -> dict[str, Handler]:
        return self._handlers

    def calls(self, method: str) -> list[Asked]:
        """The calls of a method so far."""
        return [one for one in self.asked if one.method == method]

    def _add(
        self,
        method: str,
        cardinality: Cardinality,
        request: type[Message],
        response: type[Message],
        answer: Callable[[Stream[Any, Any]], Awaitable[None]],
    ) -> None:
        async def checked(stream: Stream[Any, Any]) -> None:
            name = method.rpartition(".")[2]
            await asyncio.sleep(self.slow.get(name, 0))
            if name in self.reset:
                await stream.cancel()
                return
            if name in self.fail:
                raise self.fail[name]
            await answer(stream)

        self._handlers[f"/{method}"] = Handler(checked, cardinality, request, response)

    async def _take(self, stream: Stream[Any, Any], method: str) -> Any:
        request = await stream.recv_message()
        metadata = dict(stream.metadata or {})
        self.asked.append(
            Asked(
                method,
                str(metadata.get("containerd-namespace", "")),
                str(metadata.get("containerd-lease", "")),
                request,
            )
        )
        return request

    def _unary(self, method: str) -> Callable[[Stream[Any, Any]], Awaitable[None]]:
        service, _, name = method.rpartition(".")[2].partition("/")

        async def answer(stream: Stream[Any, Any]) -> None:
            request = await self._take(stream, f"{service}/{name}")
            found = getattr(self, f"{service}_{name}".lower())(request)
            await stream.send_message(await found if asyncio.iscoroutine(found) else found)

        return answer

    # The services.

    def version_version(self, _: Any) -> Message:
        return version_pb2.VersionResponse(version="v9.9", revision="abc")

    def introspection_server(self, _: Any) -> Message:
        return introspection_pb2.ServerResponse(uuid="u", pid=4, pidns=5)

    def namespaces_list(self, _: Any) -> Message:
        found = namespaces_pb2.Namespace(name="default", labels={"a": "b"})
        return namespaces_pb2.ListNamespacesResponse(namespaces=[found])

    def leases_create(self, request: Any) -> Message:
        if request.id in self.leases:
            raise GRPCError(Status.ALREADY_EXISTS, "lease: already exists")
        self.leases[request.id] = leases_pb2.Lease(id=request.id, labels=request.labels)
        self.resources[request.id] = []
        return leases_pb2.CreateResponse(lease=self.leases[request.id])

    def leases_delete(self, request: Any) -> Message:
        if self.leases.pop(request.id, None) is None:
            raise missing("lease")
        return Empty()

    def leases_list(self, _: Any) -> Message:
        return leases_pb2.ListResponse(leases=self.leases.values())

    def leases_addresource(self, request: Any) -> Message:
        self.resources[request.id].append(request.resource)
        return Empty()

    def leases_listresources(self, request: Any) -> Message:
        return leases_pb2.ListResourcesResponse(resources=self.resources[request.id])

    def images_get(self, request: Any) -> Message:
        if request.name not in self.images:
            raise missing(f'image "{request.name}"')
        return images_pb2.GetImageResponse(image=self.images[request.name])

    def images_create(self, request: Any) -> Message:
        if request.image.name in self.images:
            raise GRPCError(Status.ALREADY_EXISTS, "image: already exists")
        self.images[request.image.name] = request.image
        return images_pb2.CreateImageResponse(image=request.image)

    def images_update(self, request: Any) -> Message:
        self.images[request.image.name] = request.image
        return images_pb2.UpdateImageResponse(image=request.image)

    def content_info(self, request: Any) -> Message:
        if request.digest not in self.blobs:
            raise missing(request.digest)
        info = content_pb2.Info(
            digest=request.digest, size=len(self.blobs[request.digest]), labels=self.labels[request.digest]
        )
        return content_pb2.InfoResponse(info=info)

    def content_update(self, request: Any) -> Message:
        if request.info.digest not in self.blobs:
            raise missing(request.info.digest)
        assert set(request.update_mask.paths) == {f"labels.{name}" for name in request.info.labels}
        self.labels[request.info.digest].update(request.info.labels)
        return content_pb2.UpdateResponse(info=request.info)

    async def _read(self, stream: Stream[Any, Any]) -> None:
        request = await self._take(stream, "Content/Read")
        if request.digest not in self.blobs:
            raise missing(request.digest)
        data = self.blobs[request.digest]
        for at in range(0, len(data), 1000):
            await stream.send_message(content_pb2.ReadContentResponse(offset=at, data=data[at : at + 1000]))

    async def _write(self, stream: Stream[Any, Any]) -> None:
        first = await self._take(stream, "Content/Write")
        if first.ref in self.locked:
            raise GRPCError(Status.UNAVAILABLE, f"ref {first.ref} locked: unavailable")
        if first.expected in self.blobs:
            raise GRPCError(Status.ALREADY_EXISTS, "blob exists")
        held = self.partial.get(first.ref, b"")
        await stream.send_message(content_pb2.WriteContentResponse(action=content_pb2.STAT, offset=len(held)))
        while True:
            request = await stream.recv_message()
            if request is None:
                return
            assert request.offset == len(held)
            held += request.data
            self.partial[first.ref] = held
            if request.action == content_pb2.COMMIT:
                break
            await stream.send_message(content_pb2.WriteContentResponse(action=request.action, offset=len(held)))
        digest = f"sha256:{hashlib.sha256(held).hexdigest()}"
        if digest != request.expected or request.total != len(held):
            raise GRPCError(Status.FAILED_PRECONDITION, f"unexpected commit digest {digest}")
        del self.partial[first.ref]
        self.blobs[digest] = held
        self.labels[digest] = dict(request.labels)
        await stream.send_message(content_pb2.WriteContentResponse(action=content_pb2.COMMIT, offset=len(held)))

    def _snapshot(self, request: Any) -> snapshots_pb2.Info:
        if request.snapshotter == "bogus":
            raise GRPCError(Status.INVALID_ARGUMENT, "snapshotter not loaded: bogus")
        found = self.snapshots.get((request.snapshotter, request.key))
        if found is None:
            raise missing(f"snapshot {request.key}")
        return found

    def snapshots_stat(self, request: Any) -> Message:
        return snapshots_pb2.StatSnapshotResponse(info=self._snapshot(request))

    def _new(self, request: Any, kind: snapshots_pb2.Kind) -> list[types_pb2.Mount]:
        if (request.snapshotter, request.key) in self.snapshots:
            raise GRPCError(Status.ALREADY_EXISTS, f"snapshot {request.key}: already exists")
        if request.parent and (request.snapshotter, request.parent) not in self.snapshots:
            raise missing(f"snapshot {request.parent}")
        info = snapshots_pb2.Info(name=request.key, parent=request.parent, kind=kind, labels=request.labels)
        info.created_at.seconds = 1700000000
        info.created_at.nanos = 5
        self.snapshots[request.snapshotter, request.key] = info
        return [types_pb2.Mount(type="ext4", source=f"/dev/{request.key}", options=["ro", "nouuid"])]

    def snapshots_prepare(self, request: Any) -> Message:
        return snapshots_pb2.PrepareSnapshotResponse(mounts=self._new(request, snapshots_pb2.ACTIVE))

    def snapshots_view(self, request: Any) -> Message:
        return snapshots_pb2.ViewSnapshotResponse(mounts=self._new(request, snapshots_pb2.VIEW))

    def snapshots_mounts(self, request: Any) -> Message:
        self._snapshot(request)
        return snapshots_pb2.MountsResponse(mounts=[types_pb2.Mount(type="bind", source=request.key)])

    def snapshots_commit(self, request: Any) -> Message:
        info = self._snapshot(request)
        if (request.snapshotter, request.name) in self.snapshots:
            raise GRPCError(Status.ALREADY_EXISTS, f"snapshot {request.name}: already exists")
        del self.snapshots[request.snapshotter, request.key]
        self.snapshots[request.snapshotter, request.name] = snapshots_pb2.Info(
            name=request.name, parent=info.parent, kind=snapshots_pb2.COMMITTED, labels=request.labels
        )
        return Empty()

    def snapshots_remove(self, request: Any) -> Message:
        self._snapshot(request)
        if any(info.parent == request.key for info in self.snapshots.values()):
            raise GRPCError(Status.FAILED_PRECONDITION, "cannot remove snapshot with child")
        del self.snapshots[request.snapshotter, request.key]
        return Empty()

    def snapshots_update(self, request: Any) -> Message:
        info = self.snapshots[request.snapshotter, request.info.name]
        info.labels.update(request.info.labels)
        return snapshots_pb2.UpdateSnapshotResponse(info=info)

    def snapshots_usage(self, request: Any) -> Message:
        self._snapshot(request)
        return snapshots_pb2.UsageResponse(size=12, inodes=3)

    async def _list_snapshots(self, stream: Stream[Any, Any]) -> None:
        await self._take(stream, "Snapshots/List")
        for info in self.snapshots.values():
            await stream.send_message(snapshots_pb2.ListSnapshotsResponse(info=[info]))

    def diff_apply(self, request: Any) -> Message:
        data = self.blobs[request.diff.digest]
        plain = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        digest = f"sha256:{hashlib.sha256(plain).hexdigest()}"
        return diff_pb2.ApplyResponse(applied=types_pb2.Descriptor(digest=digest, size=len(plain)))

    def containers_get(self, request: Any) -> Message:
        if request.id not in self.containers:
            raise missing(f'container "{request.id}"')
        return containers_pb2.GetContainerResponse(container=self.containers[request.id])

    def containers_list(self, _: Any) -> Message:
        return containers_pb2.ListContainersResponse(containers=self.containers.values())

    def containers_create(self, request: Any) -> Message:
        if request.container.id in self.containers:
            raise GRPCError(Status.ALREADY_EXISTS, "container: already exists")
        self.containers[request.container.id] = request.container
        return containers_pb2.CreateContainerResponse(container=request.container)

    def containers_delete(self, request: Any) -> Message:
        if self.containers.pop(request.id, None) is None:
            raise missing("container")
        return Empty()

    def _task(self, name: str) -> task_types_pb2.Process:
        if name not in self.tasks:
            raise missing(f"task {name}")
        return self.tasks[name]

    def tasks_create(self, request: Any) -> Message:
        self.tasks[request.container_id] = task_types_pb2.Process(
            id=request.container_id,
            pid=42,
            status=task_types_pb2.CREATED,
            stdin=request.stdin,
            stdout=request.stdout,
            stderr=request.stderr,
            terminal=request.terminal,
        )
        self.ended[request.container_id] = asyncio.Event()
        return tasks_pb2.CreateTaskResponse(container_id=request.container_id, pid=42)

    def tasks_start(self, request: Any) -> Message:
        self._task(request.container_id).status = task_types_pb2.RUNNING
        return tasks_pb2.StartResponse(pid=42)

    def tasks_get(self, request: Any) -> Message:
        return tasks_pb2.GetResponse(process=self._task(request.container_id))

    def tasks_kill(self, request: Any) -> Message:
        if self._task(request.container_id).status == task_types_pb2.STOPPED:
            raise missing("process already finished")
        self.end(request.container_id, 128 + request.signal)
        return Empty()

    def end(self, name: str, status: int) -> None:
        """Let a task end."""
        self.tasks[name].status = task_types_pb2.STOPPED
        self.tasks[name].exit_status = status
        self.ended[name].set()

    async def tasks_wait(self, request: Any) -> Message:
        task = self._task(request.container_id)
        await self.ended[request.container_id].wait()
        return tasks_pb2.WaitResponse(exit_status=task.exit_status)

    def tasks_delete(self, request: Any) -> Message:
        task = self._task(request.container_id)
        if task.status != task_types_pb2.STOPPED:
            raise GRPCError(Status.UNKNOWN, "cannot delete a running process: unknown")
        del self.tasks[request.container_id]
        return tasks_pb2.DeleteResponse(id=request.container_id, pid=42, exit_status=task.exit_status)

    async def _subscribe(self, stream: Stream[Any, Any]) -> None:
        await self._take(stream, "Events/Subscribe")
        for event in self.events:
            await stream.send_message(event)
        try:
            await asyncio.Event().wait()
        finally:
            self.given_up.set()

    @asynccontextmanager
    async def serving(self, path: str = "") -> AsyncIterator[str]:
        """Serve at a socket; gives its path."""
        with tempfile.TemporaryDirectory() as directory:
            where = path or os.path.join(directory, "containerd.sock")
            server = _Server([self])
            await server.start(path=where)
            try:
                yield where
            finally:
                server.vanish()
                await server.wait_closed()


_UNARY: list[tuple[str, type[Message], type[Message]]] = [
    (f"{_V}.version.v1.Version/Version", Empty, version_pb2.VersionResponse),
    (f"{_V}.introspection.v1.Introspection/Server", Empty, introspection_pb2.ServerResponse),
    (
        f"{_V}.namespaces.v1.Namespaces/List",
        namespaces_pb2.ListNamespacesRequest,
        namespaces_pb2.ListNamespacesResponse,
    ),
    (f"{_V}.leases.v1.Leases/Create", leases_pb2.CreateRequest, leases_pb2.CreateResponse),
    (f"{_V}.leases.v1.Leases/Delete", leases_pb2.DeleteRequest, Empty),
    (f"{_V}.leases.v1.Leases/List", leases_pb2.ListRequest, leases_pb2.ListResponse),
    (f"{_V}.leases.v1.Leases/AddResource", leases_pb2.AddResourceRequest, Empty),
    (f"{_V}.leases.v1.Leases/ListResources", leases_pb2.ListResourcesRequest, leases_pb2.ListResourcesResponse),
    (f"{_V}.images.v1.Images/Get", images_pb2.GetImageRequest, images_pb2.GetImageResponse),
    (f"{_V}.images.v1.Images/Create", images_pb2.CreateImageRequest, images_pb2.CreateImageResponse),
    (f"{_V}.images.v1.Images/Update", images_pb2.UpdateImageRequest, images_pb2.UpdateImageResponse),
    (f"{_V}.content.v1.Content/Info", content_pb2.InfoRequest, content_pb2.InfoResponse),
    (f"{_V}.content.v1.Content/Update", content_pb2.UpdateRequest, content_pb2.UpdateResponse),
    (
        f"{_V}.snapshots.v1.Snapshots/Stat",
        snapshots_pb2.StatSnapshotRequest,
        snapshots_pb2.StatSnapshotResponse,
    ),
    (
        f"{_V}.snapshots.v1.Snapshots/Prepare",
        snapshots_pb2.PrepareSnapshotRequest,
        snapshots_pb2.PrepareSnapshotResponse,
    ),
    (
        f"{_V}.snapshots.v1.Snapshots/View",
        snapshots_pb2.ViewSnapshotRequest,
        snapshots_pb2.ViewSnapshotResponse,
    ),
    (f"{_V}.snapshots.v1.Snapshots/Mounts", snapshots_pb2.MountsRequest, snapshots_pb2.MountsResponse),
    (f"{_V}.snapshots.v1.Snapshots/Commit", snapshots_pb2.CommitSnapshotRequest, Empty),
    (f"{_V}.snapshots.v1.Snapshots/Remove", snapshots_pb2.RemoveSnapshotRequest, Empty),
    (
        f"{_V}.snapshots.v1.Snapshots/Update",
        snapshots_pb2.UpdateSnapshotRequest,
        snapshots_pb2.UpdateSnapshotResponse,
    ),
    (f"{_V}.snapshots.v1.Snapshots/Usage", snapshots_pb2.UsageRequest, snapshots_pb2.UsageResponse),
    (f"{_V}.diff.v1.Diff/Apply", diff_pb2.ApplyRequest, diff_pb2.ApplyResponse),
    (
        f"{_V}.containers.v1.Containers/Get",
        containers_pb2.GetContainerRequest,
        containers_pb2.GetContainerResponse,
    ),
    (
        f"{_V}.containers.v1.Containers/List",
        containers_pb2.ListContainersRequest,
        containers_pb2.ListContainersResponse,
    ),
    (
        f"{_V}.containers.v1.Containers/Create",
        containers_pb2.CreateContainerRequest,
        containers_pb2.CreateContainerResponse,
    ),
    (f"{_V}.containers.v1.Containers/Delete", containers_pb2.DeleteContainerRequest, Empty),
    (f"{_V}.tasks.v1.Tasks/Create", tasks_pb2.CreateTaskRequest, tasks_pb2.CreateTaskResponse),
    (f"{_V}.tasks.v1.Tasks/Start", tasks_pb2.StartRequest, tasks_pb2.StartResponse),
    (f"{_V}.tasks.v1.Tasks/Get", tasks_pb2.GetRequest, tasks_pb2.GetResponse),
    (f"{_V}.tasks.v1.Tasks/Kill", tasks_pb2.KillRequest, Empty),
    (f"{_V}.tasks.v1.Tasks/Wait", tasks_pb2.WaitRequest, tasks_pb2.WaitResponse),
    (f"{_V}.tasks.v1.Tasks/Delete", tasks_pb2.DeleteTaskRequest, tasks_pb2.DeleteResponse),
]
