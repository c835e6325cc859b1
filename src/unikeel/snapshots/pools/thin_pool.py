"""Pools of the kind ``thin``: device-mapper's thin provisioning, on block devices or, for trials, in files of ours."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

from unikeel.errors import BadContent, FailedPrecondition, Unavailable
from unikeel.kernel.devmapper import Control, Info, Target, nodes, thin, udev
from unikeel.kernel.fd import OwnedFd, open_path
from unikeel.lean import Final
from unikeel.records.failpoint import failpoint
from unikeel.snapshots.image_files import translated
from unikeel.snapshots.pools import backing
from unikeel.snapshots.pools.definition import Pool, PoolState
from unikeel.snapshots.pools.devices import open_alone
from unikeel.snapshots.pools.planning import MOST_METADATA, pool_table
from unikeel.snapshots.pools.registry import Registry
from unikeel.snapshots.pools.thin_metadata import BLOCK, Details, MetadataDevice, is_superblock
from unikeel.snapshots.pools.watching import Fill, PoolFill
from unikeel.snapshots.thin.identity import read_identity, write_identity
from unikeel.snapshots.thin.locks import DeviceLocks, lock_file
from unikeel.snapshots.thin.reference import IDENTITY_ID, ThinPoolRef, pool_ref

#: What of a device's beginning is overwritten before it becomes a pool's, so that nobody finds there what it was.
_HEAD: Final = 128 << 10


class PoolRefused(Unavailable):
    """The kernel does not take a pool's devices, which are there."""


class _Parts:
    """The devices that a pool is made of, open, so that a loop device stays until the pool holds it. As MAJOR:MINOR; sizes in bytes."""

    def __init__(self, data: int, metadata: int) -> None:
        self.data, self.metadata = _number(data), _number(metadata)
        self.data_size, self.metadata_size = (os.lseek(fd, 0, os.SEEK_END) for fd in (data, metadata))


def _number(fd: int) -> str:
    device = os.fstat(fd).st_rdev
    return f"{os.major(device)}:{os.minor(device)}"


