"""One layer's blob as plain bytes that can be read at any offset: decompressed, bounded and checked against its diff ID.

A plain tar is read where it is. A compressed one goes through an unnamed temporary file, so nothing of an image ever
has a name, an owner or a mode on the host.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import IO

from unikeel.errors import BadContent, Unavailable

_PIECE = 1 << 16
_CHUNK = 1 << 20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
#: zstd data may begin with a frame that decoders skip (16 magic numbers, RFC 8878 section 3.1.2).
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"
_OTHERS = ((b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x04\x22\x4d\x18", "lz4"))
_ARCHIVE_WORDS = (".tar", "+gzip", "+zstd", ".gzip", ".zstd", "rootfs.diff")
#: More members than this do not occur in an image of any kind (seekable ones have a member for each file).
_MAX_MEMBERS = 1 << 22
_ZSTD_MEMORY = "--memory=512MB"


@dataclass(frozen=True)
class Layer:
    """One layer of an image.

    :ivar diff_id: digest of the uncompressed archive, from the image's configuration.
    :ivar digest: digest of the blob, from the manifest; it names the layer in messages.
    :ivar media_type: from the manifest.
    :ivar blob: path of the blob's file.
    """

    diff_id: str
    digest: str
    media_type: str
    blob: str


@dataclass(frozen=True)
class Limits:
    """What one image may have at most; beyond is :class:`BadContent`.

    :ivar archive_bytes: of all layers' plain archives together.
    :ivar entries: files, directories and links of all layers together, those implied by paths included.
    :ivar metadata_bytes: names, link targets and extended attributes together, since they are held in memory.
    :ivar steps: path components looked up, links followed included: bounds the time that hostile paths can take.
    """

    archive_bytes: int = 64 << 30
    entries: int = 2_000_000
    metadata_bytes: int = 512 << 20
    steps: int = 40_000_000


@dataclass(frozen=True)
class Archive:
    """A layer's verified plain archive: ``size`` bytes in an open file."""

    fd: int
    size: int


def open_archive(
    layer: Layer, scratch: str, limit: int, stack: ExitStack, progress: Callable[[int], None] | None = None
) -> Archive:
    """Opens a layer, decompressing it into an unnamed file where needed, and verifies its diff ID.

    :param scratch: directory for temporary files.
    :param limit: most bytes that the plain archive may have.
    :param stack: closes the files.
    :param progress: told the number of bytes of the blob that were read since the last call.
    :raises BadContent: unknown or damaged compression, too large, or not what the diff ID says.
    :raises Unavailable: the ``zstd`` tool is needed and missing.
    :raises ResourceExhausted: no space in ``scratch``.
    """
    from unikeel.snapshots.ext4.output import NoSpace

    blob = stack.enter_context(_opened(layer))
    compression = _compression(layer, os.pread(blob, 6, 0))
    tell = progress or _ignore
    if not compression:
        size = os.fstat(blob).st_size
        _check_size(layer, size, limit)
        _verify(layer, _blob_chunks(blob, _CHUNK, tell), limit, None)
        return Archive(blob, size)
    spool = stack.enter_context(scratch_file(scratch))
    with NoSpace(spool), closing(_decompressed(layer, blob, compression, tell)) as chunks:
        size = _verify(layer, chunks, limit, spool)
        os.ftruncate(spool, size)
    return Archive(spool, size)


def _ignore(count: int) -> None:
    del count


@contextmanager
def _opened(layer: Layer) -> Iterator[int]:
    try:
        fd = os.open(layer.blob, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise BadContent(
            f"layer {layer.digest} cannot be read from {layer.blob}: {error.strerror}", "load or pull the image again"
        ) from error
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def scratch_file(directory: str) -> Iterator[int]:
    """An empty file without a name, open for reading and writing. :raises Unavailable: the directory cannot be written."""
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR}:
            raise Unavailable(
                f"no temporary file can be made in {directory}: {error.strerror}", "name a writable directory"
            ) from error
        import tempfile

        # Some file systems have no unnamed files.
        fd, name = tempfile.mkstemp(dir=directory)
        os.unlink(name)
    try:
        yield fd
    finally:
        os.close(fd)


def _compression(layer: Layer, head: bytes) -> str:
    """One of "gzip", "zstd" and "": by the bytes themselves, since media types are often wrong and the diff ID decides."""
    if not any(word in layer.media_type for word in _ARCHIVE_WORDS) or "encrypted" in layer.media_type:
        raise BadContent(
            f"layer {layer.digest} is no archive that can be unpacked: its media type is {layer.media_type!r}"
        )
    if head.startswith(_GZIP):
        return "gzip"
    if head.startswith(_ZSTD) or head[1:4] == _ZSTD_SKIPPABLE:
        return "zstd"
    for magic, name in _OTHERS:
        if head.startswith(magic):
            raise BadContent(f"layer {layer.digest} is compressed with {name}", "rebuild the image with gzip or zstd")
    return ""


