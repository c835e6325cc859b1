"""From a container's id to all that decides about its boot files: its record, its committed parent, its image, and whether to trust that.

Warm, that is three calls at the same time: the container; the snapshot of its name, as nearly every client calls it; and the parent that the last container had.
What the guesses give counts only if the container's record and its snapshot name the same; so nothing is believed, and the parent's time of creation is
always containerd's answer of now. What is in the content store never changes, so it is read once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, Generic, TypeVar

from unikeel.boot.contract import Parent
from unikeel.containerd.records import COMMITTED, ContainerRecord, Descriptor, Mount, SnapshotInfo
from unikeel.containerd.services import Client
from unikeel.containerd.trust import chain_ids, is_trusted
from unikeel.eager import begun
from unikeel.errors import BadContent, FailedPrecondition, NotFound
from unikeel.images import manifests
from unikeel.images.documents import Document
from unikeel.values import NamedTuple

V = TypeVar("V")

#: The largest manifest, index and configuration that are read.
_DOCUMENT: Final = 4 << 20
#: How many images, and how many documents, are remembered.
_IMAGES: Final = 256
_DOCUMENTS: Final = 64
_SMALL: Final = 256 << 10
#: How many entries of an index that fit this host are looked at.
_PLATFORMS: Final = 4
_NONE: Mapping[str, str] = {}


class ImageFacts(NamedTuple):
    """What an image says of itself; all empty if it is gone.

    :ivar digest: of its manifest. :ivar chain_ids: of its layers, the lowest first. :ivar diff_ids, layers: their digests uncompressed, their blobs,
        likewise.
    :ivar labels: of its configuration. :ivar annotations: of its manifest. :ivar exposed: the ports that its configuration names.
    """

    digest: str = ""
    chain_ids: tuple[str, ...] = ()
    diff_ids: tuple[str, ...] = ()
    layers: tuple[Descriptor, ...] = ()
    labels: Mapping[str, str] = _NONE
    annotations: Mapping[str, str] = _NONE
    exposed: tuple[str, ...] = ()


class ContainerFacts(NamedTuple):
    """A container, as far as its boot files go.

    :ivar parent: the committed snapshot that its own was made on. :ivar image: its image's name.
    :ivar trusted: the parent is the image's own chain of layers. :ivar consumer: which containerd, see :func:`consumer_of`.
    :ivar mounts: of its own snapshot, if they were asked for.
    """

    record: ContainerRecord
    snapshotter: str
    snapshot_key: str
    parent: SnapshotInfo
    image: str
    image_digest: str
    chain_ids: tuple[str, ...]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    trusted: bool
    consumer: str
    namespace: str
    exposed: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()

    @property
    def boot_parent(self) -> Parent:
        """The parent as the boot package knows it."""
        parent = self.parent
        return Parent(self.consumer, self.namespace, self.snapshotter, parent.name, parent.created_ns, "", self.trusted)


def consumer_of(address: str, uuid: str) -> str:
    """The name of a containerd among those that use boot files: where it listens, and which state it has."""
    return f"containerd:{address.removeprefix('unix://')}#{uuid}"


def address_of(consumer: str) -> str:
    """Where a consumer listens; empty for one that is no containerd."""
    kind, _, rest = consumer.partition(":")
    return rest.rpartition("#")[0] if kind == "containerd" else ""


class _Recent(Generic[V]):
    """The values used last, a bounded number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[tuple[object, ...], V] = OrderedDict()

    def get(self, key: tuple[object, ...]) -> V | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: tuple[object, ...], value: V) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self._values) > self._most:
            self._values.popitem(last=False)


class _Guess(NamedTuple):
    """What the next container of a namespace will probably have."""

    snapshotter: str
    parent: str


class _Guessed(NamedTuple):
    """What was asked for by guess; None: not asked for, or not there."""

    snapshotter: str = ""
    key: SnapshotInfo | None = None
    parent: SnapshotInfo | None = None
    mounts: tuple[Mount, ...] | None = None

    def is_of(self, record: ContainerRecord) -> bool:
        """Whether the snapshot is the container's."""
        return self.key is not None and (self.snapshotter, self.key.name) == (record.snapshotter, record.snapshot_key)


async def _nothing() -> None:
    """The answer to what is not asked."""


