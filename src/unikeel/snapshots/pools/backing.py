"""The files of a pool on files: made in full size, enlarged, and shown as loop devices."""

from __future__ import annotations

import os
import stat

from unikeel.errors import BadContent
from unikeel.kernel import loop
from unikeel.kernel.fd import OwnedFd, open_path
from unikeel.snapshots.image_files import translated


def ensure_file(path: str, size: int, *, sparse: bool) -> bool:
    """Make a file, or make it larger, durably; whether anything was to be done. Not sparse: all its room is taken at once.

    :raise ResourceExhausted: the disk has not that much.
    """
    with translated(f"make {path} of {size} bytes"):
        try:
            fd = open_path(path, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            fd = open_path(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL)
        with fd:
            have = os.fstat(fd.fileno()).st_size
            if have >= size:
                return False
            if not sparse:
                os.posix_fallocate(fd.fileno(), have, size - have)
            os.ftruncate(fd.fileno(), size)
            os.fsync(fd.fileno())
    with open_path(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY) as place:
        os.fsync(place.fileno())
    return True


def open_file(path: str) -> OwnedFd:
    """A pool's file, for reading and writing. :raise BadContent: it is missing or no regular file."""
    try:
        fd = open_path(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise BadContent(f"{path}, in which the pool is, is missing", "put the file back") from None
    if not stat.S_ISREG(os.fstat(fd.fileno()).st_mode):
        fd.close()
        raise BadContent(f"{path}, in which the pool is, is no regular file")
    return fd


def attach(path: str) -> loop.LoopDevice:
    """The file as a block device, for as long as somebody has that open: the one there is, or a new one. :raise BadContent: no such file."""
    with open_file(path) as file:
        info = os.fstat(file.fileno())
        return loop.open_attached(info) or loop.attach(file.fileno(), writable=True)


def measure_again(path: str) -> None:
    """Have the loop device of a file, if there is one, take the file's size."""
    with open_file(path) as file:
        found = loop.open_attached(os.fstat(file.fileno()))
    if found is not None:
        with found.fd:
            loop.measure_again(found.fd)