class ThinPool:
    """One pool of the kind ``thin``. :ivar metadata: the device or file of its metadata."""

    def __init__(self, registry: Registry, pool: Pool) -> None:
        self.pool = pool
        self._place = registry.place(pool.name)
        self._locks = lock_file(registry.database, pool.name)
        self._data = pool.data or registry.data_file(pool.name)
        self.metadata = pool.metadata or registry.metadata_file(pool.name)

    @property
    def directory(self) -> str:
        """None."""
        return ""

    @property
    def ref(self) -> ThinPoolRef:
        """The pool as a store knows it."""
        return pool_ref(self.pool.name, self.pool.uuid)

    def beside(self, name: str) -> str:
        """A file beside the pool's definition, gone with the pool."""
        return os.path.join(self._place, name)

    # --- making -----------------------------------------------------------------------------------------------------------

    def make(self) -> None:
        """Overwrite the devices' beginnings or make the files; activate it; write its identity into it."""
        Control().close()  # before any room is taken
        self._ensure_files()
        if not self.pool.on_files:
            with translated(f"overwrite the devices of pool {self.pool.name!r}"):
                for path in (self.metadata, self._data):
                    _overwrite(path, _HEAD)
        failpoint("pools.thin.blank")
        self._start()
        write_identity(self.ref)
        failpoint("pools.thin.identified")

    def _ensure_files(self) -> None:
        if not self.pool.on_files:
            return
        for path, size in ((self._data, self.pool.size), (self.metadata, self.pool.metadata_size)):
            if backing.ensure_file(path, size, sparse=self.pool.sparse):
                backing.measure_again(path)

    @contextmanager
    def _parts(self) -> Iterator[_Parts]:
        """The devices, open. :raise BadContent: one is missing."""
        with ExitStack() as stack:
            if self.pool.on_files:
                fds = [stack.enter_context(backing.attach(path).fd) for path in (self._data, self.metadata)]
            else:
                fds = [stack.enter_context(_open_device(path)) for path in (self._data, self.metadata)]
            yield _Parts(*(fd.fileno() for fd in fds))

    # --- activating -------------------------------------------------------------------------------------------------------

    def is_active(self) -> bool:
        """Whether device-mapper has it. :raise FailedPrecondition: another pool has its name."""
        with _control() as control:
            info = self._info(control) if control else None
        return info is not None and info.live and not info.suspended

    def _info(self, control: Control) -> Info | None:
        info = control.info(self.pool.device_name)
        if info is not None and info.uuid != self.pool.device_uuid:
            raise FailedPrecondition(
                f"device-mapper has another device {self.pool.device_name} (of uuid {info.uuid or 'none'})",
                "another state root has a pool of this name: call this one something else",
            )
        return info

    def activate(self) -> None:
        """Give device-mapper the pool, or make it as large as its devices are by now.

        :raise BadContent: the devices hold another pool, or none.
        """
        self._ensure_files()
        self._start()

    def _start(self) -> None:
        with translated(f"activate pool {self.pool.name!r}"), Control() as control, self._parts() as parts:
            info = self._info(control)
            if info is not None and info.live:
                self._adapt(control, parts, info)
                nodes.ensure(info)
                return
            self._check_superblock()
            udev.tell()
            failpoint("pools.thin.attached")
            if info is None:
                control.create(self.pool.device_name, self.pool.device_uuid)
            failpoint("pools.thin.created")
            self._load(control, parts)
            nodes.ensure(control.resume(self.pool.device_name))
            failpoint("pools.thin.active")
        if self.pool.state is PoolState.READY:
            self._check_identity()

    def _load(self, control: Control, parts: _Parts) -> None:
        try:
            control.load(self.pool.device_name, self._table(parts))
        except OSError as error:
            control.remove(self.pool.device_name)
            raise PoolRefused(
                f"the kernel does not take the devices of pool {self.pool.name!r}: {os.strerror(error.errno or 0)}",
                f"its metadata may be damaged: unikeel pool check {self.pool.name}",
            ) from error

    def _table(self, parts: _Parts) -> tuple[Target, ...]:
        passing = not self.pool.on_files or self.pool.sparse
        return pool_table(parts.metadata, parts.data, parts.data_size, self.pool.block_size, pass_discards=passing)

    def _adapt(self, control: Control, parts: _Parts, info: Info) -> None:
        """Have an active pool see that its devices grew, and go on if somebody was killed while it stood still."""
        wanted, name = self._table(parts), self.pool.device_name
        status = thin.pool_status(control.status(name))
        metadata = min(parts.metadata_size, MOST_METADATA) // thin.METADATA_BLOCK
        larger = wanted[0].length > control.table(name)[0].length or metadata > status.total_metadata > 0
        if larger:
            control.load(name, wanted)
            failpoint("pools.grow.loaded")
            control.suspend(name, lock_fs=False)
            failpoint("pools.grow.suspended")
        if larger or info.suspended:
            control.resume(name)

    def _check_superblock(self) -> None:
        """Device-mapper makes a new pool of a metadata device that is blank: only of those that we made blank."""
        if self.pool.state is PoolState.CREATING:
            return
        with MetadataDevice(self.metadata) as device:
            self._check_magic(device)

    def _check_magic(self, device: MetadataDevice) -> None:
        if not is_superblock(device.read(0)):
            raise BadContent(
                f"{self.metadata} does not hold the metadata of pool {self.pool.name!r}",
                "see that its devices are the ones it was made of (unikeel pool status)",
            )

    def _check_identity(self) -> None:
        try:
            found = read_identity(self.ref)
        except BadContent:
            found = ""
        if found != self.pool.uuid:
            self.deactivate()
            text = f"the pool {found}" if found else "a pool that is not unikeel's"
            raise BadContent(
                f"{self._data} and {self.metadata} hold {text} instead of pool {self.pool.name!r} ({self.pool.uuid})",
                "put the pool's own devices back",
            )

    # --- looking ----------------------------------------------------------------------------------------------------------

    def fill(self) -> PoolFill:
        """How full it is; it is active. One ioctl, which waits for nothing."""
        with Control() as control:
            status = thin.pool_status(control.status(self.pool.device_name))
        block = self.pool.block_size
        trouble = _TROUBLE.get(status.mode, "in need of a check" if status.needs_check else "")
        if status.mode == "ro" and status.used_metadata >= status.total_metadata:
            trouble = "out of metadata"
        return PoolFill(
            Fill(status.used_data * block, status.total_data * block),
            Fill(status.used_metadata * BLOCK, status.total_metadata * BLOCK),
            trouble,
        )

    def devices(self) -> dict[int, Details]:
        """All thin devices in it by their numbers, the pool's identity among them. :raise BadContent: the metadata is damaged."""
        with translated(f"read the metadata of pool {self.pool.name!r}"), MetadataDevice(self.metadata) as device:
            if not self.is_active():
                return device.resting_devices()
            with Control() as control, self._reading(control) as held:
                return device.held_devices() if held else device.resting_devices()

    @contextmanager
    def _reading(self, control: Control) -> Iterator[bool]:
        """Nobody else reads the metadata; whether it had to be kept as it is now, which it need not while the pool writes nothing."""
        name = self.pool.device_name
        with closing(DeviceLocks(self._locks)) as locks, locks.hold(IDENTITY_ID):
            status = thin.pool_status(control.status(name))
            if status.mode in ("ro", "Fail"):
                yield False
                return
            if status.held_root is not None:  # by one who was killed
                control.message(name, "release_metadata_snap")
            control.message(name, "reserve_metadata_snap")
            try:
                failpoint("pools.thin.held")
                yield True
            finally:
                control.message(name, "release_metadata_snap")

    def needs_check(self) -> bool:
        """Whether the metadata is damaged, or the kernel wants it checked before it writes again. :raise BadContent: it is another device's."""
        if self.is_active():
            with Control() as control:
                status = thin.pool_status(control.status(self.pool.device_name))
            return status.needs_check or status.mode == "Fail"
        with translated(f"read the metadata of pool {self.pool.name!r}"), MetadataDevice(self.metadata) as device:
            self._check_magic(device)
            try:
                device.resting_devices()
                return device.superblock().needs_check
            except BadContent:
                return True

    def data_blocks(self) -> int:
        """How many blocks the data device has room for."""
        with self._parts() as parts:
            return parts.data_size // self.pool.block_size

    # --- ending -----------------------------------------------------------------------------------------------------------

    def deactivate(self) -> None:
        """Take the pool and its thin devices from device-mapper. :raise FailedPrecondition: one of them is in use."""
        with translated(f"deactivate pool {self.pool.name!r}"), _control() as control:
            if control is None or self._info(control) is None:
                return
            ours = [name for name in control.names() if self.ref.number_of(name) is not None]
            used = [name for name in ours if (found := control.info(name)) is not None and found.open_count]
            if used:
                raise self._in_use(used)
            for name in [*ours, self.pool.device_name]:
                self._remove(control, name)
                failpoint("pools.thin.removing")

    def _remove(self, control: Control, name: str) -> None:
        nodes.remove(name)
        try:
            control.remove(name)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            if (info := control.info(name)) is not None:
                nodes.ensure(info)
            raise self._in_use([name]) from None

    def _in_use(self, names: list[str]) -> FailedPrecondition:
        return FailedPrecondition(
            f"pool {self.pool.name!r} is in use by {', '.join(names[:3])}", "stop and remove what uses it"
        )

    def wipe(self) -> None:
        """Take the mark of a thin pool's metadata from a device, and the file of the devices' locks; files go with the pool's directory."""
        with suppress(FileNotFoundError):
            os.unlink(self._locks)
        if self.pool.on_files or not os.path.exists(self.metadata):
            return
        with translated(f"wipe {self.metadata}"):
            _overwrite(self.metadata, BLOCK)


_TROUBLE: Final = {
    "ro": "read-only",
    "out_of_data_space": "out of data space",
    "Fail": "failed",
}


@contextmanager
def _control() -> Iterator[Control | None]:
    """Device-mapper's door; ``None`` on a host without, where nothing can be active. :raise Unavailable: this process may not use it."""
    try:
        control = Control()
    except Unavailable as error:
        if not isinstance(error.__cause__, FileNotFoundError) and getattr(error.__cause__, "errno", 0) != errno.ENODEV:
            raise
        yield None
        return
    with control:
        yield control


def _overwrite(path: str, length: int) -> None:
    with open_alone(path, os.O_WRONLY) as device:
        os.pwrite(device.fileno(), bytes(min(length, os.lseek(device.fileno(), 0, os.SEEK_END))), 0)
        os.fsync(device.fileno())


def _open_device(path: str) -> OwnedFd:
    try:
        return open_path(path, os.O_RDONLY)
    except FileNotFoundError:
        raise BadContent(f"{path}, on which the pool is, is missing", "bring the device back") from None
