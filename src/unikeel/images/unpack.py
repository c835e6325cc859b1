"""From an image's layers to one ext4 image: nothing is mounted, and nothing of the image is ever made on the host.

First all layers are read for their headers and checked, then the tree they make is written in one go, file data
straight out of the archives. So a bad layer is found before the first byte of the image is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from unikeel.errors import BadContent
from unikeel.images.layers import Archive, Layer, Limits, open_archive
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    # Every start asks for a chain ID, and hardly any has to unpack: what unpacking needs is imported there.
    from unikeel.images.expanding import Expanded
    from unikeel.images.tree import Tree

__all__ = ["Layer", "Limits", "UnpackResult", "unpack"]


@dataclass(frozen=True)
class UnpackResult:
    """What was written.

    :ivar size: apparent size of the image in bytes.
    :ivar blocks: bytes that it really takes on the host.
    :ivar files: inodes of the tree.
    """

    size: int
    blocks: int
    files: int


def unpack(
    layers: Sequence[Layer],
    destination_fd: int,
    *,
    scratch: str,
    uuid_seed: str,
    free_bytes: int = 256 << 20,
    progress: Callable[[int, int], None] | None = None,
    limits: Limits | None = None,
) -> UnpackResult:
    """Writes the root file system that the layers make as an ext4 image, and syncs it.

    The same layers, seed and free space always give the same bytes. After an error the destination has to be thrown away.

    :param layers: lowest first.
    :param destination_fd: an empty regular file, open for reading and writing.
    :param scratch: a directory with room for the plain archives of all compressed layers.
    :param uuid_seed: the file system's UUID is made from it; usually the chain ID.
    :param free_bytes: free space wanted in the file system beside a tenth of its content.
    :param progress: called with the work done and all work, both in bytes of the layers' blobs (counted twice: read and
        written); what it raises ends the work.
    :raises BadContent: a layer is damaged, hostile or over a limit; the message names it.
    :raises ResourceExhausted: no space for the image or in ``scratch``.
    :raises Unavailable: a tool for the layers' compression is missing.
    """
    from unikeel.images.expanding import Expanded
    from unikeel.images.tree import EXPANDED, Tree
    from unikeel.snapshots.ext4 import write_image

    limits = limits or Limits()
    meter = _Meter(layers, progress)
    with ExitStack() as stack:
        archives: list[Archive] = []
        tree = Tree(limits)
        expanded = Expanded(scratch, limits.archive_bytes, stack)
        left = limits.archive_bytes
        for number, layer in enumerate(layers):
            archive = open_archive(layer, scratch, left, stack, meter.read)
            left -= archive.size
            archives.append(archive)
            _merge(tree, number, layer, archive, expanded)
        meter.begin_writing(sum(archive.size for archive in archives) + expanded.size)
        stats = write_image(
            destination_fd,
            tree.root,
            uuid=_uuid(uuid_seed),
            free_bytes=free_bytes,
            open_data=lambda source: expanded.fd if source == EXPANDED else archives[source].fd,
            progress=meter.written,
        )
        meter.finish()
    return UnpackResult(stats.size, stats.blocks, stats.files)


def _merge(tree: Tree, number: int, layer: Layer, archive: Archive, expanded: Expanded) -> None:
    from unikeel.images.tarball import entries

    tree.begin(number, layer.digest)
    found = entries(archive.fd, archive.size)
    while True:
        try:
            entry = next(found, None)
            if entry is not None and entry.sparse is not None:
                entry = expanded.take(archive.fd, entry)
        except BadContent as error:
            raise BadContent(f"layer {layer.digest}: {error.message}", error.hint) from error
        if entry is None:
            return
        tree.add(entry)


def _uuid(seed: str) -> bytes:
    """A UUID in the style of version 5 (RFC 9562), from a SHA-256 instead of a SHA-1: the form of version 8."""
    import hashlib

    raw = bytearray(hashlib.sha256(b"unikeel file system " + seed.encode()).digest()[:16])
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


class _Meter:
    """Turns bytes read and written into one figure that only grows: half for reading, half for writing."""

    def __init__(self, layers: Sequence[Layer], progress: Callable[[int, int], None] | None) -> None:
        import os

        self._progress = progress
        self._blobs = 0
        for layer in layers:
            try:
                self._blobs += os.stat(layer.blob).st_size
            except OSError:
                # Opening it will say so.
                continue
        self._read = self._written = 0
        self._to_write = 1

    def read(self, count: int) -> None:
        self._read += count
        self._tell(self._read)

    def begin_writing(self, count: int) -> None:
        self._to_write = max(count, 1)

    def written(self, count: int) -> None:
        self._written += count
        if count >= 1 << 16:
            # Small files are too many to tell of each; the next large one, or the end, does.
            self._tell(self._blobs + self._blobs * self._written // self._to_write)

    def finish(self) -> None:
        self._tell(2 * self._blobs)

    def _tell(self, done: int) -> None:
        if self._progress is not None:
            self._progress(min(done, 2 * self._blobs), 2 * self._blobs)
