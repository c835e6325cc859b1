"""The thin devices of one pool: made, shown to the host, hidden again, sealed and deleted, each by its number.

A device is *active* when the host has a block device of it. To make one active or inactive may be done again and again, by several processes: what a killed
one left half done is finished by the next. Nothing here knows of records; that a record is written before is the callers' matter.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from unikeel.errors import FailedPrecondition, NotFound
from unikeel.kernel import block
from unikeel.kernel.devmapper import Control, Info, Target, nodes, thin, udev
from unikeel.lean import Final
from unikeel.records.failpoint import failpoint
from unikeel.snapshots.thin.contents import thin_numbers
from unikeel.snapshots.thin.locks import DeviceLocks
from unikeel.snapshots.thin.reference import IDENTITY_ID, ThinPoolRef

#: The table of a device whose content is not there yet.
_NOTHING: Final = (Target(0, 512, "error", ""),)
_ABSENT: Final = frozenset({errno.ENODATA, errno.ENODEV, errno.ENOENT})


class ThinDevices:
    """The devices of an active pool. :param lock_file: orders those who make devices active or inactive.

    Methods raise ``OSError`` with the kernel's number, and :class:`~unikeel.errors.NotFound` if the pool itself is gone.

    :raise Unavailable: the host has no device-mapper.
    """

    def __init__(self, pool: ThinPoolRef, lock_file: str) -> None:
        self.pool = pool
        self._control = Control()
        try:
            self._locks = DeviceLocks(lock_file)
        except BaseException:
            self._control.close()
            raise
        udev.tell()

    def close(self) -> None:
        """Let go of everything; devices stay as they are. Closing twice is fine."""
        self._control.close()
        self._locks.close()

    # --- what is in the pool ------------------------------------------------------------------------------------------------

    def create(self, number: int) -> None:
        """Make an empty thin device, inactive. :raise OSError: EEXIST: there is one of this number."""
        self._control.message(self.pool.dm_name, thin.create_thin(number))

    def snapshot(self, number: int, origin: int) -> None:
        """Make a snapshot of a device, inactive. If the host could write to that one, it rests meanwhile. Errors as :meth:`create`."""
        info = self._control.info(self.pool.thin_name(origin))
        if info is None or info.read_only or not info.live:
            self._control.message(self.pool.dm_name, thin.create_snap(number, origin))
            return
        with self._locks.hold(origin), self._resting(origin):
            self._control.message(self.pool.dm_name, thin.create_snap(number, origin))

    @contextmanager
    def _resting(self, number: int) -> Iterator[None]:
        """No I/O reaches a device, and a mounted file system on it is clean. What a kill leaves suspended is resumed when it is next wanted."""
        name = self.pool.thin_name(number)
        self._control.suspend(name)
        try:
            failpoint("thin.origin.suspended")
            yield
        finally:
            self._control.resume(name)

    def delete(self, number: int) -> bool:
        """Delete an inactive device; that there is none is fine. False: it is still in use, if only for a moment."""
        try:
            self._control.message(self.pool.dm_name, thin.delete(number))
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            if error.errno not in _ABSENT:
                raise
        return True

    def status(self) -> thin.PoolStatus:
        """What the pool says of itself. :raise BadContent: nothing that can be read."""
        return thin.pool_status(self._control.status(self.pool.dm_name))

    def numbers(self) -> set[int]:
        """The numbers of all devices in the pool, as its metadata has them."""
        with self.alone(IDENTITY_ID):
            return thin_numbers(self._control, self.pool)

    @contextmanager
    def alone(self, number: int) -> Iterator[None]:
        """Nobody else in this block for this number, which is no snapshot's."""
        with self._locks.hold(number):
            yield

    # --- what the host sees -------------------------------------------------------------------------------------------------

    def stage(self, number: int) -> bool:
        """Have the kernel add the disk of a device that nobody knows yet, which takes longest about showing it and may be done while the pool makes the device; whether
        there is one now. Its table gives errors, and is never put in use.
        """
        name = self.pool.thin_name(number)
        try:
            self._control.create(name, self.pool.thin_uuid(number))
        except OSError:  # whatever it is, it is said when the device is shown
            return False
        failpoint("thin.device.created")
        with suppress(OSError):
            self._control.load(name, _NOTHING)
        failpoint("thin.device.staged")
        return True

    def unstage(self, number: int) -> None:
        """Undo :meth:`stage`."""
        with suppress(NotFound):
            self._control.remove(self.pool.thin_name(number))

    def show_new(self, number: int, size: int, *, staged: bool = False) -> str:
        """Make a device active that nobody else knows yet, for writing; its path. :param staged: what :meth:`stage` said."""
        name = self.pool.thin_name(number)
        if not staged:
            try:
                self._control.create(name, self.pool.thin_uuid(number))
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                return self.show(number, size, read_only=False)  # somebody's leftover of the same number
            failpoint("thin.device.created")
        self._control.load(name, thin.thin_table(self.pool.device, number, size))
        failpoint("thin.device.loaded")
        info = self._control.resume(name)
        failpoint("thin.device.resumed")
        return nodes.ensure(info)

    def show(self, number: int, size: int, *, read_only: bool) -> str:
        """Make a device active, if it is not; its path. For writing one that was sealed, see :meth:`unseal`.

        :raise FailedPrecondition: a foreign device has its name. :raise OSError: ENODATA: the pool has no device of this number.
        """
        name = self.pool.thin_name(number)
        is_named = nodes.touch(name)  # before it is looked at, see :meth:`rest`
        info = self._control.info(name)
        if not is_named or info is None or not info.live or info.suspended or (read_only and not info.read_only):
            with self._locks.hold(number):
                info = self._shown(number, size, read_only=read_only)
        self._check(info, number)
        return nodes.ensure(info)

    def _shown(self, number: int, size: int, *, read_only: bool) -> Info:
        name = self.pool.thin_name(number)
        info = self._control.info(name)
        if info is None:
            info = self._control.create(name, self.pool.thin_uuid(number))
            failpoint("thin.device.created")
        self._check(info, number)
        if not info.live:
            try:
                self._control.load(name, thin.thin_table(self.pool.device, number, size), read_only=read_only)
            except OSError:
                self._control.remove(name)
                raise
            failpoint("thin.device.loaded")
            info = self._control.resume(name)
        elif info.suspended:
            info = self._control.resume(name)
        if read_only and not info.read_only:
            with self._opened(info, os.O_RDONLY) as fd:
                block.set_read_only(fd, on=True)
        return info

    def _check(self, info: Info, number: int) -> None:
        if info.uuid != self.pool.thin_uuid(number):
            raise FailedPrecondition(
                f"the device {info.name} is not of the pool {self.pool.name!r} of this store: its UUID is {info.uuid!r}",
                "rename or remove that device",
            )

    def hide(self, number: int) -> bool:
        """Make a device inactive: its name goes first, then the device. Whether it is gone; if not, somebody holds it, and it goes with that one."""
        name = self.pool.thin_name(number)
        with self._locks.hold(number):
            if self._control.info(name) is None:
                nodes.remove(name)
                return True
            nodes.remove(name)
            failpoint("thin.device.unnamed")
            with suppress(NotFound):
                try:
                    self._control.remove(name)
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        raise
                    self._control.remove(name, deferred=True)
                    return self._control.info(name) is None
            return True

    def rest(self, number: int, seconds: float) -> bool:
        """Make a device inactive that nobody has open, and that nobody was shown for so many seconds; whether it is gone. It comes back when it is shown."""
        name = self.pool.thin_name(number)
        with self._locks.hold(number):
            info = self._control.info(name)
            if info is None or info.open_count or not nodes.withdraw(name, seconds):
                return False
            failpoint("thin.device.unnamed")
            try:
                self._control.remove(name)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                nodes.ensure(info)
                return False
            return True

    def active(self) -> set[int]:
        """The numbers of all devices of this pool that device-mapper has a name for, active or half made."""
        numbers = (self.pool.number_of(name) for name in self._control.names())
        return {number for number in numbers if number is not None}

    def is_ready(self, number: int) -> bool:
        """Whether a device is active and may be written to."""
        info = self._control.info(self.pool.thin_name(number))
        return info is not None and info.live and not info.suspended and not info.read_only

    def wake(self, number: int) -> bool:
        """Resume a device that was left suspended; whether it was."""
        name = self.pool.thin_name(number)
        with self._locks.hold(number):
            info = self._control.info(name)
            if info is None or not info.suspended or not info.live:
                return False
            self._control.resume(name)
            return True

    # --- an active device ---------------------------------------------------------------------------------------------------

    def mapped(self, number: int) -> int:
        """How many bytes of an active device are in the pool, its own and shared ones."""
        return thin.mapped_bytes(self._control.status(self.pool.thin_name(number)))

    def opened_alone(self, number: int) -> int:
        """A descriptor of an active device for writing, while nobody has it mounted or for a guest. :raise OSError: EBUSY: somebody has."""
        path = nodes.path(self.pool.thin_name(number))
        fd = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
        try:
            self._check(self._info_of(fd, number), number)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _info_of(self, fd: int, number: int) -> Info:
        """What is said of an open device, which must be the one of this number."""
        info = self._control.info(self.pool.thin_name(number))
        if info is None or os.fstat(fd).st_rdev != os.makedev(info.major, info.minor):
            raise FailedPrecondition(
                f"{nodes.path(self.pool.thin_name(number))} is another device than its name says",
                "run `unikeel pool status`",
            )
        return info

    def unseal(self, number: int) -> None:
        """Let the host write to an active device that was made read-only, as after a commit that did not happen."""
        info = self._control.info(self.pool.thin_name(number))
        if info is not None and info.read_only:
            with self._opened(info, os.O_RDONLY) as fd:
                block.set_read_only(fd, on=False)

    def is_sealed(self, number: int) -> bool:
        """Whether a device is active and the host may not write to it."""
        info = self._control.info(self.pool.thin_name(number))
        return info is not None and info.live and info.read_only

    @contextmanager
    def _opened(self, info: Info, flags: int) -> Iterator[int]:
        fd = os.open(nodes.ensure(info), flags | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_rdev != os.makedev(info.major, info.minor):
                raise FailedPrecondition(f"{nodes.path(info.name)} became another device while it was opened")
            yield fd
        finally:
            os.close(fd)
