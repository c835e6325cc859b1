"""Device-mapper's ioctl protocol as bytes: ``struct dm_ioctl``, and the targets, names and texts that follow it.

Source: the kernel's ``include/uapi/linux/dm-ioctl.h``. Answers come from the kernel, and are read with bounds all the same.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator

from unikeel.errors import FailedPrecondition, InvalidArgument
from unikeel.lean import Final
from unikeel.values import NamedTuple

#: struct dm_ioctl: version, sizes, counts, flags, event, padding; the device; name and uuid.
HEADER: Final = struct.Struct("=3I I I I i I I I Q 128s 129s 7s")
#: struct dm_target_spec.
_TARGET: Final = struct.Struct("=Q Q i I 16s")
#: struct dm_name_list: the device, and where the next one begins.
_NAME: Final = struct.Struct("=Q I")
_SECTOR_OF_MESSAGE: Final = struct.Struct("=Q")
_VERSION: Final = (4, 0, 0)
_IOWR: Final = 0xC138FD00
SECTOR: Final = 512
#: A request that fits in this is made without holding Python's interpreter lock: ``fcntl.ioctl`` copies it.
SMALL: Final = 1024
_LONGEST_NAME: Final = 127
_LONGEST_UUID: Final = 128


class Command(enum.IntEnum):
    """What is asked of the kernel."""

    LIST_DEVICES = _IOWR + 2
    DEV_CREATE = _IOWR + 3
    DEV_REMOVE = _IOWR + 4
    DEV_SUSPEND = _IOWR + 6
    DEV_STATUS = _IOWR + 7
    TABLE_LOAD = _IOWR + 9
    TABLE_STATUS = _IOWR + 12
    TARGET_MSG = _IOWR + 14


class Flag(enum.IntFlag):
    """The flags of a request and of an answer."""

    READ_ONLY = 1 << 0
    SUSPEND = 1 << 1
    STATUS_TABLE = 1 << 4
    ACTIVE_PRESENT = 1 << 5
    INACTIVE_PRESENT = 1 << 6
    BUFFER_FULL = 1 << 8
    SKIP_LOCKFS = 1 << 10
    NO_FLUSH = 1 << 11
    DATA_OUT = 1 << 16
    DEFERRED_REMOVE = 1 << 17


class Target(NamedTuple):
    """One line of a table: bytes from ``start`` on, ``length`` of them, are this."""

    start: int
    length: int
    kind: str
    parameters: str


class Info(NamedTuple):
    """What device-mapper says of a device.

    :ivar open_count: descriptors and mounts that hold it. :ivar live: it has a table in use. :ivar waiting: a table was loaded and not yet put in use.
    """

    name: str
    uuid: str
    major: int
    minor: int
    open_count: int
    live: bool
    waiting: bool
    suspended: bool
    read_only: bool
    deferred_remove: bool


def request(
    size: int,
    *,
    name: str = "",
    uuid: str = "",
    number: int = 0,
    flags: Flag = Flag(0),  # noqa: B008 - a value
    event: int = 0,
    targets: int = 0,
    data: bytes = b"",
) -> bytearray:
    """A request with room for an answer, ``size`` bytes in all (more, if the data need it). The device is named by one of name, uuid and number, or,
    to make one, by name and uuid.

    :raise InvalidArgument: a name or uuid is too long, is not ASCII or has a NUL.
    """
    buffer = bytearray(max(size, HEADER.size + len(data)))
    encoded = _text(name, _LONGEST_NAME), _text(uuid, _LONGEST_UUID)
    fields = (len(buffer), HEADER.size, targets, 0, flags, event, 0, number)
    HEADER.pack_into(buffer, 0, *_VERSION, *fields, *encoded, b"")
    buffer[HEADER.size : HEADER.size + len(data)] = data
    return buffer


def _text(text: str, longest: int) -> bytes:
    if len(text) > longest or not text.isascii() or "\0" in text:
        raise InvalidArgument(f"device-mapper cannot call a device {text[:160]!r}")
    return text.encode("ascii")


def flags_of(answer: bytes | bytearray) -> Flag:
    """The flags of an answer."""
    return Flag(HEADER.unpack_from(answer)[7])


def info_of(answer: bytes | bytearray) -> Info:
    """The device that an answer is about."""
    fields = HEADER.unpack_from(answer)
    opened, flags, number, name, uuid = fields[6], Flag(fields[7]), fields[10], fields[11], fields[12]
    return Info(
        _until_nul(name),
        _until_nul(uuid),
        *_numbers(number),
        opened,
        live=bool(flags & Flag.ACTIVE_PRESENT),
        waiting=bool(flags & Flag.INACTIVE_PRESENT),
        suspended=bool(flags & Flag.SUSPEND),
        read_only=bool(flags & Flag.READ_ONLY),
        deferred_remove=bool(flags & Flag.DEFERRED_REMOVE),
    )


def device_number(major: int, minor: int) -> int:
    """A device number of 64 bits as the kernel writes it."""
    return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12


def _numbers(number: int) -> tuple[int, int]:
    return number >> 8 & 0xFFF, number & 0xFF | number >> 12 & ~0xFF & 0xFFFFFFFF


def _until_nul(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode(errors="replace")


def table_of(targets: Iterable[Target]) -> tuple[int, bytes]:
    """A table as a request carries it: how many targets, and their bytes. :raise InvalidArgument: a size is no whole number of sectors."""
    pieces = []
    for target in targets:
        if target.start % SECTOR or target.length % SECTOR:
            raise InvalidArgument(f"a table's parts are whole sectors of {SECTOR} bytes, not {target.length} bytes")
        text = target.parameters.encode("ascii") + b"\0"
        text += bytes(-(_TARGET.size + len(text)) % 8)
        following = _TARGET.size + len(text)
        pieces.append(
            _TARGET.pack(target.start // SECTOR, target.length // SECTOR, 0, following, target.kind.encode()) + text
        )
    return len(pieces), b"".join(pieces)


def parse(data: bytes, count: int) -> tuple[Target, ...]:
    """The targets in an answer; what follows each says where the next one begins. :raise FailedPrecondition: it is cut short."""
    found, at = [], 0
    try:
        for _ in range(count):
            start, length, _, following, kind = _TARGET.unpack_from(data, at)
            end = data.index(0, at + _TARGET.size)
            text = data[at + _TARGET.size : end].decode(errors="replace")
            found.append(Target(start * SECTOR, length * SECTOR, kind.rstrip(b"\0").decode(errors="replace"), text))
            at = following
    except (struct.error, ValueError):
        raise FailedPrecondition("device-mapper's answer is cut short") from None
    return tuple(found)


def targets_of(answer: bytes | bytearray) -> tuple[Target, ...]:
    """The targets in a whole answer to TABLE_STATUS: of the table or of each one's status, as was asked."""
    fields = HEADER.unpack_from(answer)
    return parse(bytes(answer[fields[4] :]), fields[5])


