"""Loop devices: a file as a block device, read-only unless asked otherwise, gone with its last user.

Needs the loop driver and CAP_SYS_ADMIN for configuring (read access to the nodes for the rest). Every device made here has
``autoclear``: it vanishes when its last opener (a descriptor, a mount) goes, however that ends, so nothing has to be undone
after a kill. LOOP_CONFIGURE (Linux 5.8) sets file and flags in one step. Source: include/uapi/linux/loop.h.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct

from unikeel.errors import Unavailable
from unikeel.kernel.fd import OwnedFd
from unikeel.lean import Final
from unikeel.values import NamedTuple

_CONTROL: Final = "/dev/loop-control"
_GET_FREE: Final = 0x4C82
_CONFIGURE: Final = 0x4C0A
_GET_STATUS64: Final = 0x4C05
_SET_CAPACITY: Final = 0x4C07
_SET_DIRECT_IO: Final = 0x4C08

_READ_ONLY: Final = 1
_AUTOCLEAR: Final = 4
_DIRECT_IO: Final = 16

#: struct loop_info64: device, inode, rdevice, offset, sizelimit; number, 2 unused, flags; name, crypt name, key; init[2].
_INFO: Final = struct.Struct("=5Q4I64s64s32s2Q")
#: struct loop_config: descriptor, block size, loop_info64, 8 reserved words.
_CONFIG: Final = struct.Struct(f"=2I{_INFO.size}s8Q")
_ATTEMPTS: Final = 256
#: As much as a file of sysfs holds.
_PATH_BYTES: Final = 4096


class LoopStatus(NamedTuple):
    """What a loop device is made of: its number and the file behind it (device and inode number), whole or a part."""

    number: int
    device: int
    inode: int
    offset: int
    size_limit: int
    read_only: bool
    autoclear: bool
    direct_io: bool

    def backs(self, info: os.stat_result) -> bool:
        """Whether it shows the whole of the file with this stat."""
        return (self.device, self.inode, self.offset, self.size_limit) == (info.st_dev, info.st_ino, 0, 0)


class LoopDevice(NamedTuple):
    """An open loop device; it stays configured at least as long as ``fd`` or a mount of it is open."""

    path: str
    fd: OwnedFd
    status: LoopStatus

    def close(self) -> None:
        """Let go of it; the kernel takes it down after its last user."""
        self.fd.close()


def attach(backing: int, *, writable: bool = False, direct: bool = True) -> LoopDevice:
    """A new loop device of the file ``backing`` (a descriptor), with direct I/O where the file system does it: otherwise what is read is cached twice.

    :param writable: what is written to the device goes to the file, which must be open for writing.
    :param direct: false: for now it reads through the page cache, see :func:`use_direct_io`.

    A free number can be taken by somebody else between finding and configuring it; then the next one is tried at once.

    :raise Unavailable: no loop driver, no node in /dev, or none free after 256 attempts. :raise OSError: what else the kernel says.
    """
    for _ in range(_ATTEMPTS):
        path = f"/dev/loop{_free_number()}"
        device = _open_node(path, writable=writable)
        try:
            _configure(device, backing, (_DIRECT_IO if direct else 0) | (0 if writable else _READ_ONLY))
            return LoopDevice(path, device, _status(device))
        except OSError as error:
            device.close()
            if error.errno not in (errno.EBUSY, errno.ENXIO):
                raise
        except BaseException:
            device.close()
            raise
    raise Unavailable(f"no loop device stayed free during {_ATTEMPTS} attempts")


def find(backing: int) -> LoopDevice | None:
    """The read-only, self-clearing loop device that already shows the whole of the file ``backing``, if there is one.

    It is looked at again after it was opened, when it can no longer change under us.
    """
    info = os.fstat(backing)
    for name in attached_to(info):
        path = f"/dev/{name}"
        try:
            device = _open_node(path)
        except (OSError, Unavailable):
            continue
        status = status_of(device)
        if status is not None and status.backs(info) and status.read_only and status.autoclear:
            return LoopDevice(path, device, status)
        device.close()
    return None


def find_or_attach(backing: int, *, direct: bool = True) -> LoopDevice:
    """One device per file: the one there is, else a new one (:func:`attach`). Two callers at the same instant may make one each."""
    return find(backing) or attach(backing, direct=direct)


def use_direct_io(device: LoopDevice) -> None:
    """From now on the device does direct I/O (LOOP_SET_DIRECT_IO, Linux 4.10), where its file's file system does; else it stays as it is."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(device.fd.fileno(), _SET_DIRECT_IO, 1)


