"""Opening committed snapshots, and the checks of paths and sizes that every strategy shares."""

from __future__ import annotations

import errno
import os
import stat

from unikeel.boot.contract import Wanted
from unikeel.errors import BadContent, Unavailable
from unikeel.kernel.fd import OwnedFd, open_path
from unikeel.kernel.paths import NotRegular, TooLarge, open_regular_beneath
from unikeel.lean import Final

#: The kernel's answers → names of PathReason (the readers are imported when one is needed) and what is said.
_REASONS: Final = {
    errno.ENOENT: ("MISSING", "there is no {} in the image"),
    errno.ENOTDIR: ("NOT_DIRECTORY", "the path {} goes through what is not a directory"),
    errno.ELOOP: ("LINK_LOOP", "the path {} goes through too many links"),
    errno.ENAMETOOLONG: ("NAME_TOO_LONG", "the path {} or one of its names is too long"),
    errno.EINVAL: ("NOT_REGULAR", "{} is not a regular file"),
    errno.EISDIR: ("NOT_REGULAR", "{} is a directory, not a regular file"),
    errno.EFBIG: ("TOO_LARGE", "{} is larger than the limit of {} bytes"),
}
_PATH_ERRORS: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
_PATH_MAX: Final = 4096
_MAPPER: Final = "/dev/mapper"
#: What file systems answer when their own structures are wrong: EFSCORRUPTED and EFSBADCRC.
DAMAGED: Final = frozenset({errno.EUCLEAN, errno.EBADMSG})


def open_source(path: str) -> OwnedFd:
    """An image that the snapshotter named: a regular file or a block device, for reading.

    A device-mapper device must have the very name that its path has: a stale node of ``/dev/mapper`` can show another one.

    :raise Unavailable: it cannot be opened, or is not that.
    """
    try:
        fd = open_path(path, os.O_RDONLY | os.O_NONBLOCK)
        info = os.fstat(fd.fileno())
    except (OSError, ValueError) as error:
        raise Unavailable(f"{path!a} cannot be opened: {getattr(error, 'strerror', error)}") from error
    try:
        if stat.S_ISBLK(info.st_mode):
            _check_device(path, fd, info.st_rdev)
        elif not stat.S_ISREG(info.st_mode):
            raise Unavailable(f"{path} is neither a file nor a block device")
    except BaseException:
        fd.close()
        raise
    return fd


def _check_device(path: str, fd: OwnedFd, number: int) -> None:
    if os.lseek(fd.fileno(), 0, os.SEEK_END) <= 0:
        raise Unavailable(f"the device {path} is empty")
    os.lseek(fd.fileno(), 0, os.SEEK_SET)
    directory, name = os.path.split(path)
    if directory != _MAPPER:
        return
    try:
        with open(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/dm/name", encoding="utf-8") as file:
            shown = file.read().rstrip("\n")
    except OSError as error:
        raise Unavailable(f"{path} is no device of the device mapper: {error.strerror}") from error
    if shown != name:
        raise Unavailable(f"{path} leads to the device {shown} instead")


def is_mounted(path: str) -> bool:
    """Whether the kernel has a block device in use, by a mount or whatever else claims it alone; files have no such state."""
    try:
        if not stat.S_ISBLK(os.stat(path).st_mode):
            return False
        open_path(path, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK).close()
    except OSError as error:
        return error.errno == errno.EBUSY
    return False


def check_path(path: str) -> None:
    """The checks that need no image. :raise PathError: the path is empty, too long, holds a NUL or is not text."""
    try:
        encoded = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise _refused("BAD_NAME", "the path {} is not text", path) from None
    if not encoded or b"\0" in encoded:
        raise _refused("BAD_NAME", "the path {} is empty or holds a NUL", path)
    if len(encoded) >= _PATH_MAX:
        raise _refused("NAME_TOO_LONG", "the path {} has {} bytes or more", path, _PATH_MAX)


def check_size(want: Wanted, size: int) -> None:
    """:raise PathError: the file is larger than wanted."""
    if size > want.max_size:
        raise _refused(*_REASONS[errno.EFBIG], want.path, want.max_size)


def open_mounted(root: int, want: Wanted) -> OwnedFd:
    """The file wanted, in a mounted image, with the answers that the readers give.

    :raise PathError: it leads nowhere, to something else than a regular file, or to a larger one.
    :raise BadContent: the file system is damaged. :raise Unavailable: it cannot be read.
    """
    check_path(want.path)
    try:
        return open_regular_beneath(root, want.path, want.max_size)
    except (NotRegular, TooLarge) as error:
        raise _refused(*_REASONS[error.errno or 0], want.path, want.max_size) from error
    except OSError as error:
        if error.errno in _PATH_ERRORS:
            raise _refused(*_REASONS[error.errno], want.path) from error
        if error.errno in DAMAGED:
            raise BadContent(f"the image is damaged on the way to {want.path!a}") from error
        raise Unavailable(f"{want.path!a} cannot be read: {error.strerror}") from error


def _refused(reason: str, text: str, path: str, limit: int = 0) -> BadContent:
    """The very error that the readers raise."""
    from unikeel.boot.readers.contract import PathError, PathReason
    from unikeel.boot.readers.walk import shown

    return PathError(PathReason[reason], text.format(shown(path), limit))
