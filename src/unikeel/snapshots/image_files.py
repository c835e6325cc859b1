"""The directory of a file-backed store: one image per numeric id, and a mark that ties it to its records.

Names are ids, so that no name a caller chose ever reaches the file system. Images are made with mode 0600 and sealed to 0400,
owned by the store's user. The mark keeps a lost or foreign record store from counting our images as garbage.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property

from unikeel.errors import BadContent, FailedPrecondition, PermissionDenied, ResourceExhausted, Unavailable
from unikeel.kernel.reflink import clone_file
from unikeel.lean import Final

_SUFFIX: Final = ".img"
_MARK: Final = "store-id"
_MARK_NEW: Final = "store-id.new"
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn what the system answers into our errors; ``doing`` completes "cannot …"."""
    try:
        yield
    except OSError as error:
        text = f"cannot {doing}: {os.strerror(error.errno or 0)}"
        if error.errno in _NO_SPACE:
            raise ResourceExhausted(text, "free space on the disk of the state root") from error
        if error.errno in _REFUSED:
            raise PermissionDenied(text) from error
        raise Unavailable(text) from error


def _number(name: str) -> int | None:
    """The id in an image's file name; None if it is no such name."""
    stem = name.removesuffix(_SUFFIX)
    ours = name.endswith(_SUFFIX) and stem.isascii() and stem.isdecimal() and len(stem) <= 19
    return int(stem) if ours and str(int(stem)) == stem else None


class ImageFiles:
    """The images in one directory, which is made (0700) if it is missing; its parent must exist."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        with translated(f"open the snapshot directory {directory}"):
            with suppress(FileExistsError):
                os.mkdir(directory, 0o700)
            self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def path(self, number: int) -> str:
        """The file name of an image, absolute if the directory is."""
        return os.path.join(self._directory, f"{number}{_SUFFIX}")

    def create(self, number: int) -> int:
        """A new empty image, open for reading and writing. A file of this name is one whose announcement went with the host's power: it goes."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(f"{number}{_SUFFIX}", flags, 0o600, dir_fd=self._fd)
        except FileExistsError:
            os.unlink(f"{number}{_SUFFIX}", dir_fd=self._fd)
            return os.open(f"{number}{_SUFFIX}", flags, 0o600, dir_fd=self._fd)

    @cached_property
    def in_order(self) -> bool:
        """Whether a name that a finished clone is given is never on the disk without the clone, nor what is flushed into the file without its name.

        So it is on XFS, whose log takes all changes of metadata in their order. On btrfs a flush of the directory takes new names along, but not what the files
        are made of (the log mode ``LOG_INODE_EXISTS`` of its fs/btrfs/tree-log.c); of others nothing is promised.
        """
        from unikeel.kernel.xfs import is_on_xfs

        return is_on_xfs(self._fd)

    def cloned(self, origin: int) -> int:
        """A new image without a name, open for reading and writing, that shares all blocks of another. It goes when it is closed before :meth:`give_name`.

        :raise BadContent: the other is missing. :raise Unavailable: blocks cannot be shared here.
        """
        source = self.open(origin)
        try:
            fd = os.open(".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=self._fd)
            try:
                clone_file(source, fd)
            except BaseException:
                os.close(fd)
                raise
            return fd
        finally:
            os.close(source)

    def give_name(self, fd: int, number: int) -> None:
        """Give an image that has no name the one of this id. A file of this name is garbage: it goes, and is never found again in place of this one."""
        try:
            self.give_free_name(fd, number)
        except FileExistsError:
            os.unlink(f"{number}{_SUFFIX}", dir_fd=self._fd)
            self.give_free_name(fd, number)
            os.fsync(fd)

    def give_free_name(self, fd: int, number: int) -> None:
        """As :meth:`give_name`. :raise FileExistsError: there is a file of this name, and it stays."""
        os.link(f"/proc/self/fd/{fd}", f"{number}{_SUFFIX}", dst_dir_fd=self._fd, follow_symlinks=True)

    def open(self, number: int) -> int:
        """An image, open for reading. :raise BadContent: it is missing."""
        try:
            return os.open(f"{number}{_SUFFIX}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._fd)
        except FileNotFoundError as error:
            raise BadContent(f"the image file {self.path(number)} of a snapshot is missing") from error

    def seal(self, fd: int) -> None:
        """Nobody but root, by its privilege, writes this image any more; on disk when it returns."""
        os.fchown(fd, os.geteuid(), os.getegid())
        os.fchmod(fd, 0o400)
        os.fsync(fd)

    def unseal(self, number: int) -> None:
        """Undo :meth:`seal`, after a commit that did not happen."""
        os.chmod(f"{number}{_SUFFIX}", 0o600, dir_fd=self._fd)

    def is_sealed(self, number: int) -> bool:
        """Whether an image refuses writing. :raise BadContent: it is missing."""
        try:
            return not os.stat(f"{number}{_SUFFIX}", dir_fd=self._fd, follow_symlinks=False).st_mode & 0o200
        except FileNotFoundError as error:
            raise BadContent(f"the image file {self.path(number)} of a snapshot is missing") from error

    def remove(self, number: int) -> bool:
        """Take an image away; False if it was not there."""
        try:
            os.unlink(f"{number}{_SUFFIX}", dir_fd=self._fd)
        except FileNotFoundError:
            return False
        return True

    def sync(self) -> None:
        """Names made or taken away so far are so on disk."""
        os.fsync(self._fd)

    def numbers(self) -> set[int]:
        """The ids of all images. Through a descriptor of its own: btrfs lists only what was there when one was opened."""
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            return {number for name in os.listdir(fd) if (number := _number(name)) is not None}
        finally:
            os.close(fd)

    def mark(self) -> str:
        """The random number that this directory is marked with; empty if it is not."""
        try:
            fd = os.open(_MARK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._fd)
        except FileNotFoundError:
            return ""
        try:
            return os.read(fd, 64).decode("ascii", "replace").strip()
        finally:
            os.close(fd)

    def set_mark(self, mark: str) -> None:
        """Mark this directory, which must hold no images. :raise FailedPrecondition: it does hold some."""
        if self.numbers():
            raise FailedPrecondition(
                f"the images in {self._directory} belong to another record store",
                "put the record store back that they belong to, or move the directory away",
            )
        fd = os.open(_MARK_NEW, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=self._fd)
        try:
            os.write(fd, f"{mark}\n".encode("ascii"))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(_MARK_NEW, _MARK, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        self.sync()

    def close(self) -> None:
        """Close the directory. Closing twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
