"""What an image is made of: descriptors, manifests, configurations (OCI image specification; Docker's image manifest v2,
schema 2, which has the same shape).

Everything here is a pure function of bytes whose digest was checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from unikeel.errors import BadContent
from unikeel.images import digests
from unikeel.images.documents import Document
from unikeel.lean import Final
from unikeel.values import NamedTuple

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
_DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
_DOCKER_SCHEMA1: Final = "application/vnd.docker.distribution.manifest.v1+"

MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
_CONFIGS: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG})
_LAYERS: Final = frozenset(
    {
        OCI_LAYER,
        OCI_LAYER + "+gzip",
        OCI_LAYER + "+zstd",
        _DOCKER_LAYER,
        _DOCKER_LAYER + ".gzip",
        _DOCKER_LAYER + ".zstd",
    }
)

#: Most layers of an image; overlay file systems end at 500.
MAX_LAYERS: Final = 500
#: The hint for an image that has none.
NOTHING: Final = "there is nothing in it that could be run"

REF_NAME: Final = "org.opencontainers.image.ref.name"


class Descriptor(NamedTuple):
    """Points at a blob: its type, digest and size in bytes; in an index also the platform that it is for ("" if not said)."""

    media_type: str
    digest: str
    size: int
    os: str = ""
    architecture: str = ""
    annotations: Mapping[str, str] = MappingProxyType({})


class LayerRef(NamedTuple):
    """One layer: its blob and the digest of its uncompressed tar."""

    digest: str
    media_type: str
    size: int
    diff_id: str


class Image(NamedTuple):
    """An image of the store: its name ("" if it has none), its digests, and what its manifest and configuration say.

    ``size`` is the sum of the sizes of its blobs in bytes, ``created`` the text of the configuration.
    """

    name: str
    digest: str
    config_digest: str
    created: str
    size: int
    architecture: str
    os: str
    annotations: Mapping[str, str]
    labels: Mapping[str, str]
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    env: tuple[str, ...]
    workdir: str
    user: str
    layers: tuple[LayerRef, ...]


class Manifest(NamedTuple):
    """A manifest of one platform's image."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """All that it points at."""
        return (self.config, *self.layers)


def descriptor(entry: Document) -> Descriptor:
    """Read a descriptor. :raise BadContent: malformed, or of an unsupported digest algorithm."""
    platform = entry.child("platform")
    found = Descriptor(
        entry.text("mediaType"),
        entry.text("digest", None),
        entry.size("size"),
        platform.text("os"),
        platform.text("architecture"),
        entry.mapping("annotations"),
    )
    digests.hex_of(found.digest, entry.where)
    return found


def kind_of(document: Document, declared: str = "") -> str:
    """The media type of a manifest or index: what it says itself, else what its descriptor said, else what its fields tell.

    :raise BadContent: Docker's schema 1, or nothing that we know.
    """
    own = document.text("mediaType")
    if own and declared and own != declared:
        raise BadContent(f"{document.where} says it is {own[:100]}, but its descriptor says {declared[:100]}")
    media_type = own or declared
    if document.fields.get("schemaVersion") == 1 or media_type.startswith(_DOCKER_SCHEMA1):
        raise BadContent(
            f"{document.where} is a Docker schema 1 manifest, which is not supported",
            "push the image again with a current tool",
        )
    if not media_type:
        media_type = OCI_INDEX if document.has(["manifests"]) else OCI_MANIFEST
    if document.fields.get("schemaVersion") != 2 or media_type not in MANIFESTS | INDEXES:
        raise BadContent(f"{document.where} is no image manifest (media type {media_type[:100]!r})")
    if document.has(["manifests"]) and document.has(["layers", "config"]):
        raise BadContent(f"{document.where} is both a manifest and an index")
    return media_type


