"""Archives of images: tar files, perhaps compressed, as members that can be read by name.

Only headers are read when an archive is opened; a member's bytes stay where they are. An archive in gzip is first unpacked
into a temporary file of ours, up to a limit.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

from unikeel.errors import BadContent
from unikeel.images.sources import Window
from unikeel.images.staging import CHUNK, write_all, writing
from unikeel.images.tarball import Entry, Kind, entries
from unikeel.lean import Final

#: Most members of an archive; an image has a handful per layer.
MAX_MEMBERS: Final = 20_000
_GZIP: Final = b"\x1f\x8b"
#: Compressed bytes that are read at a time, and most gzip members (parallel compressors write many).
_PIECE: Final = 64 << 10
_MAX_GZIP_MEMBERS: Final = 1 << 20
_MAGIC_OFFSET: Final = 257
_MAGIC: Final = b"ustar"


@dataclass(frozen=True)
class _Member:
    offset: int
    size: int
    link: str  # target of a symbolic or hard link, "" for a regular file


def unpacked(fd: int, name: str, scratch: str, limit: int) -> int:
    """A descriptor of the plain tar: ``fd`` itself, or a temporary file that holds its unpacked bytes.

    :param scratch: where the temporary file may be made; it has no name afterwards.
    :raise BadContent: damaged, cut off, or more than ``limit`` bytes.
    """
    if os.pread(fd, 2, 0) != _GZIP:
        return fd
    path = os.path.join(scratch, "unpacked")
    with writing(scratch):
        out = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.unlink(path)
    try:
        total = 0
        for piece in _gunzip(fd, name):
            total += len(piece)
            if total > limit:
                raise BadContent(f"{name} unpacks to more than {limit} bytes")
            with writing(scratch):
                write_all(out, piece)
    except BaseException:
        os.close(out)
        raise
    return out


def _gunzip(fd: int, name: str) -> Iterator[bytes]:
    """The unpacked bytes of a gzip file (RFC 1952) of any number of members, in pieces of at most a mebibyte."""
    import zlib

    inflate, members, data, offset = zlib.decompressobj(wbits=31), 1, b"", 0
    try:
        while True:
            if not data:
                data = os.pread(fd, _PIECE, offset)
                offset += len(data)
            if inflate.eof:
                if not data.startswith(_GZIP):
                    return
                inflate, members = zlib.decompressobj(wbits=31), members + 1
            at_end = not data
            piece = inflate.decompress(data, CHUNK)
            data = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
            if (at_end and not piece and not inflate.eof) or members > _MAX_GZIP_MEMBERS:
                raise BadContent(f"{name} is cut off, or in more than {_MAX_GZIP_MEMBERS} pieces", "fetch it again")
            yield piece
    except zlib.error as error:
        raise BadContent(f"{name} is damaged: {error}", "fetch it again") from error


def is_tar(fd: int) -> bool:
    """Whether a file begins like a tar."""
    return os.pread(fd, len(_MAGIC), _MAGIC_OFFSET) == _MAGIC


class Archive:
    """The members of a tar file.

    :param fd: the plain tar, ours from now on.
    :raise BadContent: damaged, cut off, a member twice, a path that leaves the archive, too many members.
    """

    def __init__(self, fd: int, name: str) -> None:
        self.name = name
        self._fd = fd
        self._members: dict[str, _Member] = {}
        try:
            self._scan()
        except BadContent as error:
            os.close(fd)
            raise BadContent(f"{name}: {error.message}", error.hint or "fetch it again") from error
        except BaseException:
            os.close(fd)
            raise

    def has(self, member: str) -> bool:
        """Whether there is a file or link of that name."""
        return member in self._members

    def open(self, member: str) -> Window:
        """Open a regular file of the archive."""
        where = f"{self.name}: {member}"
        found = self._members.get(member)
        if found is None:
            raise BadContent(f"{where} is missing", "fetch the image again")
        if found.link:
            raise BadContent(f"{where} is a link")
        return Window(self._fd, found.offset, found.size, where, owned=False)

    def open_linked(self, member: str) -> Window:
        """The same, following one link inside the archive: ``docker save`` writes equal layers so."""
        found = self._members.get(member)
        return self.open(found.link if found is not None and found.link else member)

    def close(self) -> None:
        """Let the file go."""
        os.close(self._fd)

    def _scan(self) -> None:
        for count, entry in enumerate(entries(self._fd, os.fstat(self._fd).st_size)):
            if count >= MAX_MEMBERS:
                raise BadContent(f"the archive has more than {MAX_MEMBERS} members")
            self._take(entry)

    def _take(self, entry: Entry) -> None:
        written = entry.name.decode("utf-8", "surrogateescape")
        name = posixpath.normpath(written)
        if name.startswith(("/", "../")) or name == "..":
            raise BadContent(f"the archive has a member outside of itself, {written[:200]!r}")
        if entry.sparse is not None:
            raise BadContent(
                f"the archive has the member {name[:200]!r} stored without its holes", "make it without -S"
            )
        if entry.kind is Kind.DIRECTORY:
            return
        if name in self._members:
            raise BadContent(f"the archive has the member {name[:200]!r} twice")
        target = entry.link.decode("utf-8", "surrogateescape")
        if entry.kind is Kind.SYMLINK:
            target = posixpath.join(posixpath.dirname(name), target)
        # Devices and fifos are no members: what names one finds it missing.
        if entry.kind in {Kind.FILE, Kind.SYMLINK, Kind.HARD_LINK}:
            self._members[name] = _Member(entry.offset, entry.size, posixpath.normpath(target) if target else "")
