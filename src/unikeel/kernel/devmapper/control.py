"""Devices of device-mapper: made, given a table, resumed, suspended, removed, told and asked something.

A :class:`Control` may be used by many threads at once; the kernel takes turns where it must. Small requests are made without holding the interpreter's lock.

udev is told to leave our devices alone, by its rules (:mod:`.udev`) or by the flags that libdevmapper puts into the upper half of the event number, and is not
waited for: an answer means that the kernel is ready.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable
from types import TracebackType

from unikeel.errors import FailedPrecondition, NotFound, Unavailable
from unikeel.kernel.devmapper import udev, wire
from unikeel.kernel.devmapper.wire import SMALL, Command, Flag, Info, Target
from unikeel.kernel.fd import OwnedFd
from unikeel.lean import Final, Self

_CONTROL: Final = "/dev/mapper/control"
_ROOM: Final = 16 << 10
_LARGEST_ROOM: Final = 16 << 20

#: What udev's rules for device-mapper look at: this is a genuine event of a device whose rules, subsystem's rules, disk rules and other rules are off.
_LEFT_ALONE: Final = (0x0001 | 0x0002 | 0x0004 | 0x0008 | 0x0020 | 0x0040) << 16


class Control:
    """Device-mapper's door; a context manager.

    Every method that names a device raises :class:`NotFound` if there is none of the name, and ``OSError`` with the kernel's number for what else it refuses.

    :raise Unavailable: the host has no device-mapper, or this process may not use it.
    """

    def __init__(self) -> None:
        try:
            self._fd = OwnedFd(os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            raise Unavailable(
                f"no device-mapper: {_CONTROL}: {error.strerror}", "load the driver (modprobe dm_mod), and be root"
            ) from error
        self._udev_knows = False

    def create(self, name: str, uuid: str) -> Info:
        """A new device without a table. :raise OSError: EBUSY: the name or the uuid is taken."""
        return wire.info_of(self._ask(Command.DEV_CREATE, wire.request(SMALL, name=name, uuid=uuid)))

    def load(self, name: str, targets: Iterable[Target], *, read_only: bool = False) -> Info:
        """Give a device a table, which :meth:`resume` puts in use."""
        count, data = wire.table_of(targets)
        flags = Flag.READ_ONLY if read_only else Flag(0)
        request = wire.request(SMALL, name=name, flags=flags, targets=count, data=data)
        return wire.info_of(self._ask(Command.TABLE_LOAD, request))

    def resume(self, name: str) -> Info:
        """Put the loaded table in use, if there is one, and let I/O go on."""
        return wire.info_of(self._ask(Command.DEV_SUSPEND, wire.request(SMALL, name=name, event=self._event())))

    def suspend(self, name: str, *, lock_fs: bool = True, flush: bool = True) -> Info:
        """Let the I/O that is under way end and hold back what comes. :param lock_fs: have a mounted file system write out what it has, and rest."""
        flags = (Flag(0) if lock_fs else Flag.SKIP_LOCKFS) | (Flag(0) if flush else Flag.NO_FLUSH)
        return wire.info_of(self._ask(Command.DEV_SUSPEND, wire.request(SMALL, name=name, flags=flags | Flag.SUSPEND)))

    def remove(self, name: str, *, deferred: bool = False) -> None:
        """Take a device away. :param deferred: if somebody holds it, once nobody does. :raise OSError: EBUSY: somebody holds it."""
        flags = Flag.DEFERRED_REMOVE if deferred else Flag(0)
        self._ask(Command.DEV_REMOVE, wire.request(SMALL, name=name, flags=flags, event=self._event()))

    def message(self, name: str, text: str) -> str:
        """Tell a device's first target something; what it answers."""
        return wire.text_of(self._ask(Command.TARGET_MSG, wire.request(SMALL, name=name, data=wire.message_to(text))))

    def info(self, name: str) -> Info | None:
        """What is said of a device; None: there is none of this name."""
        try:
            return wire.info_of(self._ask(Command.DEV_STATUS, wire.request(SMALL, name=name)))
        except NotFound:
            return None

    def status(self, name: str, *, flush: bool = False) -> tuple[Target, ...]:
        """The status of each target, in the place of its parameters. :param flush: let a thin pool commit before it answers."""
        return self._targets(name, Flag(0) if flush else Flag.NO_FLUSH)

    def table(self, name: str) -> tuple[Target, ...]:
        """The table in use."""
        return self._targets(name, Flag.STATUS_TABLE | Flag.NO_FLUSH)

    def _event(self) -> int:
        """What the next event is to say to udev: nothing, once it has our rules."""
        if not self._udev_knows:
            self._udev_knows = udev.knows()
        return 0 if self._udev_knows else _LEFT_ALONE

    def _targets(self, name: str, flags: Flag) -> tuple[Target, ...]:
        room = SMALL
        while True:
            answer = self._ask(Command.TABLE_STATUS, wire.request(room, name=name, flags=flags))
            if not wire.flags_of(answer) & Flag.BUFFER_FULL:
                return wire.targets_of(answer)
            room = self._more(room, f"what device {name} is")

    def names(self) -> dict[str, tuple[int, int]]:
        """The names of all devices, and their major and minor numbers."""
        room = _ROOM
        while True:
            answer = self._ask(Command.LIST_DEVICES, wire.request(room))
            if not wire.flags_of(answer) & Flag.BUFFER_FULL:
                return {name: (major, minor) for name, major, minor in wire.names_of(answer)}
            room = self._more(room, "the list of devices")

    def _more(self, room: int, what: str) -> int:
        if room >= _LARGEST_ROOM:
            raise FailedPrecondition(f"device-mapper's answer is too long: {what}")
        return room * 8

    def _ask(self, command: Command, request: bytearray) -> bytearray:
        try:
            fcntl.ioctl(self._fd.fileno(), command, request)
        except OSError as error:
            if error.errno == errno.ENXIO:
                name = wire.info_of(request).name
                raise NotFound(f"device-mapper has no device {name!r}") from None
            raise
        return request

    def close(self) -> None:
        """Let go of it. Closing twice is fine."""
        self._fd.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def table(major: int, minor: int) -> tuple[Target, ...]:
    """The table of a device of any name. :raise FailedPrecondition: it is none of device-mapper's, or that cannot be asked."""
    request = wire.request(_ROOM, number=wire.device_number(major, minor), flags=Flag.STATUS_TABLE | Flag.NO_FLUSH)
    try:
        with OwnedFd(os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)) as control:
            fcntl.ioctl(control.fileno(), Command.TABLE_STATUS, request)
    except OSError as error:
        raise FailedPrecondition(
            f"device-mapper does not say what device {major}:{minor} is: {error.strerror}"
        ) from None
    if wire.flags_of(request) & Flag.BUFFER_FULL:
        raise FailedPrecondition(f"the table of device {major}:{minor} is too long")
    return wire.targets_of(request)
