"""Block devices: their size, and what they may be used for. Source: the kernel's ``include/uapi/linux/fs.h``. Needs CAP_SYS_ADMIN for changing anything."""

from __future__ import annotations

import fcntl
import struct

from unikeel.lean import Final

_SET_READ_ONLY: Final = 0x125D
_GET_READ_ONLY: Final = 0x125E
_GET_SIZE64: Final = 0x80081272
_DISCARD: Final = 0x1277
_FORGET_CACHE: Final = 0x1261
_INT: Final = struct.Struct("i")


def size(fd: int) -> int:
    """A device's size in bytes."""
    return int(struct.unpack("Q", fcntl.ioctl(fd, _GET_SIZE64, bytes(8)))[0])


def set_read_only(fd: int, *, on: bool) -> None:
    """Make the kernel refuse to write to a device (EPERM for those that have it open, too), or allow it again. Forgotten with the device."""
    fcntl.ioctl(fd, _SET_READ_ONLY, _INT.pack(on))


def is_read_only(fd: int) -> bool:
    """Whether the kernel refuses to write to a device."""
    return bool(_INT.unpack(fcntl.ioctl(fd, _GET_READ_ONLY, bytes(_INT.size)))[0])


def discard(fd: int, start: int, length: int) -> None:
    """Give bytes back that nobody needs. :raise OSError: EOPNOTSUPP: the device has no use for that."""
    fcntl.ioctl(fd, _DISCARD, struct.pack("QQ", start, length))


def forget_cache(fd: int) -> None:
    """Write out and forget what is cached of a device's content."""
    fcntl.ioctl(fd, _FORGET_CACHE, 0)