def manifest(document: Document, declared: str = "") -> Manifest:
    """Read a manifest. :raise BadContent: malformed, an artifact, or a layer of an unsupported kind."""
    media_type = kind_of(document, declared)
    if media_type not in MANIFESTS:
        raise BadContent(f"{document.where} is an index inside of an index")
    config = descriptor(document.child("config"))
    if config.media_type not in _CONFIGS:
        raise BadContent(f"{document.where} is no container image but an artifact of type {config.media_type[:100]!r}")
    layers = tuple(descriptor(entry) for entry in document.children("layers"))
    if len(layers) > MAX_LAYERS:
        raise BadContent(f"{document.where} has {len(layers)} layers, more than {MAX_LAYERS}")
    for layer in layers:
        _check_layer(layer, document.where)
    return Manifest(media_type, config, layers, document.mapping("annotations"))


def _check_layer(layer: Descriptor, where: str) -> None:
    if layer.media_type in _LAYERS:
        return
    kind = f"of unknown type {layer.media_type[:100]!r}"
    if "nondistributable" in layer.media_type or ".foreign." in layer.media_type:
        kind = "foreign: it is kept elsewhere and may not be distributed"
    elif layer.media_type.endswith("+encrypted"):
        kind = "encrypted"
    raise BadContent(f"{where}: layer {layer.digest} is {kind}", "rebuild the image with ordinary layers")


def index(document: Document) -> list[Descriptor]:
    """Read an index (also a layout's index.json). :raise BadContent: malformed."""
    if document.fields.get("schemaVersion") != 2:
        raise BadContent(f"{document.where}: 'schemaVersion' is not 2")
    return [descriptor(entry) for entry in document.children("manifests")]


def diff_ids(config: Document, layers: int) -> tuple[str, ...]:
    """The uncompressed digests of a configuration. :raise BadContent: malformed, or not as many as there are layers."""
    found = config.child("rootfs").texts("diff_ids")
    if len(found) != layers:
        raise BadContent(f"{config.where} names {len(found)} diff ids, but the manifest has {layers} layers")
    for diff_id in found:
        digests.hex_of(diff_id, config.where)
    return found


def image(name: str, found: Descriptor, parts: Manifest, config: Document) -> Image:
    """The image that a manifest and its configuration describe. :raise BadContent: the configuration is malformed, or there are no layers."""
    run = config.child("config")
    if not parts.layers:
        raise BadContent(f"{config.where}: the image has no layers", NOTHING)
    ids = diff_ids(config, len(parts.layers))
    return Image(
        name=name,
        digest=found.digest,
        config_digest=parts.config.digest,
        created=config.text("created"),
        size=found.size + sum(blob.size for blob in parts.blobs),
        architecture=config.text("architecture"),
        os=config.text("os"),
        annotations=parts.annotations,
        labels=run.mapping("Labels"),
        entrypoint=run.texts("Entrypoint"),
        cmd=run.texts("Cmd"),
        env=run.texts("Env"),
        workdir=run.text("WorkingDir"),
        user=run.text("User"),
        layers=tuple(
            LayerRef(layer.digest, layer.media_type, layer.size, diff_id)
            for layer, diff_id in zip(parts.layers, ids, strict=True)
        ),
    )


def host_platform() -> tuple[str, str]:
    """Operating system and architecture of this host, as OCI names them."""
    import os

    machine = os.uname().machine
    names = {
        "x86_64": "amd64",
        "aarch64": "arm64",
        "armv7l": "arm",
        "i686": "386",
        "riscv64": "riscv64",
        "s390x": "s390x",
    }
    return "linux", names.get(machine, machine)


def choose(entries: list[Descriptor], where: str) -> Descriptor:
    """The entry for this host: the only one if it names no platform, else the first whose platform fits.

    :raise BadContent: none fits; the message names the platforms that there are.
    """
    if len(entries) == 1 and not entries[0].os:
        return entries[0]
    wanted = host_platform()
    for entry in entries:
        if (entry.os, entry.architecture) == wanted:
            return entry
    found = sorted({f"{entry.os}/{entry.architecture}" for entry in entries if entry.os})
    there = ", ".join(found[:20]) or "no platform"
    raise BadContent(f"{where} has nothing for {'/'.join(wanted)}, only for {there}", "load an image for this machine")
