"""Bringing images into containerd: from archives and registries into its content store, from there into a snapshotter.

What keeps things, as containerd's own client labels them (containerd.md, section 4): a manifest refers to its blobs by
``containerd.io/gc.ref.content.*``, a configuration to the snapshot of its topmost layer by
``containerd.io/gc.ref.snapshot.<snapshotter>``. Until the name of the image stands, a lease keeps what was written.

Archives are read by :mod:`unikeel.images`, with its limits and checks, and go through a directory of our own.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from unikeel.containerd.client import Containerd
from unikeel.containerd.records import COMMITTED, Descriptor, ImageRecord
from unikeel.errors import AlreadyExists, BadContent, InvalidArgument, NotFound
from unikeel.images import digests, manifests
from unikeel.images.documents import Document
from unikeel.images.manifests import Image, Manifest
from unikeel.images.store import ImageStore
from unikeel.values import NamedTuple

_EXPIRE: Final = "containerd.io/gc.expire"
_CONTENT: Final = "containerd.io/gc.ref.content"
_SNAPSHOT: Final = "containerd.io/gc.ref.snapshot"
_CHAIN: Final = "containerd.io/snapshot.ref"
_UNCOMPRESSED: Final = "containerd.io/uncompressed"
#: Seconds after which a lease of somebody who died no longer counts.
_LEASE: Final = 24 * 3600
#: Seconds that a layer's snapshot may take: some snapshotters make one after the other, and many may be wanted.
_PREPARE: Final = 300.0


class Described(NamedTuple):
    """An image of containerd, with what its manifest and configuration for this host's platform say."""

    record: ImageRecord
    manifest: Manifest
    image: Image


@asynccontextmanager
async def leased(containerd: Containerd, what: str, seconds: float = _LEASE) -> AsyncIterator[str]:
    """A lease for the length of a block; gives its id. Should we die, it counts for ``seconds``."""
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
    lease = await containerd.leases.create(f"unikeel-{what}-{secrets.token_hex(8)}", {_EXPIRE: expires})
    try:
        yield lease.id
    finally:
        with suppress(NotFound):
            await containerd.leases.delete(lease.id)


async def import_image(containerd: Containerd, archive: str, name: str | None = None) -> ImageRecord:
    """Take an image from an OCI archive, an OCI layout directory or a Docker archive.

    :param name: its name in containerd, taken as it is; by default the archive's, in full (``docker.io/library/…``).
    :raise BadContent: the archive is damaged, hostile or for another machine. :raise NotFound: there is none.
    :raise InvalidArgument: it holds several images, or one without a name when none is given.
    """

    def load(store: ImageStore) -> Image:
        images = store.load(archive)
        if len({image.digest for image in images}) > 1:
            raise InvalidArgument(f"{archive} holds several images", "give an archive of one image")
        return images[0]

    return await _brought(containerd, load, archive, name)


async def pull(containerd: Containerd, reference: str, name: str | None = None) -> ImageRecord:
    """Fetch an image by skopeo and take it in. Parameters and errors as of :meth:`unikeel.images.store.ImageStore.pull`."""
    return await _brought(containerd, lambda store: store.pull(reference, name), reference, name)


async def _brought(
    containerd: Containerd, load: Callable[[ImageStore], Image], source: str, name: str | None
) -> ImageRecord:
    with tempfile.TemporaryDirectory(prefix="unikeel-import-") as directory:
        store = ImageStore(os.path.join(directory, "images"), os.path.join(directory, "owners"))
        image = await asyncio.to_thread(load, store)
        wanted = name or full_name(image.name)
        if not wanted:
            raise InvalidArgument(f"the image in {source} has no name", "give one")
        entry = next(entry for entry in store.layout.entries() if entry.digest == image.digest)
        manifest = await asyncio.to_thread(store.layout.manifest, entry)
        async with leased(containerd, "import") as lease:
            for blob in manifest.blobs:
                await _write(containerd, store, blob.digest, {}, lease)
            await _write(containerd, store, entry.digest, _references(manifest), lease)
            return await _named(
                containerd, ImageRecord(wanted, Descriptor(entry.media_type, entry.digest, entry.size)), lease
            )


def full_name(name: str) -> str:
    """A name with its registry, as containerd's clients write it."""
    first, slash, _ = name.partition("/")
    if not name or (slash and (first == "localhost" or "." in first or ":" in first)):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def _references(manifest: Manifest) -> dict[str, str]:
    """The labels by which a manifest keeps its blobs."""
    labels = {f"{_CONTENT}.l.{number}": layer.digest for number, layer in enumerate(manifest.layers)}
    return {f"{_CONTENT}.config": manifest.config.digest, **labels}


