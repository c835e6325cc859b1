"""Where an image comes from: a directory or an archive, as members that can be read by name.

Members of strangers: nothing is followed, nothing but regular files is opened, each size is known before the first read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from types import TracebackType

from unikeel.errors import BadContent, NotFound, PermissionDenied, Unavailable
from unikeel.images.documents import MAX_BYTES
from unikeel.images.staging import CHUNK
from unikeel.lean import Protocol, Self


class Window:
    """Part of an open file: a member's bytes. Closes the descriptor at the end if it owns it."""

    def __init__(self, fd: int, offset: int, size: int, where: str, *, owned: bool) -> None:
        self._fd = fd
        self._offset = offset
        self._owned = owned
        self.size = size
        self.where = where

    def chunks(self) -> Iterator[memoryview]:
        """The bytes in pieces of at most a mebibyte; each is valid until the next is asked for.

        :raise BadContent: the file ends before the member does.
        """
        buffer = memoryview(bytearray(min(CHUNK, max(self.size, 1))))
        done = 0
        while done < self.size:
            got = self._read(buffer[: self.size - done], self._offset + done)
            if got == 0:
                raise BadContent(
                    f"{self.where} ends after {done} of {self.size} bytes", "fetch it again: it was cut off"
                )
            done += got
            yield buffer[:got]

    def _read(self, buffer: memoryview, offset: int) -> int:
        try:
            return os.preadv(self._fd, [buffer], offset)
        except OSError as error:
            raise Unavailable(f"{self.where} cannot be read: {os.strerror(error.errno or 0)}") from error

    def head(self, size: int) -> bytes:
        """The first bytes, at most ``size``."""
        buffer = bytearray(min(size, self.size))
        return bytes(buffer[: self._read(memoryview(buffer), self._offset)])

    def metadata(self) -> bytes:
        """All bytes of a small member. :raise BadContent: more than 4 MiB, or cut off."""
        if self.size > MAX_BYTES:
            raise BadContent(f"{self.where} has {self.size} bytes, too many for a manifest or configuration")
        return b"".join(bytes(chunk) for chunk in self.chunks())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owned:
            os.close(self._fd)


class Source(Protocol):
    """Named members, and the name by which errors call it all."""

    name: str

    def has(self, member: str) -> bool:
        """Whether there is a member of that name."""

    def open(self, member: str) -> Window:
        """Open a member. :raise BadContent: there is none, or it is not a regular file."""


class Directory:
    """The files below a directory. Symbolic links are refused, except for the directory itself."""

    def __init__(self, path: str) -> None:
        self.name = path
        self._fd = _opened(path, os.O_DIRECTORY)

    def has(self, member: str) -> bool:
        """Whether there is something of that name."""
        try:
            self.open(member).__exit__(None, None, None)
        except BadContent:
            return False
        return True

    def open(self, member: str) -> Window:
        """Open a file below the directory, component by component."""
        where = f"{self.name}: {member}"
        *parents, last = member.split("/")
        if not all(part not in ("", ".", "..") for part in (*parents, last)):
            raise BadContent(f"{where} is not a plain path")
        directory = os.dup(self._fd)
        try:
            for parent in parents:
                directory = self._descend(directory, parent, where)
            fd = self._open(directory, last, os.O_NONBLOCK, where)
        finally:
            os.close(directory)
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            os.close(fd)
            raise BadContent(f"{where} is not a regular file")
        return Window(fd, 0, info.st_size, where, owned=True)

    def _descend(self, directory: int, name: str, where: str) -> int:
        found = self._open(directory, name, os.O_DIRECTORY, where)
        os.close(directory)
        return found

    def _open(self, directory: int, name: str, flags: int, where: str) -> int:
        try:
            return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=directory)
        except FileNotFoundError as error:
            raise BadContent(f"{where} is missing", "fetch the image again") from error
        except OSError as error:
            if stat.S_ISLNK(os.lstat(name, dir_fd=directory).st_mode):
                raise BadContent(f"{where} leads over the symbolic link {name}, which is not followed") from error
            raise BadContent(f"{where} cannot be read: {os.strerror(error.errno or 0)}") from error

    def close(self) -> None:
        """Let the directory go."""
        os.close(self._fd)


def open_file(path: str) -> int:
    """Open a source that should be a regular file.

    :raise NotFound: there is none. :raise PermissionDenied: it may not be read. :raise BadContent: it is something else.
    """
    fd = _opened(path, os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise BadContent(f"{path} is neither a directory nor a regular file")
    return fd


def _opened(path: str, flags: int) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"there is no file or directory {path}") from error
    except PermissionError as error:
        raise PermissionDenied(f"{path} may not be read") from error
    except (OSError, ValueError) as error:
        raise Unavailable(f"{path!r} cannot be opened: {error}") from error