def message_to(text: str, sector: int = 0) -> bytes:
    """A message to the target at a sector, as a request carries it. :raise InvalidArgument: it is not plain text."""
    if not text.isascii() or "\0" in text:
        raise InvalidArgument(f"device-mapper cannot be told {text[:160]!r}")
    return _SECTOR_OF_MESSAGE.pack(sector) + text.encode("ascii") + b"\0"


def text_of(answer: bytes | bytearray) -> str:
    """What a target answered to a message; empty if nothing."""
    if not flags_of(answer) & Flag.DATA_OUT:
        return ""
    begin = HEADER.unpack_from(answer)[4]
    return _until_nul(bytes(answer[begin:]))


def names_of(answer: bytes | bytearray) -> Iterator[tuple[str, int, int]]:
    """Name, major and minor of every device in an answer to LIST_DEVICES. :raise FailedPrecondition: it is cut short."""
    at = HEADER.unpack_from(answer)[4]
    try:
        while at + _NAME.size < len(answer):
            number, following = _NAME.unpack_from(answer, at)
            if number == 0:  # there is no device at all
                return
            end = answer.index(0, at + _NAME.size)
            yield bytes(answer[at + _NAME.size : end]).decode(errors="replace"), *_numbers(number)
            if following == 0:
                return
            at += following
    except (struct.error, ValueError):
        raise FailedPrecondition("device-mapper's answer is cut short") from None
