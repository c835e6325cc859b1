"""Compressing a layer on its way into a blob; the same bytes in give the same bytes out."""

from __future__ import annotations

import hashlib
import os
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from unikeel.errors import Unavailable
from unikeel.images import digests
from unikeel.images.sources import Window
from unikeel.images.staging import BlobWriter, Buffer, writing
from unikeel.lean import Final, Protocol

#: What a compression adds to a layer's media type.
SUFFIX: Final = {"none": "", "gzip": "+gzip", "zstd": "+zstd"}


class Compressor(Protocol):
    """Takes a layer's tar and writes the compressed one to a blob."""

    def write(self, data: Buffer) -> None:
        """Take some bytes."""

    def finish(self) -> str:
        """Write what is left; returns the digest of what was taken."""

    def close(self) -> None:
        """Give up what was not finished."""


@contextmanager
def compressing(kind: str, out: BlobWriter, scratch: str) -> Iterator[Compressor]:
    """A compressor of a kind (``gzip`` or ``zstd``). :raise Unavailable: there is no zstd(1)."""
    compressor: Compressor = _Gzip(out) if kind == "gzip" else _Zstd(out, scratch)
    try:
        yield compressor
    finally:
        compressor.close()


class _Gzip:
    """RFC 1952 without a file name and with time 0."""

    def __init__(self, out: BlobWriter) -> None:
        self._out = out
        self._hash = hashlib.sha256()
        self._deflate = zlib.compressobj(6, zlib.DEFLATED, 31)

    def write(self, data: Buffer) -> None:
        self._hash.update(data)
        self._out.write(self._deflate.compress(data))

    def finish(self) -> str:
        self._out.write(self._deflate.flush())
        return digests.PREFIX + self._hash.hexdigest()

    def close(self) -> None:
        return


class _Zstd:
    """zstd(1), one thread: its result then does not depend on the number of processors."""

    def __init__(self, out: BlobWriter, scratch: str) -> None:
        self._out = out
        self._scratch = scratch
        self._hash = hashlib.sha256()
        path = os.path.join(scratch, "compressed")
        with writing(scratch):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.unlink(path)
        try:
            self._process = subprocess.Popen(
                ["zstd", "-q", "-3", "-T1", "--single-thread", "-c"],
                stdin=subprocess.PIPE,
                stdout=self._file,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            os.close(self._file)
            raise Unavailable(
                f"zstd cannot be run: {error.strerror}", "install zstd, or use another compression"
            ) from error

    def write(self, data: Buffer) -> None:
        self._hash.update(data)
        if self._process.stdin is not None:
            with writing(self._scratch):
                self._process.stdin.write(data)

    def finish(self) -> str:
        if self._process.stdin is not None:
            with writing(self._scratch):
                self._process.stdin.close()
        if self._process.wait() != 0:
            raise Unavailable(f"zstd failed with status {self._process.returncode}", "is there space on the disk?")
        with Window(self._file, 0, os.fstat(self._file).st_size, self._scratch, owned=False) as window:
            for chunk in window.chunks():
                self._out.write(chunk)
        return digests.PREFIX + self._hash.hexdigest()

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        os.close(self._file)