async def _write(containerd: Containerd, store: ImageStore, digest: str, labels: dict[str, str], lease: str) -> None:
    fd = os.open(store.layout.blob_path(digest), os.O_RDONLY | os.O_CLOEXEC)
    try:
        await containerd.content.write(f"unikeel-{digest}", fd, digest, labels, lease=lease)
    finally:
        os.close(fd)


async def _named(containerd: Containerd, record: ImageRecord, lease: str) -> ImageRecord:
    try:
        return await containerd.images.create(record, lease=lease)
    except AlreadyExists:
        return await containerd.images.update(record, lease=lease)


async def describe(containerd: Containerd, image: ImageRecord | str) -> Described:
    """Read what an image is, from three small blobs at most.

    :param image: its record, or its name in containerd. :raise NotFound: no such image, or its content is gone.
    :raise BadContent: damaged, or not for this machine.
    """
    record = await containerd.images.get(image) if isinstance(image, str) else image
    target = manifests.Descriptor(record.target.media_type, record.target.digest, record.target.size)
    for _ in range(2):
        where = f"image {record.name}: manifest {target.digest}"
        document = Document.parse(await containerd.content.read(target.digest), where)
        kind = manifests.kind_of(document, target.media_type)
        if kind in manifests.MANIFESTS:
            break
        target = manifests.choose(manifests.index(document), where)
    else:
        raise BadContent(f"{where} is an index inside of an index")
    manifest = manifests.manifest(document, kind)
    config = f"image {record.name}: configuration {manifest.config.digest}"
    found = Document.parse(await containerd.content.read(manifest.config.digest), config)
    return Described(record, manifest, manifests.image(record.name, target._replace(media_type=kind), manifest, found))


async def unpack(containerd: Containerd, image: ImageRecord | Described | str, snapshotter: str) -> str:
    """Unpack an image's layers into a snapshotter, those that are not there; returns the name of the topmost snapshot.

    Several may unpack the same image at once. :raise InvalidArgument: no such snapshotter. :raise BadContent: a layer is
    not what the configuration says. Others as of :func:`describe`.
    """
    found = image if isinstance(image, Described) else await describe(containerd, image)
    layers = found.image.layers
    names = [digests.chain_id([layer.diff_id for layer in layers[: count + 1]]) for count in range(len(layers))]
    async with leased(containerd, "unpack") as lease:
        if not await _kept(containerd, snapshotter, names[-1], lease):
            for number, name in enumerate(names):
                if not await _kept(containerd, snapshotter, name, lease):
                    layer = layers[number]
                    blob = Descriptor(layer.media_type, layer.digest, layer.size)
                    parent = names[number - 1] if number else ""
                    await _layer(containerd, snapshotter, blob, layer.diff_id, name, parent, lease)
        await containerd.content.label(found.manifest.config.digest, {f"{_SNAPSHOT}.{snapshotter}": names[-1]})
    return names[-1]


async def _kept(containerd: Containerd, snapshotter: str, name: str, lease: str) -> bool:
    """Whether a snapshot is there; from then on the lease keeps it (so it is looked at twice)."""
    snapshots = containerd.snapshots(snapshotter)
    try:
        if (await snapshots.stat(name)).kind != COMMITTED:
            return False
        await containerd.leases.add_resource(lease, f"snapshots/{snapshotter}", name)
        await snapshots.stat(name)
    except NotFound:
        return False
    return True


async def _layer(
    containerd: Containerd, snapshotter: str, blob: Descriptor, diff_id: str, name: str, parent: str, lease: str
) -> None:
    """Make the snapshot of one layer; somebody else may be first."""
    snapshots = containerd.snapshots(snapshotter)
    key = f"extract-unikeel-{secrets.token_hex(8)} {name}"
    labels = {_CHAIN: name}
    try:
        mounts = await snapshots.prepare(key, parent, labels, lease=lease, timeout=_PREPARE)
    except AlreadyExists:
        await snapshots.stat(name)  # a remote snapshotter had it; else this says what is missing
        return
    committed = False
    try:
        applied = await containerd.diff.apply(blob, mounts, lease=lease)
        if applied.digest != diff_id:
            raise BadContent(f"layer {blob.digest} unpacks to {applied.digest}, but the configuration says {diff_id}")
        with suppress(AlreadyExists):
            await snapshots.commit(name, key, labels, lease=lease)
            committed = True
    finally:
        if not committed:
            with suppress(NotFound):
                await snapshots.remove(key)
    await containerd.content.label(blob.digest, {_UNCOMPRESSED: diff_id})