def _check_size(layer: Layer, size: int, limit: int) -> None:
    if size > limit:
        raise BadContent(
            f"layer {layer.digest} makes the image's archives larger than the limit allows ({limit} bytes left for it)",
            "raise the limit if the image is meant to be that large",
        )


def _verify(layer: Layer, chunks: Iterable[bytes], limit: int, spool: int | None) -> int:
    """Hashes all chunks, stores them if asked to, and compares with the diff ID; their total size."""
    import hashlib

    from unikeel.snapshots.ext4.output import write_sparse

    algorithm, _, wanted = layer.diff_id.partition(":")
    if algorithm not in {"sha256", "sha512"}:
        raise BadContent(f"layer {layer.digest} has a diff ID of an unknown kind: {layer.diff_id[:80]!r}")
    digest = hashlib.new(algorithm)
    size = 0
    for chunk in chunks:
        _check_size(layer, size + len(chunk), limit)
        digest.update(chunk)
        if spool is not None:
            write_sparse(spool, size, chunk)
        size += len(chunk)
    if digest.hexdigest() != wanted:
        raise BadContent(
            f"layer {layer.digest} does not have the content that the image's configuration promises: "
            f"expected {layer.diff_id}, found {algorithm}:{digest.hexdigest()}",
            "load or pull the image again",
        )
    return size


def _blob_chunks(blob: int, size: int, tell: Callable[[int], None]) -> Iterator[bytes]:
    offset = 0
    while chunk := os.pread(blob, size, offset):
        offset += len(chunk)
        tell(len(chunk))
        yield chunk


def _decompressed(
    layer: Layer, blob: int, compression: str, tell: Callable[[int], None]
) -> Generator[bytes, None, None]:
    pieces = _gunzip(layer, blob, tell) if compression == "gzip" else _unzstd(layer, blob, tell)
    with closing(pieces):
        yield from _regrouped(pieces)


def _regrouped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of whole mebibytes, the last one apart: sparse writing needs aligned ones."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        whole = len(waiting) - len(waiting) % _CHUNK
        if whole:
            yield bytes(memoryview(waiting)[:whole])
            del waiting[:whole]
    if waiting:
        yield bytes(waiting)


def _gunzip(layer: Layer, blob: int, tell: Callable[[int], None]) -> Generator[bytes, None, None]:
    """All members of a gzip file; anything else behind a member is an error."""
    import zlib

    decoder, members = zlib.decompressobj(31), 1
    try:
        for piece in _blob_chunks(blob, _PIECE, tell):
            data = piece
            while data:
                if decoder.eof:
                    members += 1
                    decoder = zlib.decompressobj(31)
                if members > _MAX_MEMBERS:
                    raise BadContent(f"layer {layer.digest} has more than {_MAX_MEMBERS} gzip members")
                yield decoder.decompress(data, _CHUNK)
                # Behind the end the decoder keeps an old tail for ever: it must not be asked then.
                while decoder.unconsumed_tail and not decoder.eof:
                    yield decoder.decompress(decoder.unconsumed_tail, _CHUNK)
                data = decoder.unused_data
        if not decoder.eof:
            # What the last call had no more room for.
            yield decoder.flush()
    except zlib.error as error:
        raise BadContent(f"layer {layer.digest} is damaged: {error}", "load or pull the image again") from error
    if not decoder.eof:
        raise BadContent(f"layer {layer.digest} is truncated: its gzip data ends early", "load or pull the image again")


def _unzstd(layer: Layer, blob: int, tell: Callable[[int], None]) -> Generator[bytes, None, None]:
    """Runs the ``zstd`` tool on the blob."""
    import subprocess
    import tempfile

    with tempfile.TemporaryFile() as complaints, os.fdopen(os.dup(blob), "rb") as source:
        source.seek(0)
        try:
            process = subprocess.Popen(
                ["zstd", "-dcq", "--no-progress", _ZSTD_MEMORY], stdin=source, stdout=subprocess.PIPE, stderr=complaints
            )
        except FileNotFoundError as error:
            raise Unavailable(
                f"layer {layer.digest} is compressed with zstd and there is no zstd tool", "install the package zstd"
            ) from error
        with process:
            try:
                if process.stdout is None:
                    return
                yield from _pipe_chunks(process.stdout, source, tell)
            except GeneratorExit:
                process.kill()
                raise
        if process.returncode:
            complaints.seek(0)
            reason = complaints.read(300).decode("utf-8", "replace").strip().replace("\n", "; ")
            raise BadContent(f"layer {layer.digest} is damaged: {reason}", "load or pull the image again")


def _pipe_chunks(pipe: IO[bytes], source: IO[bytes], tell: Callable[[int], None]) -> Iterator[bytes]:
    """What the tool gives; progress is where it stands in its input, whose position it shares with us."""
    told = 0
    while chunk := pipe.read(_CHUNK):
        position = os.lseek(source.fileno(), 0, os.SEEK_CUR)
        tell(position - told)
        told = position
        yield chunk
