"""What a reader of a file system is, whatever the format: the shared types and the reasons of a refused path.

A reader works on an open descriptor alone: it never mounts, never writes, and takes every number in the image for
hostile until it is bounded. Whatever it cannot read exactly it refuses by name with
:class:`~unikeel.errors.BadContent`; wrong bytes are never an answer.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from unikeel.errors import BadContent
from unikeel.lean import Protocol, Self

#: The largest piece that :meth:`OpenFile.chunks` yields, in bytes.
CHUNK = 1 << 20


class PathReason(enum.Enum):
    """Why a path of an image is not usable; the same for every way of looking into the same image."""

    MISSING = "missing"  #: ENOENT
    NOT_REGULAR = "not a regular file"  #: the path leads to a directory, a device, a fifo or a socket
    NOT_LINK = "not a symbolic link"  #: only where a link was asked for
    NOT_DIRECTORY = "not a directory"  #: ENOTDIR
    LINK_LOOP = "too many links"  #: ELOOP
    TOO_LARGE = "too large"  #: over the caller's limit
    NAME_TOO_LONG = "name too long"  #: ENAMETOOLONG
    BAD_NAME = "bad name"  #: empty, holds a NUL, or is not text


class PathError(BadContent):
    """A path that does not lead to what was asked for; ``reason`` is stable, the message is for people."""

    def __init__(self, reason: PathReason, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Extent:
    """A piece of a file, in bytes; ``physical`` is its offset in the image, None where it reads as zeroes."""

    logical: int
    physical: int | None
    length: int


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What an inode says: number, size in bytes, type and permissions (``st_mode``), owner."""

    inode: int
    size: int
    mode: int
    uid: int
    gid: int


class OpenFile(Protocol):
    """A regular file of an image, its whole map already checked."""

    @property
    def info(self) -> FileInfo:
        """The file's inode."""

    def chunks(self) -> Iterator[bytes]:
        """The content in order, in pieces of at most :data:`CHUNK` bytes.

        :raises BadContent: compressed data is damaged, or the image ends early.
        :raises Unavailable: the image cannot be read.
        """

    def copy_to(self, fd: int) -> None:
        """Write the content to ``fd``: an empty regular file (memfd, tmpfs, disk) open for writing, holes kept.

        :raises BadContent: as :meth:`chunks`.
        :raises ResourceExhausted: there is no room for it.
        :raises Unavailable: the image cannot be read or ``fd`` cannot be written.
        """


class Reader(Protocol):
    """A file system looked into through one descriptor, which stays the caller's. Not for several threads at once."""

    @property
    def fstype(self) -> str:
        """The format as mount(8) names it: ``ext2``, ``ext3``, ``ext4`` or ``erofs``."""

    def lookup(self, path: str) -> FileInfo:
        """The file of any type that ``path`` leads to, resolved as ``openat2`` with ``RESOLVE_IN_ROOT`` does.

        :raises PathError: the path leads nowhere.
        :raises BadContent: what lies on the way is damaged or is not read by unikeel.
        :raises Unavailable: the image cannot be read.
        """

    def open(self, path: str, max_size: int) -> OpenFile:
        """The regular file that ``path`` leads to, of at most ``max_size`` bytes.

        :raises PathError: it leads nowhere, to something else than a regular file, or to a larger one.
        :raises BadContent: what lies on the way, or the file's map, is damaged or is not read by unikeel.
        :raises Unavailable: the image cannot be read.
        """

    def readlink(self, path: str) -> bytes:
        """What the symbolic link at ``path`` holds; links before the last name are followed.

        :raises PathError: the path leads nowhere, or to something else than a link (:data:`PathReason.NOT_LINK`).
        :raises BadContent: what lies on the way is damaged or is not read by unikeel.
        """

    def tree(self) -> Iterator[tuple[str, FileInfo]]:
        """Every path with its inode, from ``/`` down, links not followed; bounded in number and depth.

        :raises BadContent: a structure is damaged or the tree is over the bounds.
        """

    def close(self) -> None:
        """Let go of the descriptor without closing it; every later use fails."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
