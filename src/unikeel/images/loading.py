"""Bringing images of a source into a staging: OCI layouts (directory or archive), skopeo's ``dir:``, Docker archives.

What a source is, its content tells. All of an image's blobs are staged before the first is committed.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from unikeel.errors import BadContent, InvalidArgument
from unikeel.images import archives, digests, manifests, references
from unikeel.images.documents import Document
from unikeel.images.manifests import Descriptor
from unikeel.images.progress import Progress
from unikeel.images.sources import Directory, Source, Window, open_file
from unikeel.images.staging import Loaded, Staging, put_image
from unikeel.lean import Final, TypeAlias
from unikeel.records.failpoint import failpoint

#: Containerd and Docker put the whole name here and only the tag into ``org.opencontainers.image.ref.name``.
_FULL_NAME: Final = "io.containerd.image.name"
#: Most images of one source.
MAX_IMAGES: Final = 256
_ANONYMOUS: Final = ""
_COMPRESSIONS: Final = ((b"\x1f\x8b", "+gzip"), (b"\x28\xb5\x2f\xfd", "+zstd"))

#: Names and the images that they mean.
Named: TypeAlias = list[tuple[str, Loaded]]
#: From a digest's hex digits to the member of a source that holds the blob.
_Place: TypeAlias = Callable[[str], str]


@contextmanager
def opened(path: str, scratch: str, limit: int) -> Iterator[Directory | archives.Archive]:
    """The source at a path.

    :param scratch: where a compressed archive may be unpacked to. :param limit: most bytes of it when unpacked.
    :raise NotFound, PermissionDenied: it cannot be opened. :raise BadContent: it is no directory and no tar.
    """
    source: Directory | archives.Archive
    source = Directory(path) if os.path.isdir(path) else _archive(path, scratch, limit)
    try:
        yield source
    finally:
        source.close()


def _archive(path: str, scratch: str, limit: int) -> archives.Archive:
    fd = open_file(path)
    try:
        plain = archives.unpacked(fd, path, scratch, limit)
    except BaseException:
        os.close(fd)
        raise
    if plain != fd:
        os.close(fd)
    if not archives.is_tar(plain):
        os.close(plain)
        raise BadContent(f"{path} is neither an OCI layout nor an archive of an image")
    return archives.Archive(plain, path)


class Loader:
    """One source being staged.

    :param limit: most bytes of all images together.
    """

    def __init__(self, source: Directory | archives.Archive, staging: Staging, limit: int, progress: Progress) -> None:
        self._source = source
        self._staging = staging
        self._limit = limit
        self._progress = progress
        self._total = 0
        self._done = 0

    def load(self) -> Named:
        """Stage all images; returns their names ("" if the source has none for one) and manifests.

        :raise BadContent: the source is damaged, hostile, of no known form, or over a limit.
        """
        if self._source.has("index.json"):
            found = self._layout()
        elif isinstance(self._source, archives.Archive) and self._source.has("manifest.json"):
            found = self._docker(self._source)
        elif self._source.has("manifest.json") and self._source.has("version"):
            found = [(_ANONYMOUS, self._flat())]
        else:
            raise BadContent(
                f"{self._source.name} holds no image: it has neither index.json nor manifest.json",
                "give an OCI layout, an OCI archive or a Docker archive",
            )
        if not found:
            raise BadContent(f"{self._source.name} holds no image: its list of images is empty")
        return found

    # OCI layouts.

    def _layout(self) -> Named:
        name = self._source.name
        version = _document(self._source, "oci-layout").text("imageLayoutVersion")
        if not version.startswith("1."):
            raise BadContent(f"{name} is an OCI layout of unknown version {version[:40]!r}")
        groups: dict[str, list[Descriptor]] = {}
        for entry in manifests.index(_document(self._source, "index.json")):
            groups.setdefault(_name_in(entry, name), []).append(entry)
        if len(groups) > MAX_IMAGES:
            raise BadContent(f"{name} holds {len(groups)} images, more than {MAX_IMAGES}")
        found: Named = []
        for image, entries in groups.items():
            for entry in _selected(image, entries, name):
                found.append((image, self._image(entry, _in_layout)))
        return found

    def _image(self, entry: Descriptor, place: _Place) -> Loaded:
        """Stage what a descriptor of an index points at: an image, or an index that has one for this host."""
        for _ in range(2):
            where = f"{self._source.name}: manifest {entry.digest}"
            document = Document.parse(self._metadata(entry, place), where)
            kind = manifests.kind_of(document, entry.media_type)
            if kind in manifests.MANIFESTS:
                return self._parts(entry._replace(media_type=kind), document, place)
            entry = manifests.choose(manifests.index(document), where)
        raise BadContent(f"{where} is the third index inside of each other")

    def _parts(self, entry: Descriptor, document: Document, place: _Place) -> Loaded:
        parts = manifests.manifest(document, entry.media_type)
        self._reserve(sum(blob.size for blob in parts.blobs), document.where)
        config = self._metadata(parts.config, place)
        config_document = Document.parse(config, f"{self._source.name}: configuration {parts.config.digest}")
        image = manifests.image("", entry, parts, config_document)
        for layer in parts.layers:
            self._copy(layer, place)
        return Loaded(Descriptor(entry.media_type, entry.digest, entry.size), image)

    def _metadata(self, blob: Descriptor, place: _Place) -> bytes:
        """A manifest or configuration: checked and staged."""
        where = f"{self._source.name}: blob {blob.digest}"
        with self._source.open(place(digests.hex_of(blob.digest, where))) as window:
            _check_size(window, blob, where)
            data = window.metadata()
        if digests.of(data) != blob.digest:
            raise BadContent(f"{where} has another content: its digest is {digests.of(data)}", "fetch the image again")
        self._staging.put(data)
        return data

    def _copy(self, blob: Descriptor, place: _Place) -> None:
        where = f"{self._source.name}: blob {blob.digest}"
        if self._staging.adopt(blob.digest, blob.size):
            self._advance(blob.size)
            return
        with self._source.open(place(digests.hex_of(blob.digest, where))) as window:
            _check_size(window, blob, where)
            self._staging.copy(self._told(window), blob.digest, blob.size, where)
        failpoint("images.layer")

    # skopeo's dir: transport: one image, blobs named by their hex digits.

    def _flat(self) -> Loaded:
        with self._source.open("manifest.json") as window:
            data = window.metadata()
        entry = Descriptor("", digests.of(data), len(data))
        return self._image(entry, lambda digits: "manifest.json" if entry.digest.endswith(digits) else digits)

    # Docker archives (the format that `docker save` writes since Docker 1.10).

    def _docker(self, archive: archives.Archive) -> Named:
        with archive.open("manifest.json") as window:
            images = Document.parse_list(window.metadata(), f"{archive.name}: manifest.json")
        if len(images) > MAX_IMAGES:
            raise BadContent(f"{archive.name} holds {len(images)} images, more than {MAX_IMAGES}")
        found: Named = []
        for entry in images:
            image = self._docker_image(archive, entry)
            names = [_checked(name, archive.name) for name in entry.texts("RepoTags")]
            found += [(name, image) for name in names or [_ANONYMOUS]]
        _refuse_twins([(name, image.entry) for name, image in found], archive.name)
        return found

    def _docker_image(self, archive: archives.Archive, entry: Document) -> Loaded:
        with archive.open(_plain(entry.text("Config", None))) as window:
            data = window.metadata()
            config = Document.parse(data, window.where)
        layers = entry.texts("Layers")
        if len(layers) > manifests.MAX_LAYERS:
            raise BadContent(f"{archive.name} has {len(layers)} layers, more than {manifests.MAX_LAYERS}")
        if not layers:
            raise BadContent(f"{config.where}: the image has no layers", manifests.NOTHING)
        ids = manifests.diff_ids(config, len(layers))
        described = [
            self._docker_layer(archive, _plain(layer), diff_id) for layer, diff_id in zip(layers, ids, strict=True)
        ]
        return put_image(self._staging, data, described, {})

    def _docker_layer(self, archive: archives.Archive, member: str, diff_id: str) -> Descriptor:
        """Stage a layer, which is plain in what Docker writes; compressed ones are taken as well."""
        with archive.open_linked(member) as window:
            self._reserve(window.size, archive.name)
            suffix = _compression(window.head(4))
            where = f"{window.where} (diff id {diff_id})"
            if not suffix:
                self._staging.copy(self._told(window), diff_id, window.size, where)
                return Descriptor(manifests.OCI_LAYER, diff_id, window.size)
            with self._staging.writer() as writer:
                for chunk in self._told(window):
                    writer.write(chunk)
                digest = self._staging.keep(writer)
            return Descriptor(manifests.OCI_LAYER + suffix, digest, window.size)

    # Both.

    def _reserve(self, size: int, where: str) -> None:
        self._total += size
        if self._total > self._limit:
            raise BadContent(f"{where} needs {self._total} bytes, more than {self._limit}")

    def _told(self, window: Window) -> Iterator[memoryview]:
        for chunk in window.chunks():
            yield chunk
            self._advance(len(chunk))

    def _advance(self, size: int) -> None:
        self._done += size
        self._progress(f"loading {self._source.name}", self._done, self._total)


def _in_layout(digits: str) -> str:
    return "blobs/sha256/" + digits


def _document(source: Source, member: str) -> Document:
    with source.open(member) as window:
        return Document.parse(window.metadata(), window.where)


def _check_size(window: Window, blob: Descriptor, where: str) -> None:
    if window.size != blob.size:
        raise BadContent(f"{where} has {window.size} bytes, not {blob.size}", "fetch the image again")


def _checked(name: str, where: str) -> str:
    try:
        return references.canonical(name)
    except InvalidArgument as error:
        raise BadContent(f"{where}: {error.message}") from error


def _name_in(entry: Descriptor, where: str) -> str:
    name = entry.annotations.get(_FULL_NAME) or entry.annotations.get(manifests.REF_NAME)
    return _checked(name, where) if name else _ANONYMOUS


def _selected(name: str, entries: list[Descriptor], where: str) -> list[Descriptor]:
    """Those of equally named entries that are to be loaded: the one for this host, or all that are nameless and for any."""
    distinct = list({entry.digest: entry for entry in entries}.values())
    if any(entry.os for entry in distinct):
        return [manifests.choose(distinct, f"{where}: image {name}".rstrip())]
    if name:
        _refuse_twins([(name, entry) for entry in distinct], where)
    return distinct


def _refuse_twins(found: Sequence[tuple[str, Descriptor]], where: str) -> None:
    digest_of: dict[str, str] = {}
    for name, entry in found:
        if name and digest_of.setdefault(name, entry.digest) != entry.digest:
            raise BadContent(f"{where} has two different images of the name {name}")


def _plain(member: str) -> str:
    return posixpath.normpath(member)


def _compression(head: bytes) -> str:
    """What a layer's first bytes tell, as the suffix of its media type."""
    return next((suffix for magic, suffix in _COMPRESSIONS if head.startswith(magic)), "")
