"""From an image to its committed snapshot, once: the first who needs it unpacks, the others wait."""

from __future__ import annotations

import os

from unikeel.engine.services import Services
from unikeel.errors import AlreadyExists, FailedPrecondition, NotFound
from unikeel.images.manifests import Image
from unikeel.images.progress import Progress
from unikeel.kernel.locks import forget, locked
from unikeel.records.failpoint import failpoint


def parent_name(image: Image) -> str:
    """The name of the image's committed snapshot: the chain ID of its layers (OCI image specification, config.md)."""
    from unikeel.images.digests import chain_id

    return chain_id([layer.diff_id for layer in image.layers])


def ensure_unpacked(services: Services, image: Image, progress: Progress | None = None) -> str:
    """See that the image's committed snapshot exists; returns its name.

    :raise BadContent: a layer is damaged or hostile. :raise ResourceExhausted: no space.
    """
    name = parent_name(image)
    if _exists(services, name):
        return name
    locks = os.path.join(services.layout.snapshots, "locks")
    os.makedirs(locks, mode=0o700, exist_ok=True)
    lock = os.path.join(locks, name.replace(":", "-"))
    with locked(lock):
        if not _exists(services, name):
            _unpack(services, image, name, progress)
    forget(lock)
    return name


def forget_unused(services: Services, image: Image) -> None:
    """Remove the snapshot of an image that was removed, unless another image has the same layers or containers are made on it."""
    name = parent_name(image)
    if any(parent_name(other) == name for other in services.images.list()):
        return
    try:
        services.remove_snapshot(name)
    except FailedPrecondition:
        return  # containers are made on it; the last of them takes it along


def _exists(services: Services, name: str) -> bool:
    try:
        services.snapshots.stat(name)
    except NotFound:
        return False
    return True


def _unpack(services: Services, image: Image, name: str, progress: Progress | None) -> None:
    from unikeel.images.unpack import Layer, unpack

    layers = [
        Layer(layer.diff_id, layer.digest, layer.media_type, services.images.layer_blob(layer))
        for layer in image.layers
    ]

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress("unpacking", done, total)

    def fill(fd: int) -> None:
        failpoint("unpack.filling")
        unpack(
            layers,
            fd,
            scratch=services.layout.snapshots,
            uuid_seed=name,
            free_bytes=services.config.snapshots_free_space,
            progress=report,
        )

    try:
        services.snapshots.import_committed(name, {"unikeel/unpacked": "true"}, fill)
    except AlreadyExists:
        return