class Identifier:
    """Identifies the containers of one containerd. Belongs to one event loop.

    :param consumer: see :func:`consumer_of`.
    """

    def __init__(self, client: Client, consumer: str) -> None:
        self._client = client
        self.consumer = consumer
        self._facts: _Recent[ImageFacts] = _Recent(_IMAGES)
        self._documents: _Recent[Document] = _Recent(_DOCUMENTS)
        self._parents: _Recent[str] = _Recent(_IMAGES)
        self._names: _Recent[str] = _Recent(_IMAGES)
        self._guesses: _Recent[_Guess] = _Recent(_IMAGES)

    async def identify(self, namespace: str, container: str, *, mounts: bool = False) -> ContainerFacts:
        """Everything about a container.

        :param mounts: how its snapshot is mounted, too: one more call, at the same time as the others.
        :raise NotFound: there is no such container, or its snapshot is gone. :raise FailedPrecondition: it has no snapshot of containerd's, or
            one without a parent. :raise BadContent: its image is damaged, or not for this host.
        """
        client = self._client.with_namespace(namespace)
        record, guessed = await self._record(client, container, mounts=mounts)
        if not record.snapshotter or not record.snapshot_key:
            raise FailedPrecondition(
                f"container {container} has no snapshot in containerd",
                "unikeel takes boot files from containerd's snapshotters; Docker's own storage drivers are not read",
            )
        parent = await self._parent(client, record, guessed)
        name = parent.name
        self._parents.put((namespace, record.snapshotter, record.image), name)
        self._guesses.put((namespace,), _Guess(record.snapshotter, name))
        facts = await self._image(client, record.image, name, parent.created_ns)
        self._names.put((namespace, name, parent.created_ns), record.image)
        return ContainerFacts(
            record=record,
            snapshotter=record.snapshotter,
            snapshot_key=record.snapshot_key,
            parent=parent,
            image=record.image,
            image_digest=facts.digest,
            chain_ids=facts.chain_ids,
            labels=facts.labels,
            annotations=facts.annotations,
            trusted=is_trusted(name, facts.chain_ids),
            consumer=self.consumer,
            namespace=namespace,
            exposed=facts.exposed,
            mounts=await self._mounts(client, record, guessed) if mounts else (),
        )

    async def image(self, namespace: str, container: str) -> tuple[str, ImageFacts, Parent | None]:
        """The name of a container's image, what that says of itself, and its own committed snapshot, whatever became of the container's.

        :raise NotFound: there is no such container. :raise BadContent: as :meth:`identify`.
        """
        client = self._client.with_namespace(namespace)
        record = await client.containers.get(container)
        facts = await self._read_image(client, record.image, "")
        if not facts.chain_ids or not record.snapshotter:
            return record.image, facts, None
        try:
            info = await client.snapshots(record.snapshotter).stat(facts.chain_ids[-1])
        except NotFound:
            return record.image, facts, None
        parent = Parent(self.consumer, namespace, record.snapshotter, info.name, info.created_ns, "", trusted=True)
        return record.image, facts, parent

    async def _record(self, client: Client, container: str, *, mounts: bool) -> tuple[ContainerRecord, _Guessed]:
        """The container, and what is asked for at the same time. :raise NotFound: there is no such container."""
        guess = self._guesses.get((client.namespace,))
        if guess is None:
            return await client.containers.get(container), _Guessed()
        snapshots = client.snapshots(guess.snapshotter)
        record, key, parent, mounted = await asyncio.gather(
            begun(client.containers.get(container)),
            begun(snapshots.stat(container)),
            begun(snapshots.stat(guess.parent)),
            begun(snapshots.mounts(container) if mounts else _nothing()),
            return_exceptions=True,
        )
        if isinstance(record, BaseException):
            raise record
        return record, _Guessed(
            guess.snapshotter,
            None if isinstance(key, BaseException) else key,
            None if isinstance(parent, BaseException) else parent,
            None if isinstance(mounted, BaseException) else mounted,
        )

    async def _mounts(self, client: Client, record: ContainerRecord, guessed: _Guessed) -> tuple[Mount, ...]:
        """How a container's snapshot is mounted."""
        if guessed.is_of(record) and guessed.mounts is not None:
            return guessed.mounts
        return await client.snapshots(record.snapshotter).mounts(record.snapshot_key)

    async def _parent(self, client: Client, record: ContainerRecord, guessed: _Guessed) -> SnapshotInfo:
        """The committed parent, asked for at the same time as the snapshot if it can be guessed."""
        snapshots = client.snapshots(record.snapshotter)
        key: SnapshotInfo | None = None
        found: SnapshotInfo | None = None
        if guessed.snapshotter == record.snapshotter:
            found = guessed.parent
            key = guessed.key if guessed.is_of(record) else None
        if key is None:
            key, found = await self._both(client, record, found)
        if not key.parent:
            raise FailedPrecondition(
                f"the snapshot {record.snapshot_key} of container {record.id} was made from nothing",
                "make it from an unpacked image",
            )
        if found is None or found.name != key.parent:
            found = await snapshots.stat(key.parent)
        if found.kind != COMMITTED:
            raise FailedPrecondition(f"the parent {found.name} of container {record.id} is not a committed snapshot")
        return found

    async def _both(
        self, client: Client, record: ContainerRecord, found: SnapshotInfo | None
    ) -> tuple[SnapshotInfo, SnapshotInfo | None]:
        """A container's snapshot, and the parent that its image had the last time, unless it is ``found`` already."""
        snapshots = client.snapshots(record.snapshotter)
        guess = self._parents.get((client.namespace, record.snapshotter, record.image))
        if guess is None or (found is not None and found.name == guess):
            return await snapshots.stat(record.snapshot_key), found
        key, parent = await asyncio.gather(
            snapshots.stat(record.snapshot_key), snapshots.stat(guess), return_exceptions=True
        )
        if isinstance(key, BaseException):
            raise key
        return key, None if isinstance(parent, BaseException) else parent

    async def _image(self, client: Client, name: str, parent: str, created_ns: int) -> ImageFacts:
        key = (client.namespace, name, parent, created_ns)
        facts = self._facts.get(key)
        if facts is None:
            facts = await self._read_image(client, name, parent)
            if facts.digest:
                self._facts.put(key, facts)
        return facts

    async def _read_image(self, client: Client, name: str, parent: str) -> ImageFacts:
        if not name:
            return ImageFacts()
        found = ImageFacts()
        try:
            record = await client.images.get(name)
            for target, document in await self._manifests(client, name, record.target):
                facts = await self._describe(client, name, target, document)
                if is_trusted(parent, facts.chain_ids):
                    return facts
                found = found if found.digest else facts
        except NotFound:  # the name is gone, or its content
            return found
        return found

    async def _manifests(
        self, client: Client, name: str, target: Descriptor
    ) -> list[tuple[manifests.Descriptor, Document]]:
        """The manifests that may be meant: one, or those in an index that are for this host."""
        where = f"image {name}: manifest {target.digest}"
        top = manifests.Descriptor(target.media_type, target.digest, target.size)
        document = await self._document(client, top.digest, where)
        if manifests.kind_of(document, top.media_type) in manifests.MANIFESTS:
            return [(top, document)]
        entries = manifests.index(document)
        wanted = manifests.host_platform()
        fitting = [entry for entry in entries if (entry.os, entry.architecture) == wanted]
        found = []
        for entry in fitting[:_PLATFORMS] or [manifests.choose(entries, where)]:
            try:
                found.append(
                    (entry, await self._document(client, entry.digest, f"image {name}: manifest {entry.digest}"))
                )
            except NotFound:
                continue  # not pulled
        if not found:
            raise NotFound(
                f"the manifest of image {name} for {'/'.join(wanted)} is not in containerd's content store", "pull it"
            )
        return found

    async def _describe(
        self, client: Client, name: str, target: manifests.Descriptor, document: Document
    ) -> ImageFacts:
        """What a manifest and its configuration say. What kinds of layers there are is containerd's matter: it has unpacked them."""
        config = manifests.descriptor(document.child("config"))
        layers = tuple(manifests.descriptor(entry) for entry in document.children("layers"))
        if len(layers) > manifests.MAX_LAYERS:
            raise BadContent(f"{document.where} has {len(layers)} layers, more than {manifests.MAX_LAYERS}")
        found = await self._document(client, config.digest, f"image {name}: configuration {config.digest}")
        ids = found.child("rootfs").texts("diff_ids")
        return ImageFacts(
            digest=target.digest,
            chain_ids=chain_ids(ids),
            diff_ids=ids,
            layers=tuple(Descriptor(layer.media_type, layer.digest, layer.size) for layer in layers),
            labels=found.child("config").mapping("Labels"),
            annotations=document.mapping("annotations"),
            exposed=tuple(found.child("config").child("ExposedPorts").fields),
        )

    async def _document(self, client: Client, digest: str, where: str) -> Document:
        document = self._documents.get((digest,))
        if document is None:
            data = await client.content.read(digest, _DOCUMENT)
            document = Document.parse(data, where)
            if len(data) <= _SMALL:
                self._documents.put((digest,), document)
        return document

    async def layers(self, namespace: str, parent: str, created_ns: int) -> list[tuple[Descriptor, str]]:
        """The blobs of the layers that a parent was made of, with their diff IDs, the lowest first; none if no container of a known image
        was identified that has it as its parent."""
        name = self._names.get((namespace, parent, created_ns))
        if name is None:
            return []
        facts = await self._image(self._client.with_namespace(namespace), name, parent, created_ns)
        if not is_trusted(parent, facts.chain_ids) or len(facts.layers) != len(facts.diff_ids):
            return []
        return list(zip(facts.layers, facts.diff_ids, strict=True))
