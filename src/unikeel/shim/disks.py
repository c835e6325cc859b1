"""A guest's disk out of what containerd says that its root file system is mounted from: opened as it is, never mounted, and checked.

Only one mount of a file system on a block device, or of a file (with the option ``loop``), is a disk: devmapper's and blockfile's answer. The device or
file comes from the snapshotter's own answer, which containerd passes on with Create, and is used by its descriptor from here on.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Sequence
from typing import Final

from unikeel.errors import FailedPrecondition, NotFound
from unikeel.kernel import devmapper, loop
from unikeel.kernel.fd import OwnedFd
from unikeel.model.names import quote
from unikeel.model.plan import DiskSpec
from unikeel.values import NamedTuple

#: File systems that a disk may hold, as containerd names them.
_FILE_SYSTEMS: Final = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "erofs"})
_MAPPER: Final = "/dev/mapper/"
_GET_SIZE64: Final = 0x80081272
_PIECE: Final = 64 << 10


class RootMount(NamedTuple):
    """One mount of a root file system, as containerd gives it."""

    type: str
    source: str
    options: tuple[str, ...] = ()

    @property
    def read_only(self) -> bool:
        """Whether it is to be mounted read-only."""
        return "ro" in self.options


class Identity(NamedTuple):
    """What tells a disk from every other: the device's number, or the file's device and inode; its size; its dm name and table."""

    kind: str
    number: str
    size: int
    dm_name: str = ""
    dm_table: str = ""


class Disk(NamedTuple):
    """An open disk."""

    spec: DiskSpec
    fd: OwnedFd
    identity: Identity


def block_mount(rootfs: Sequence[RootMount]) -> RootMount | None:
    """The mount that can be a disk; None: the root file system is made of something else (layers, a directory)."""
    if len(rootfs) != 1:
        return None
    mount = rootfs[0]
    if mount.type not in _FILE_SYSTEMS or not mount.source.startswith("/") or "\0" in mount.source:
        return None
    return mount


def open_disk(mount: RootMount) -> Disk:
    """Open a disk for a guest, exclusively.

    :raise NotFound: there is nothing. :raise FailedPrecondition: it is mounted or in use by somebody else, or is not what it should be.
    """
    mode = os.O_RDONLY if mount.read_only else os.O_RDWR
    try:
        before = os.stat(mount.source)
        is_device = stat.S_ISBLK(before.st_mode)
        exclusive = os.O_EXCL if is_device and not mount.read_only else 0
        fd = OwnedFd(os.open(mount.source, mode | exclusive | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise FailedPrecondition(
                f"the snapshot's device {mount.source} is in use: the host has mounted it, or another guest has it",
                "a disk that a guest writes to cannot be shared",
            ) from None
        raise NotFound(f"the snapshot's disk {mount.source} cannot be opened: {error.strerror}") from None
    try:
        identity = _identity(mount, fd.fileno(), before)
        if not is_device and not mount.read_only:
            _check_unused(mount, os.fstat(fd.fileno()))
    except BaseException:
        fd.close()
        raise
    return Disk(DiskSpec("raw", read_only=mount.read_only, device=is_device), fd, identity)


def _identity(mount: RootMount, fd: int, before: os.stat_result) -> Identity:
    info = os.fstat(fd)
    if stat.S_ISBLK(info.st_mode):
        if info.st_rdev != before.st_rdev:
            raise FailedPrecondition(f"{mount.source} has become another device while it was opened")
        number = f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
        size = struct.unpack("Q", fcntl.ioctl(fd, _GET_SIZE64, bytes(8)))[0]
        name = _dm_name(number)
        if mount.source.startswith(_MAPPER) and name != mount.source.removeprefix(_MAPPER):
            raise FailedPrecondition(f"{mount.source} is device {number}, which device-mapper calls {quote(name)}")
        return Identity("device", number, size, name, _thin_table(mount, info.st_rdev, size) if name else "")
    if not stat.S_ISREG(info.st_mode):
        raise FailedPrecondition(f"the snapshot's disk {mount.source} is neither a block device nor a file")
    if (info.st_dev, info.st_ino) != (before.st_dev, before.st_ino):
        raise FailedPrecondition(f"{mount.source} has become another file while it was opened")
    if info.st_size == 0:
        raise FailedPrecondition(f"the snapshot's disk {mount.source} is empty")
    return Identity("file", f"{info.st_dev}:{info.st_ino}", info.st_size)


def _thin_table(mount: RootMount, device: int, size: int) -> str:
    """The table of a snapshot's device, which is one whole thin device: nothing else of device-mapper's is a snapshot of containerd's."""
    table = devmapper.table(os.major(device), os.minor(device))
    targets = [target for target in table if (target.kind, target.start, target.length) == ("thin", 0, size)]
    if len(table) != 1 or not targets:
        shown = "; ".join(f"{target.kind} of {target.length} bytes" for target in table)
        raise FailedPrecondition(
            f"{mount.source} is no thin device of {size} bytes, as a snapshot is: {shown or 'nothing'}"
        )
    return f"thin {targets[0].parameters}"


def _dm_name(number: str) -> str:
    try:
        with open(f"/sys/dev/block/{number}/dm/name", encoding="utf-8", errors="replace") as file:
            return file.read(256).strip()
    except OSError:
        return ""


def _loops() -> list[str]:
    """The loop devices that show a file. Of those that show none the kernel's list (proc(5)) says nothing, since they have no size."""
    found = bytearray()
    fd = os.open("/proc/partitions", os.O_RDONLY | os.O_CLOEXEC)
    try:
        while data := os.read(fd, _PIECE):
            found += data
    finally:
        os.close(fd)
    names = (line.rpartition(b" ")[2] for line in found.splitlines() if b" loop" in line)
    return [name.decode("ascii", "replace") for name in names if b"p" not in name[len(b"loop") :]]


def _check_unused(mount: RootMount, info: os.stat_result) -> None:
    """See that no loop device shows this file for writing: then the host has it mounted, or may any time."""
    for name in _loops():
        try:
            with OwnedFd(os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC)) as device:
                status = loop.status_of(device)
        except OSError:
            continue
        if status is not None and (status.device, status.inode) == (info.st_dev, info.st_ino) and not status.read_only:
            raise FailedPrecondition(
                f"the snapshot's disk {mount.source} is in use by /dev/{name} on the host",
                "unmount it first: a disk that a guest writes to cannot be shared",
            )
