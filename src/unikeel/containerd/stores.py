"""The small stores of containerd's metadata: containers, images, leases, namespaces; and what containerd tells of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Unpack

from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask

from unikeel.containerd import messages
from unikeel.containerd.calling import Caller, Options, with_timeout
from unikeel.containerd.records import (
    ContainerRecord,
    ImageRecord,
    Lease,
    LeaseResource,
    Namespace,
    Packed,
    Plugin,
    Runtime,
    ServerInfo,
    Version,
)
from unikeel.containerd.wire import (
    containers_pb2,
    images_pb2,
    introspection_pb2,
    leases_pb2,
    namespaces_pb2,
    version_pb2,
)

_CONTAINERS: Final = "containerd.services.containers.v1.Containers"
_IMAGES: Final = "containerd.services.images.v1.Images"
_LEASES: Final = "containerd.services.leases.v1.Leases"
_NAMESPACES: Final = "containerd.services.namespaces.v1.Namespaces"
_INTROSPECTION: Final = "containerd.services.introspection.v1.Introspection"
_VERSION: Final = "containerd.services.version.v1.Version"
#: A run of the garbage collector is waited for with ``sync``.
_COLLECTION: Final = 120.0


class _Store:
    def __init__(self, caller: Caller) -> None:
        self._caller = caller


class Containers(_Store):
    """The containers of the namespace."""

    async def get(self, container: str, **options: Unpack[Options]) -> ContainerRecord:
        """A container. :raise NotFound: there is none of this id."""
        request = containers_pb2.GetContainerRequest(id=container)
        answer = await self._caller.unary(_CONTAINERS, "Get", request, containers_pb2.GetContainerResponse, options)
        return _container(answer.container)

    async def list(self, filters: Sequence[str] = (), **options: Unpack[Options]) -> list[ContainerRecord]:
        """The containers that one of the filters fits, all without filters."""
        request = containers_pb2.ListContainersRequest(filters=filters)
        answer = await self._caller.unary(_CONTAINERS, "List", request, containers_pb2.ListContainersResponse, options)
        return [_container(one) for one in answer.containers]

    async def create(self, record: ContainerRecord, **options: Unpack[Options]) -> ContainerRecord:
        """Make a container; it keeps its snapshot. :raise AlreadyExists: the id is taken."""
        request = containers_pb2.CreateContainerRequest(container=_container_message(record))
        kind = containers_pb2.CreateContainerResponse
        answer = await self._caller.unary(_CONTAINERS, "Create", request, kind, options)
        return _container(answer.container)

    async def label(self, container: str, labels: Mapping[str, str], **options: Unpack[Options]) -> ContainerRecord:
        """Set labels of a container; an empty value removes one; others stay."""
        request = containers_pb2.UpdateContainerRequest(
            container=containers_pb2.Container(id=container, labels=labels), update_mask=_mask(labels)
        )
        kind = containers_pb2.UpdateContainerResponse
        answer = await self._caller.unary(_CONTAINERS, "Update", request, kind, options)
        return _container(answer.container)

    async def delete(self, container: str, **options: Unpack[Options]) -> None:
        """Delete a container; its snapshot stays for the garbage collector. :raise NotFound: there is none."""
        request = containers_pb2.DeleteContainerRequest(id=container)
        await self._caller.unary(_CONTAINERS, "Delete", request, Empty, options)


class Images(_Store):
    """The names of images in the namespace."""

    async def get(self, name: str, **options: Unpack[Options]) -> ImageRecord:
        """What a name points to. :raise NotFound: there is no such name."""
        request = images_pb2.GetImageRequest(name=name)
        answer = await self._caller.unary(_IMAGES, "Get", request, images_pb2.GetImageResponse, options)
        return _image(answer.image)

    async def list(self, filters: Sequence[str] = (), **options: Unpack[Options]) -> list[ImageRecord]:
        """The images that one of the filters fits, all without filters."""
        request = images_pb2.ListImagesRequest(filters=filters)
        answer = await self._caller.unary(_IMAGES, "List", request, images_pb2.ListImagesResponse, options)
        return [_image(one) for one in answer.images]

    async def create(self, record: ImageRecord, **options: Unpack[Options]) -> ImageRecord:
        """Make a name. :raise AlreadyExists: it is taken."""
        request = images_pb2.CreateImageRequest(image=_image_message(record))
        answer = await self._caller.unary(_IMAGES, "Create", request, images_pb2.CreateImageResponse, options)
        return _image(answer.image)

    async def update(self, record: ImageRecord, **options: Unpack[Options]) -> ImageRecord:
        """Point a name elsewhere, and give it these labels in place of its own."""
        request = images_pb2.UpdateImageRequest(image=_image_message(record))
        answer = await self._caller.unary(_IMAGES, "Update", request, images_pb2.UpdateImageResponse, options)
        return _image(answer.image)

    async def delete(self, name: str, *, sync: bool = False, **options: Unpack[Options]) -> None:
        """Delete a name. :param sync: return when the garbage collector has run."""
        request = images_pb2.DeleteImageRequest(name=name, sync=sync)
        await self._caller.unary(
            _IMAGES, "Delete", request, Empty, with_timeout(options, _COLLECTION) if sync else options
        )


class Leases(_Store):
    """The leases of the namespace."""

    async def create(self, name: str, labels: Mapping[str, str] | None = None, **options: Unpack[Options]) -> Lease:
        """Make a lease. :raise AlreadyExists: the id is taken."""
        request = leases_pb2.CreateRequest(id=name, labels=labels)
        answer = await self._caller.unary(_LEASES, "Create", request, leases_pb2.CreateResponse, options)
        return _lease(answer.lease)

    async def delete(self, name: str, *, sync: bool = False, **options: Unpack[Options]) -> None:
        """Delete a lease: what nothing else keeps may go. :param sync: return when the garbage collector has run."""
        request = leases_pb2.DeleteRequest(id=name, sync=sync)
        await self._caller.unary(
            _LEASES, "Delete", request, Empty, with_timeout(options, _COLLECTION) if sync else options
        )

    async def resources(self, name: str, **options: Unpack[Options]) -> list[LeaseResource]:
        """What a lease keeps."""
        request = leases_pb2.ListResourcesRequest(id=name)
        answer = await self._caller.unary(_LEASES, "ListResources", request, leases_pb2.ListResourcesResponse, options)
        return [LeaseResource(one.type, one.id) for one in answer.resources]

    async def add_resource(self, name: str, kind: str, resource: str, **options: Unpack[Options]) -> None:
        """Have a lease keep something that exists; ``kind`` as in :class:`.records.LeaseResource`."""
        request = leases_pb2.AddResourceRequest(id=name, resource=leases_pb2.Resource(id=resource, type=kind))
        await self._caller.unary(_LEASES, "AddResource", request, Empty, options)

    async def delete_resource(self, name: str, kind: str, resource: str, **options: Unpack[Options]) -> None:
        """Have a lease keep something no longer."""
        request = leases_pb2.DeleteResourceRequest(id=name, resource=leases_pb2.Resource(id=resource, type=kind))
        await self._caller.unary(_LEASES, "DeleteResource", request, Empty, options)

    async def list(self, filters: Sequence[str] = (), **options: Unpack[Options]) -> list[Lease]:
        """The leases that one of the filters fits (``id==…``, ``labels."a.b"==…``), all without filters."""
        request = leases_pb2.ListRequest(filters=filters)
        answer = await self._caller.unary(_LEASES, "List", request, leases_pb2.ListResponse, options)
        return [_lease(one) for one in answer.leases]


class Namespaces(_Store):
    """The namespaces of containerd."""

    async def list(self, **options: Unpack[Options]) -> list[Namespace]:
        """All of them."""
        request = namespaces_pb2.ListNamespacesRequest()
        kind = namespaces_pb2.ListNamespacesResponse
        answer = await self._caller.unary(_NAMESPACES, "List", request, kind, options)
        return [Namespace(one.name, dict(one.labels)) for one in answer.namespaces]

    async def get(self, name: str, **options: Unpack[Options]) -> Namespace:
        """A namespace. :raise NotFound: there is none of this name."""
        request = namespaces_pb2.GetNamespaceRequest(name=name)
        kind = namespaces_pb2.GetNamespaceResponse
        answer = await self._caller.unary(_NAMESPACES, "Get", request, kind, options)
        return Namespace(answer.namespace.name, dict(answer.namespace.labels))

    async def create(self, name: str, labels: Mapping[str, str] | None = None, **options: Unpack[Options]) -> None:
        """Make a namespace (containerd makes one by itself when something is made in it). :raise AlreadyExists: it is there."""
        request = namespaces_pb2.CreateNamespaceRequest(namespace=namespaces_pb2.Namespace(name=name, labels=labels))
        kind = namespaces_pb2.CreateNamespaceResponse
        await self._caller.unary(_NAMESPACES, "Create", request, kind, options)

    async def delete(self, name: str, **options: Unpack[Options]) -> None:
        """Delete a namespace. :raise FailedPrecondition: there is something in it."""
        request = namespaces_pb2.DeleteNamespaceRequest(name=name)
        await self._caller.unary(_NAMESPACES, "Delete", request, Empty, options)


class Introspection(_Store):
    """What containerd is made of."""

    async def server(self, **options: Unpack[Options]) -> ServerInfo:
        """Which containerd answers."""
        kind = introspection_pb2.ServerResponse
        answer = await self._caller.unary(_INTROSPECTION, "Server", Empty(), kind, options)
        return ServerInfo(answer.uuid, answer.pid, answer.pidns)

    async def plugins(self, filters: Sequence[str] = (), **options: Unpack[Options]) -> list[Plugin]:
        """Its plugins (``type==io.containerd.snapshotter.v1``, ``id==…``), all without filters."""
        request = introspection_pb2.PluginsRequest(filters=filters)
        kind = introspection_pb2.PluginsResponse
        answer = await self._caller.unary(_INTROSPECTION, "Plugins", request, kind, options)
        return [
            Plugin(one.type, one.id, dict(one.exports), tuple(one.capabilities), one.init_err.message)
            for one in answer.plugins
        ]

    async def version(self, **options: Unpack[Options]) -> Version:
        """Its version."""
        answer = await self._caller.unary(_VERSION, "Version", Empty(), version_pb2.VersionResponse, options)
        return Version(answer.version, answer.revision)


def _mask(labels: Mapping[str, str]) -> FieldMask:
    return FieldMask(paths=[f"labels.{name}" for name in labels])


def _container(found: containers_pb2.Container) -> ContainerRecord:
    return ContainerRecord(
        id=found.id,
        image=found.image,
        runtime=Runtime(found.runtime.name, messages.packed(found.runtime.options)),
        spec=messages.packed(found.spec),
        snapshotter=found.snapshotter,
        snapshot_key=found.snapshot_key,
        labels=dict(found.labels),
        extensions={name: Packed(value.type_url, value.value) for name, value in found.extensions.items()},
        sandbox=found.sandbox,
        created_ns=messages.ns(found.created_at),
        updated_ns=messages.ns(found.updated_at),
    )


def _container_message(record: ContainerRecord) -> containers_pb2.Container:
    message = containers_pb2.Container(
        id=record.id,
        image=record.image,
        runtime=containers_pb2.Runtime(name=record.runtime.name, options=messages.unpacked(record.runtime.options)),
        spec=messages.unpacked(record.spec),
        snapshotter=record.snapshotter,
        snapshot_key=record.snapshot_key,
        labels=record.labels,
        sandbox=record.sandbox,
    )
    for name, value in record.extensions.items():
        message.extensions[name].type_url = value.type_url
        message.extensions[name].value = value.value
    return message


def _image(found: images_pb2.Image) -> ImageRecord:
    return ImageRecord(
        found.name,
        messages.descriptor(found.target),
        dict(found.labels),
        messages.ns(found.created_at),
        messages.ns(found.updated_at),
    )


def _image_message(record: ImageRecord) -> images_pb2.Image:
    return images_pb2.Image(name=record.name, labels=record.labels, target=messages.descriptor_message(record.target))


def _lease(found: leases_pb2.Lease) -> Lease:
    return Lease(found.id, dict(found.labels), messages.ns(found.created_at))
