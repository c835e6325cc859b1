"""The place where blobs come into being before anybody sees them.

A :class:`Staging` is a directory of one process. Blobs in it are whole, hashed and on disk; :meth:`Layout.commit
<unikeel.images.layout.Layout.commit>` moves them to where others see them. What the layout has already is held by a hard link,
so that a concurrent removal cannot take it away before the commit.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from unikeel.errors import BadContent, PermissionDenied, ResourceExhausted, Unavailable
from unikeel.images import digests, manifests
from unikeel.images.documents import Document
from unikeel.images.manifests import Descriptor, Image, Manifest
from unikeel.lean import Final, Self, TypeAlias
from unikeel.values import NamedTuple

#: What can be written (``collections.abc.Buffer`` came with Python 3.12).
Buffer: TypeAlias = bytes | bytearray | memoryview

CHUNK: Final = 1 << 20
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE})
#: A file system without hard links, or a file with too many.
_NO_LINK: Final = frozenset({errno.ENOENT, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP})
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@contextmanager
def writing(where: str) -> Iterator[None]:
    """What the host answers while we write somewhere, as errors of ours. Others pass."""
    try:
        yield
    except OSError as error:
        reason = f"{where} cannot be written: {os.strerror(error.errno or 0)}"
        if error.errno in _FULL:
            raise ResourceExhausted(reason, "free space on its disk") from error
        if error.errno in _REFUSED:
            raise PermissionDenied(reason) from error
        raise Unavailable(reason) from error


def write_all(fd: int, data: Buffer) -> None:
    """Write all of some bytes; write(2) may take less at a time."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_directory(path: str) -> None:
    """Make the names in a directory last."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Loaded(NamedTuple):
    """An image whose blobs are held: what an index says of it, and its values (without a name)."""

    entry: Descriptor
    image: Image

    def named(self, name: str) -> Image:
        """The image under a name."""
        return self.image._replace(name=name)


class BlobWriter:
    """A blob that is being written: hashed on the way, named by its digest when finished.

    As a context manager it leaves nothing if it was not finished.
    """

    def __init__(self, directory: str, number: int) -> None:
        import hashlib

        self._directory = directory
        self._path = os.path.join(directory, f"writing-{number}")
        self._hash = hashlib.sha256()
        with writing(directory):
            self.fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.size = 0

    def write(self, data: Buffer) -> None:
        """Append. :raise ResourceExhausted: no space."""
        view = memoryview(data)
        self._hash.update(view)
        with writing(self._directory):
            write_all(self.fd, view)
        self.size += view.nbytes

    @property
    def digest(self) -> str:
        """The digest of what was written so far."""
        return digests.PREFIX + self._hash.hexdigest()

    def finish(self) -> str:
        """Bring it to disk and give it its name; returns the digest."""
        digest = self.digest
        with writing(self._directory):
            os.fchmod(self.fd, 0o644)
            os.fsync(self.fd)
            os.rename(self._path, os.path.join(self._directory, digests.hex_of(digest, self._path)))
        self._path = ""
        self.close()
        return digest

    def close(self) -> None:
        """Give up what was not finished. Closing twice is fine."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if self._path:
            os.unlink(self._path)
            self._path = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Staging:
    """Blobs of one load or build.

    :param directory: an empty directory of ours, on the file system of ``blobs``. :param blobs: the layout's ``blobs/sha256``.
    """

    def __init__(self, directory: str, blobs: str) -> None:
        self.directory = directory
        self._blobs = blobs
        self._held: dict[str, int] = {}
        self._number = 0

    @property
    def held(self) -> dict[str, int]:
        """Digest and size in bytes of what is here."""
        return dict(self._held)

    def path(self, digest: str) -> str:
        """Where a blob that is held lies."""
        return os.path.join(self.directory, digests.hex_of(digest, "a staged blob"))

    def adopt(self, digest: str, size: int) -> bool:
        """Hold a blob that the layout has. False if it has none of that size."""
        if digest in self._held:
            return self._held[digest] == size
        source = os.path.join(self._blobs, digests.hex_of(digest, "a blob"))
        with writing(self.directory):
            try:
                os.link(source, self.path(digest), follow_symlinks=False)
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
                return False
        if os.lstat(self.path(digest)).st_size != size:
            os.unlink(self.path(digest))
            return False
        self._held[digest] = size
        return True

    def writer(self) -> BlobWriter:
        """Begin a blob; hand its digest to :meth:`keep` when it is finished."""
        self._number += 1
        return BlobWriter(self.directory, self._number)

    def keep(self, writer: BlobWriter) -> str:
        """Finish a blob and hold it; returns its digest."""
        digest = writer.finish()
        self._held[digest] = writer.size
        return digest

    def put(self, data: bytes) -> str:
        """Hold some bytes as a blob; returns its digest."""
        with self.writer() as writer:
            writer.write(data)
            return self.keep(writer)

    def copy(self, chunks: Iterator[memoryview], digest: str, size: int, where: str) -> None:
        """Hold a blob that comes from elsewhere.

        :param where: names the source and the blob, for errors.
        :raise BadContent: what comes is not what the digest and the size say.
        """
        if self.adopt(digest, size):
            return
        with self.writer() as writer:
            for chunk in chunks:
                writer.write(chunk)
                if writer.size > size:
                    break
            if writer.size != size:
                more = "more" if writer.size > size else f"{writer.size}, not"
                raise BadContent(
                    f"{where} has {more} than the {size} bytes that it should have".replace("not than", "not")
                )
            if writer.digest != digest:
                raise BadContent(f"{where} has another content: its digest is {writer.digest}")
            self.keep(writer)


def put_image(staging: Staging, config: bytes, layers: Sequence[Descriptor], annotations: Mapping[str, str]) -> Loaded:
    """Hold the configuration and a manifest for layers that are held.

    :raise BadContent: the configuration does not go with the layers.
    """
    import json

    parts: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": manifests.OCI_MANIFEST,
        "config": {"mediaType": manifests.OCI_CONFIG, "digest": digests.of(config), "size": len(config)},
        "layers": [{"mediaType": part.media_type, "digest": part.digest, "size": part.size} for part in layers],
    }
    if annotations:
        parts["annotations"] = dict(annotations)
    data = json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()
    entry = Descriptor(manifests.OCI_MANIFEST, digests.of(data), len(data))
    pointer = Descriptor(manifests.OCI_CONFIG, digests.of(config), len(config))
    parsed = Document.parse(config, f"configuration {pointer.digest}")
    found = manifests.image("", entry, Manifest(entry.media_type, pointer, tuple(layers), annotations), parsed)
    staging.put(config)
    staging.put(data)
    return Loaded(entry, found)
