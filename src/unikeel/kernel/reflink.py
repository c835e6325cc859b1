"""Files that share blocks: FICLONE and the extent map that tells which blocks are shared.

Sources: ioctl_ficlone(2); the kernel's ``Documentation/filesystems/fiemap.rst``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from unikeel.errors import BadContent, Unavailable
from unikeel.lean import Final

_FICLONE: Final = 0x40049409
_FS_IOC_FIEMAP: Final = 0xC020660B

_HEADER: Final = struct.Struct("=QQIIII")  # start, length, flags, mapped extents, extent count, reserved
_EXTENT: Final = struct.Struct("=QQQQQIIII")  # logical, physical, length, 2 reserved, flags, 3 reserved
_EXTENT_LAST: Final = 0x0001
_EXTENT_SHARED: Final = 0x2000
_EXTENTS_PER_CALL: Final = 512
_MAX_CALLS: Final = 1 << 15

#: What the kernel answers where these two files cannot share blocks, although copying them would work.
_NOT_HERE: Final = frozenset(
    {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.EPERM, errno.ETXTBSY, errno.ENOSYS}
)


def clone_file(source: int, target: int) -> None:
    """Make the file behind descriptor ``target`` share all blocks of ``source`` (same size, copied on write).

    :raise Unavailable: the file system does not do this, or not between these two.
    :raise OSError: anything else, such as no space.
    """
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        raise Unavailable(f"this file system cannot share blocks between files: {os.strerror(error.errno)}") from error


def shared_bytes(fd: int) -> int:
    """How many bytes of a file lie in blocks that other files use, too. What was not yet written out counts as not shared.

    :raise Unavailable: the file system has no extent map.
    :raise BadContent: the file has more than 16 million extents.
    """
    start, total = 0, 0
    for _ in range(_MAX_CALLS):
        extents = _extents(fd, start)
        total += sum(length for _, length, flags in extents if flags & _EXTENT_SHARED)
        if not extents or extents[-1][2] & _EXTENT_LAST:
            return total
        start = extents[-1][0] + extents[-1][1]
    raise BadContent(f"the file of descriptor {fd} is in more than {_MAX_CALLS * _EXTENTS_PER_CALL} pieces")


def _extents(fd: int, start: int) -> list[tuple[int, int, int]]:
    """The next extents from an offset on, as (offset, length, flags)."""
    buffer = bytearray(_HEADER.size + _EXTENTS_PER_CALL * _EXTENT.size)
    _HEADER.pack_into(buffer, 0, start, (1 << 64) - 1 - start, 0, 0, _EXTENTS_PER_CALL, 0)
    try:
        fcntl.ioctl(fd, _FS_IOC_FIEMAP, buffer)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        raise Unavailable(f"this file system does not tell a file's extents: {os.strerror(error.errno)}") from error
    mapped = min(_HEADER.unpack_from(buffer)[3], _EXTENTS_PER_CALL)
    rows = (_EXTENT.unpack_from(buffer, _HEADER.size + index * _EXTENT.size) for index in range(mapped))
    return [(row[0], row[2], row[5]) for row in rows]
