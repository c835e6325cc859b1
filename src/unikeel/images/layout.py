"""An OCI image layout that several processes change at once (OCI image specification, image-layout.md).

::

    oci-layout  index.json      one descriptor per name in index.json; one without a name for an image that lost its last one
    blobs/sha256/HEX            never visible unless whole and right
    tmp/TOKEN/                  what the process with that owner's token is making

Changes are made under a lock on the directory itself. ``index.json`` is replaced whole, so readers need no lock. A process
that is killed leaves its ``tmp/TOKEN``, which the next locked command takes away; if it died between making its blobs visible
and naming them, blobs that no manifest uses are taken away with it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from unikeel.errors import BadContent, ResourceExhausted, UnikeelError
from unikeel.images import digests, manifests
from unikeel.images.documents import MAX_BYTES, Document
from unikeel.images.manifests import Descriptor, Manifest
from unikeel.images.staging import Staging, sync_directory, write_all, writing
from unikeel.lean import Final
from unikeel.records.failpoint import failpoint

_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
_RELOAD: Final = "remove the image and load it again"


class Layout:
    """One layout directory; it is made when something is first written.

    :param owners: where the owners of what is in ``tmp`` hold their locks (:mod:`unikeel.records.owners`); ``tmp`` itself if
        not given. :param mode: of directories that are made.
    """

    def __init__(self, directory: str, owners: str = "", mode: int = 0o700) -> None:
        self.directory = directory
        self._mode = mode
        self._index = os.path.join(directory, "index.json")
        self._blobs = os.path.join(directory, "blobs", "sha256")
        self._tmp = os.path.join(directory, "tmp")
        self._owners = owners or self._tmp

    def blob_path(self, digest: str) -> str:
        """Where a blob lies. :raise BadContent: the digest is malformed."""
        return os.path.join(self._blobs, digests.hex_of(digest, self.directory))

    # Reading: no lock.

    def entries(self) -> list[Descriptor]:
        """What ``index.json`` lists; nothing if there is no layout yet. :raise BadContent: it is damaged."""
        try:
            data = _read(self._index)
        except FileNotFoundError:
            return []
        return manifests.index(Document.parse(data, self._index))

    def read_blob(self, digest: str) -> bytes:
        """A small blob, its digest checked. :raise BadContent: missing, damaged, or larger than 4 MiB."""
        path = self.blob_path(digest)
        try:
            data = _read(path)
        except OSError as error:
            raise BadContent(
                f"{self.directory}: blob {digest} cannot be read: {os.strerror(error.errno or 0)}", _RELOAD
            ) from error
        if len(data) <= MAX_BYTES and digests.of(data) != digest:
            raise BadContent(f"{self.directory}: blob {digest} is damaged", _RELOAD)
        if len(data) > MAX_BYTES:
            raise BadContent(f"{self.directory}: blob {digest} is too large for a manifest or configuration")
        return data

    def manifest(self, entry: Descriptor) -> Manifest:
        """The manifest of an entry. :raise BadContent: missing or damaged."""
        where = f"{self.directory}: manifest {entry.digest}"
        return manifests.manifest(Document.parse(self.read_blob(entry.digest), where), entry.media_type)

    # Writing.

    @contextmanager
    def staging(self) -> Iterator[Staging]:
        """A place for new blobs, gone when the block ends."""
        import shutil

        from unikeel.records.owners import Owner

        for path in (self.directory, os.path.dirname(self._blobs), self._blobs, self._tmp, self._owners):
            with writing(path):
                os.makedirs(path, mode=self._mode, exist_ok=True)
        with self._locked():
            self._sweep()
        with Owner(self._owners) as owner:
            directory = os.path.join(self._tmp, owner.token)
            with writing(self._tmp):
                os.mkdir(directory, 0o700)
            try:
                yield Staging(directory, self._blobs)
            finally:
                shutil.rmtree(directory)

    def commit(self, staging: Staging, named: Sequence[tuple[str, Descriptor]]) -> None:
        """Make staged images visible, all at once, under their names ("" for none). A name moves from the image that had it."""
        with self._locked(), writing(self.directory):
            failpoint("images.commit")
            for digest in staging.held:
                os.rename(staging.path(digest), self.blob_path(digest))
            sync_directory(self._blobs)
            failpoint("images.blobs")
            self._replace(staging, _merged(self.entries(), named))

    def drop(self, name: str, digest: str) -> None:
        """Take a name from an image, or all of them if the name is empty; without a name its own blobs go, too."""
        with self.staging() as staging, self._locked(), writing(self.directory):
            entries = self.entries()
            kept = [e for e in entries if e.digest != digest or (name and name_of(e) != name)]
            self._replace(staging, kept)
            failpoint("images.untagged")
            self._collect(kept)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _sweep(self) -> None:
        """Take away what dead processes left."""
        import shutil

        from unikeel.records.owners import owner_is_dead, sweep

        if self._owners == self._tmp:
            sweep(self._tmp)
        names = [name for name in os.listdir(self._tmp) if not name.endswith(".lock")]
        dead = [name for name in names if owner_is_dead(self._owners, name)]
        if dead:
            self._collect(self.entries())
        for name in dead:
            shutil.rmtree(os.path.join(self._tmp, name), ignore_errors=True)

    def _replace(self, staging: Staging, entries: Sequence[Descriptor]) -> None:
        import json

        index = {"schemaVersion": 2, "mediaType": manifests.OCI_INDEX, "manifests": [_json(entry) for entry in entries]}
        data = json.dumps(index, sort_keys=True, separators=(",", ":")).encode()
        if len(data) > MAX_BYTES:
            raise ResourceExhausted(f"{self._index} would have more than {MAX_BYTES} bytes", "remove some images")
        marker = os.path.join(self.directory, "oci-layout")
        if not os.path.exists(marker):
            _write_whole(os.path.join(staging.directory, "oci-layout"), _LAYOUT, marker)
        _write_whole(os.path.join(staging.directory, "index.json"), data, self._index)
        sync_directory(self.directory)

    def _collect(self, entries: Sequence[Descriptor]) -> None:
        """Take away blobs that no manifest uses. While one manifest cannot be read, all blobs might be its own."""
        used = {entry.digest for entry in entries}
        try:
            for entry in entries:
                used.update(blob.digest for blob in self.manifest(entry).blobs)
        except UnikeelError:
            return
        for name in os.listdir(self._blobs):
            if digests.PREFIX + name not in used:
                os.unlink(os.path.join(self._blobs, name))


def name_of(entry: Descriptor) -> str:
    """The name of an entry of a layout, "" if it has none."""
    return entry.annotations.get(manifests.REF_NAME, "")


def _merged(entries: list[Descriptor], named: Sequence[tuple[str, Descriptor]]) -> list[Descriptor]:
    """The entries with new ones added: sorted, each name once, and nameless only what has no name at all."""
    by_name = {name_of(entry): entry for entry in entries if name_of(entry)}
    by_name.update((name, entry) for name, entry in named if name)
    everything = {entry.digest: entry for entry in [*entries, *(entry for _, entry in named)]}
    having = {entry.digest for entry in by_name.values()}
    found = [_renamed(entry, name) for name, entry in sorted(by_name.items())]
    return found + [_renamed(everything[digest], "") for digest in sorted(everything) if digest not in having]


def _renamed(entry: Descriptor, name: str) -> Descriptor:
    return Descriptor(
        entry.media_type, entry.digest, entry.size, annotations={manifests.REF_NAME: name} if name else {}
    )


def _json(entry: Descriptor) -> dict[str, object]:
    found: dict[str, object] = {"mediaType": entry.media_type, "digest": entry.digest, "size": entry.size}
    if entry.annotations:
        found["annotations"] = dict(entry.annotations)
    return found


def _read(path: str) -> bytes:
    """At most one byte more than :data:`MAX_BYTES` of a regular file."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        return os.read(fd, min(size, MAX_BYTES) + 1)
    finally:
        os.close(fd)


def _write_whole(temporary: str, data: bytes, path: str) -> None:
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(fd, 0o644)
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
