"""The image beneath a reader: bounded reads from a descriptor, and bytes moved out of it by the kernel."""

from __future__ import annotations

import errno
import os
import stat

from unikeel.boot.readers.contract import Extent
from unikeel.errors import BadContent, FailedPrecondition, ResourceExhausted, Unavailable

#: Bytes of metadata that one operation may read: no honest look-up comes near, and a hostile one ends in seconds.
METADATA_BUDGET = 64 << 20

_SENDFILE_MOST = 1 << 30
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM)


class Image:
    """A regular file or block device that holds a file system, open for reading; the descriptor is the caller's.

    Metadata reads are counted against a budget that every operation of a reader starts anew (:meth:`begin`).
    """

    __slots__ = ("_budget", "_fd", "size")

    def __init__(self, fd: int) -> None:
        """:raises BadContent: ``fd`` is neither a regular file nor a block device."""
        self._fd = fd
        self._budget = METADATA_BUDGET
        try:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode):
                self.size = status.st_size
            elif stat.S_ISBLK(status.st_mode):
                self.size = _device_size(fd)
            else:
                raise BadContent("the image is neither a regular file nor a block device")
        except OSError as error:
            raise Unavailable(f"the image cannot be read: {error.strerror}") from error

    def close(self) -> None:
        """Forget the descriptor."""
        self._fd = -1

    def begin(self) -> None:
        """Start an operation: its metadata reads are counted from zero."""
        if self._fd < 0:
            raise FailedPrecondition("the reader is closed")
        self._budget = METADATA_BUDGET

    def metadata(self, offset: int, length: int, what: str) -> bytes:
        """``length`` bytes at ``offset``, for the structure named ``what``; counted.

        :raises BadContent: it lies outside the image, or the operation has read too much.
        """
        self.charge(length)
        return self.data(offset, length, what)

    def charge(self, length: int) -> None:
        """Count ``length`` bytes that the operation is about to read or make.

        :raises BadContent: the operation has read too much.
        """
        self._budget -= length
        if self._budget < 0:
            raise BadContent("the file system's metadata is larger than unikeel reads for one path", _BUDGET_HINT)

    def data(self, offset: int, length: int, what: str) -> bytes:
        """``length`` bytes at ``offset``, not counted; the caller bounds ``length``."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise BadContent(f"{what} lies outside the image")
        try:
            found = os.pread(self._fd, length, offset)
            while len(found) < length:
                more = os.pread(self._fd, length - len(found), offset + len(found))
                if not more:
                    raise BadContent(f"the image ends inside {what}")
                found += more
        except OSError as error:
            raise Unavailable(f"the image cannot be read: {error.strerror}") from error
        return found

    def send(self, fd: int, extents: list[Extent]) -> None:
        """Move the extents' bytes to the same offsets of ``fd`` inside the kernel; holes are left alone."""
        for extent in extents:
            if extent.physical is None:
                continue
            if extent.physical < 0 or extent.physical + extent.length > self.size:
                raise BadContent("a file's data lies outside the image")
            try:
                os.lseek(fd, extent.logical, os.SEEK_SET)
                self._send_one(fd, extent.physical, extent.length)
            except OSError as error:
                raise write_error(error) from error

    def _send_one(self, fd: int, offset: int, length: int) -> None:
        while length:
            sent = os.sendfile(fd, self._fd, offset, min(length, _SENDFILE_MOST))
            if not sent:
                raise BadContent("the image ends inside a file's data")
            offset += sent
            length -= sent


_BUDGET_HINT = "the file system is damaged or made to be slow"


def _device_size(fd: int) -> int:
    """A block device's size in bytes; the descriptor's own offset, which others may share, is put back."""
    before = os.lseek(fd, 0, os.SEEK_CUR)
    try:
        return os.lseek(fd, 0, os.SEEK_END)
    finally:
        os.lseek(fd, before, os.SEEK_SET)


def write_error(error: OSError) -> ResourceExhausted | Unavailable:
    """What a failed write of a file's content means."""
    if error.errno in _NO_ROOM:
        return ResourceExhausted(f"no room for the file's content: {error.strerror}")
    return Unavailable(f"the file's content cannot be copied: {error.strerror}")