def measure_again(device: OwnedFd) -> None:
    """Have the device take the size that its file has now. :raise OSError: what the kernel says."""
    fcntl.ioctl(device.fileno(), _SET_CAPACITY)


def open_attached(info: os.stat_result) -> LoopDevice | None:
    """A writable loop device that already shows the whole of the file with this stat, opened for reading; ``None`` if there is none."""
    for name in attached_to(info):
        try:
            device = _open_node(f"/dev/{name}")
        except (OSError, Unavailable):
            continue
        status = status_of(device)
        if status is not None and status.backs(info) and not status.read_only:
            return LoopDevice(f"/dev/{name}", device, status)
        device.close()
    return None


def status_of(device: OwnedFd) -> LoopStatus | None:
    """What an open loop device shows; None if nothing (any more)."""
    try:
        return _status(device)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise


def attached_to(info: os.stat_result) -> list[str]:
    """The names (``loop3``) of all loop devices, whoever made them, that show a file; for tests and for reports."""
    return [name for name in os.listdir("/sys/block") if name.startswith("loop") and _may_back(name, info)]


def _free_number() -> int:
    try:
        with OwnedFd(os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)) as control:
            return fcntl.ioctl(control.fileno(), _GET_FREE)
    except OSError as error:
        raise Unavailable(
            f"no loop device: {_CONTROL}: {error.strerror}", "load the loop driver (modprobe loop)"
        ) from error


def _open_node(path: str, *, writable: bool = False) -> OwnedFd:
    try:
        return OwnedFd(os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC))
    except FileNotFoundError as error:
        raise Unavailable(f"no loop device: {path} is missing", "mount devtmpfs on /dev") from error


def _configure(device: OwnedFd, backing: int, flags: int) -> None:
    try:
        fcntl.ioctl(device.fileno(), _CONFIGURE, _config(backing, flags | _AUTOCLEAR))
    except OSError as error:
        if error.errno != errno.EINVAL or not flags & _DIRECT_IO:
            raise
        # A file system without direct I/O (newer kernels; older ones leave it out).
        fcntl.ioctl(device.fileno(), _CONFIGURE, _config(backing, flags & ~_DIRECT_IO | _AUTOCLEAR))


def _config(backing: int, flags: int) -> bytes:
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, b"", b"", b"", 0, 0)
    return _CONFIG.pack(backing, 0, info, *[0] * 8)


def _status(device: OwnedFd) -> LoopStatus:
    raw = fcntl.ioctl(device.fileno(), _GET_STATUS64, bytes(_INFO.size))
    number_of, inode, _, offset, limit, number, _, _, flags = _INFO.unpack(raw)[:9]
    return LoopStatus(
        number=number,
        device=number_of,
        inode=inode,
        offset=offset,
        size_limit=limit,
        read_only=bool(flags & _READ_ONLY),
        autoclear=bool(flags & _AUTOCLEAR),
        direct_io=bool(flags & _DIRECT_IO),
    )


def _may_back(name: str, info: os.stat_result) -> bool:
    """By the path that the kernel shows, which is cheap; a file that was renamed or unlinked since is not found."""
    try:
        with OwnedFd(os.open(f"/sys/block/{name}/loop/backing_file", os.O_RDONLY | os.O_CLOEXEC)) as file:
            return os.path.samestat(os.stat(os.read(file.fileno(), _PATH_BYTES).rstrip(b"\n")), info)
    except OSError:
        return False
