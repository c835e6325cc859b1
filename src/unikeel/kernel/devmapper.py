"""Device-mapper's own answer to what a device is: its table, read by ioctl(2), without any program. Needs CAP_SYS_ADMIN.

Facts: the kernel's include/uapi/linux/dm-ioctl.h.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final, NamedTuple

from unikeel.errors import FailedPrecondition
from unikeel.kernel.fd import OwnedFd

_CONTROL: Final = "/dev/mapper/control"
#: struct dm_ioctl: version, sizes, counts, flags, event, padding; the device; name and uuid.
_HEADER: Final = struct.Struct("=3I I I I i I I I Q 128s 129s 7s")
#: struct dm_target_spec.
_TARGET: Final = struct.Struct("=Q Q i I 16s")
_TABLE_STATUS: Final = 0xC138FD0C
_VERSION: Final = (4, 0, 0)
_STATUS_TABLE: Final = 1 << 4
_NO_FLUSH: Final = 1 << 11
_BUFFER_FULL: Final = 1 << 8
_ROOM: Final = 16 << 10
_SECTOR: Final = 512


class Target(NamedTuple):
    """One line of a table: bytes from ``start`` on, ``length`` of them, are this."""

    start: int
    length: int
    kind: str
    parameters: str


def table(major: int, minor: int) -> tuple[Target, ...]:
    """The table of a device. :raise FailedPrecondition: it is none of device-mapper's, or that cannot be asked."""
    # As the kernel writes a device number of 64 bits.
    number = (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12
    flags = _STATUS_TABLE | _NO_FLUSH
    buffer = bytearray(_ROOM)
    _HEADER.pack_into(buffer, 0, *_VERSION, _ROOM, _HEADER.size, 0, 0, flags, 0, 0, number, b"", b"", b"")
    try:
        with OwnedFd(os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)) as control:
            fcntl.ioctl(control.fileno(), _TABLE_STATUS, buffer)
    except OSError as error:
        raise FailedPrecondition(
            f"device-mapper does not say what device {major}:{minor} is: {error.strerror}"
        ) from None
    fields = _HEADER.unpack_from(buffer)
    begin, count, answered = fields[4], fields[5], fields[7]
    if answered & _BUFFER_FULL:
        raise FailedPrecondition(f"the table of device {major}:{minor} is too long")
    return parse(bytes(buffer[begin:]), count)


def parse(data: bytes, count: int) -> tuple[Target, ...]:
    """The targets in an answer; what follows each says where the next one begins. :raise FailedPrecondition: it is cut short."""
    found, at = [], 0
    try:
        for _ in range(count):
            start, length, _, following, kind = _TARGET.unpack_from(data, at)
            end = data.index(0, at + _TARGET.size)
            text = data[at + _TARGET.size : end].decode(errors="replace")
            found.append(Target(start * _SECTOR, length * _SECTOR, kind.rstrip(b"\0").decode(errors="replace"), text))
            at = following
    except (struct.error, ValueError):
        raise FailedPrecondition("device-mapper's answer is cut short") from None
    return tuple(found)
