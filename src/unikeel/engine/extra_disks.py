"""Disks that a guest gets beside that of its root: block devices and disk files of the host's, and one that lies in its image.

Nothing of the user's is mounted or unmounted. A disk that a guest may write to is its alone for as long as it runs: a block device is opened exclusively, which fails if
the host has it mounted and keeps the host from mounting it; a file is locked (flock(2)), and refused if a loop device shows it for writing. One that is only read may be
read by several guests, and mounted read-only by the host, but by nobody for writing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from unikeel.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable, Unimplemented
from unikeel.kernel import loop, mounts, trees
from unikeel.kernel.fd import OwnedFd
from unikeel.kernel.idmap import single_mapping
from unikeel.kernel.paths import reopen
from unikeel.lean import Final
from unikeel.model.image_fields import GuestConfig
from unikeel.model.names import quote
from unikeel.model.plan import Attached, DiskSpec, FileRole
from unikeel.model.volumes import Volume
from unikeel.values import NamedTuple

#: The name of the disk that lies in the image; urunc's images know it by this one.
IMAGE_DISK: Final = "annot_vol"
#: Where a file system tells what it is: its driver, the offset, the bytes (magic(5)).
_MAGICS: Final = (
    ("ext4", 0x438, b"\x53\xef"),
    ("xfs", 0, b"XFSB"),
    ("erofs", 0x400, b"\xe2\xe1\xf5\xe0"),
    ("squashfs", 0, b"hsqs"),
    ("btrfs", 0x10040, b"_BHRfS_M"),
)
_FLAGS: Final = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_DEVICES: Final = "/dev/"


class Extra(NamedTuple):
    """Disks, and their descriptors in the same order; what lies beneath one follows it."""

    disks: tuple[Attached, ...] = ()
    fds: tuple[int, ...] = ()
    left_out: tuple[str, ...] = ()


class Taker(NamedTuple):
    """Who gets disks: the monitor's user; the container's directory; whether the monitor opens what it is given anew; which file systems its guest mounts."""

    uid: int
    directory: str
    reopens: bool
    file_systems: frozenset[str]


def mounted_by(guest: GuestConfig) -> frozenset[str]:
    """The file systems of further disks that a guest mounts: of the host's kernel we know more."""
    return frozenset(kind for kind, _, _ in _MAGICS) if guest.kernel else frozenset({"ext4"})


def joined(*parts: Extra) -> Extra:
    """All of them, one after the other."""
    return Extra(
        tuple(disk for part in parts for disk in part.disks),
        tuple(fd for part in parts for fd in part.fds),
        tuple(text for part in parts for text in part.left_out),
    )


def recognised(volumes: Iterable[Volume]) -> tuple[Volume, ...]:
    """The volumes, those that are block devices beneath ``/dev`` as disks."""
    return tuple(volume._replace(disk=True) if _is_device(volume) else volume for volume in volumes)


def _is_device(volume: Volume) -> bool:
    if not volume.source.startswith(_DEVICES):
        return False
    try:
        return stat.S_ISBLK(os.stat(volume.source).st_mode)
    except OSError:
        return False


def of_volumes(volumes: Sequence[Volume], taker: Taker, stack: ExitStack) -> Extra:
    """Open the disks among a container's volumes; ``stack`` closes them.

    :raise NotFound: one is not there. :raise FailedPrecondition: somebody else uses it. :raise InvalidArgument: it is no disk, or holds no file system that the guest mounts.
    :raise Unimplemented: the monitor's user cannot be let open it. An optional one is left out instead.
    """
    disks: list[Attached] = []
    fds: list[int] = []
    left_out: list[str] = []
    for number, volume in enumerate(volume for volume in volumes if volume.disk):
        try:
            disk, fd = _open(volume, number, taker, stack)
        except (NotFound, FailedPrecondition, InvalidArgument, Unimplemented) as error:
            if not volume.optional:
                raise
            left_out.append(f"the volume at {volume.target} is left out: {error.message}")
            continue
        disks.append(disk)
        fds.append(fd)
    return Extra(tuple(disks), tuple(fds), tuple(left_out))


def of_image(spec: DiskSpec, found: dict[FileRole, int], image: int, target: str, taker: Taker) -> Extra:
    """The disk that lies in the image, as a further one.

    :param found: its descriptors, as :func:`unikeel.engine.image_disks.provide` has them. :param image: the image's own file, which tells the file system.
    :raise InvalidArgument: it has none that the guest mounts.
    """
    kind = _file_system(image, f"the image's own disk for {target}", taker.file_systems)
    if taker.reopens:
        os.fchown(found[FileRole.DISK], taker.uid, taker.uid)
    fds = tuple(found[role] for role in (FileRole.DISK, FileRole.BACKING) if role in found)
    return Extra((Attached(spec._replace(id=IMAGE_DISK), target, kind),), fds)


def _open(volume: Volume, number: int, taker: Taker, stack: ExitStack) -> tuple[Attached, int]:
    if volume.number:
        return _open_raw(volume, number, taker, stack)
    try:
        info = os.stat(volume.source)
        if stat.S_ISBLK(info.st_mode):
            file = _device(volume, info, taker)
        elif stat.S_ISREG(info.st_mode):
            file = _image(volume, info, taker)
        else:
            raise InvalidArgument(f"{quote(volume.source)} is neither a block device nor a file, so no disk")
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _busy(volume) from None
        raise NotFound(f"the disk {quote(volume.source)} cannot be opened: {error.strerror}") from None
    stack.enter_context(file)
    opened = os.fstat(file.fileno())
    same = opened.st_rdev == info.st_rdev if stat.S_ISBLK(info.st_mode) else os.path.samestat(opened, info)
    if not same or stat.S_IFMT(opened.st_mode) != stat.S_IFMT(info.st_mode):
        raise FailedPrecondition(f"{quote(volume.source)} has become another file while it was opened")
    kind = _file_system(file.fileno(), quote(volume.source), taker.file_systems)
    spec = DiskSpec("raw", read_only=volume.read_only, device=stat.S_ISBLK(info.st_mode), id=f"vol{number}")
    return Attached(spec, volume.target, kind), file.fileno()


def _open_raw(volume: Volume, number: int, taker: Taker, stack: ExitStack) -> tuple[Attached, int]:
    """A device that is not mounted, whatever is on it."""
    try:
        file = stack.enter_context(_by_node(volume, volume.number, taker))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _busy(volume) from None
        raise NotFound(f"the block device {quote(volume.source)} cannot be opened: {error.strerror}") from None
    return Attached(
        DiskSpec("raw", read_only=volume.read_only, device=True, id=f"vol{number}"), volume.target, ""
    ), file.fileno()


def _busy(volume: Volume) -> FailedPrecondition:
    return FailedPrecondition(
        f"the disk {quote(volume.source)} is in use: it is mounted, or another guest has it",
        "unmount it, or stop the other guest: a disk that somebody writes to cannot be shared",
    )


# -- block devices -------------------------------------------------------------------------------------------------------


def _device(volume: Volume, info: os.stat_result, taker: Taker) -> OwnedFd:
    """A block device, exclusively if it is to be written to. :raise OSError: EBUSY if somebody has it."""
    return _by_node(volume, info.st_rdev, taker) if taker.reopens else _claimed(volume, volume.source, info.st_rdev)


def _by_node(volume: Volume, number: int, taker: Taker) -> OwnedFd:
    """The device by a node of its own, for the monitor's user, and gone as soon as it is open: the host's own, if there is one, is the host's."""
    path = os.path.join(taker.directory, "disk")
    if os.path.lexists(path):
        os.unlink(path)
    os.mknod(path, stat.S_IFBLK | 0o600, number)
    try:
        os.chown(path, taker.uid, taker.uid)
        return _claimed(volume, path, number)
    finally:
        os.unlink(path)


def _claimed(volume: Volume, path: str, number: int) -> OwnedFd:
    if not volume.read_only:
        return OwnedFd(os.open(path, os.O_RDWR | os.O_EXCL | _FLAGS))
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | _FLAGS))
    except OSError as error:
        if error.errno != errno.EBUSY or not _is_mounted_read_only(number):
            raise
    return OwnedFd(os.open(path, os.O_RDONLY | _FLAGS))


def _is_mounted_read_only(device: int) -> bool:
    """Whether the host has mounted a device, and its file system is not written to (proc(5), mountinfo: the last field)."""
    number = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.split() for line in file]
    options = [line[-1].split(",") for line in lines if line[2] == number]
    return bool(options) and all("ro" in words for words in options)


# -- files ---------------------------------------------------------------------------------------------------------------


def _image(volume: Volume, info: os.stat_result, taker: Taker) -> OwnedFd:
    """A file with a disk's content, locked. :raise FailedPrecondition: somebody else uses it. :raise Unimplemented: the monitor's user cannot be let open it."""
    for name in loop.attached_to(info):
        if _is_written(name):
            raise FailedPrecondition(
                f"the disk {quote(volume.source)} is in use by /dev/{name} on the host",
                f"unmount it and detach it first (losetup --detach /dev/{name}): a disk that somebody writes to cannot be shared",
            )
    file = (
        _reopenable(volume, info, taker) if taker.reopens else OwnedFd(os.open(volume.source, _mode(volume) | _FLAGS))
    )
    try:
        fcntl.flock(file.fileno(), (fcntl.LOCK_SH if volume.read_only else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise _busy(volume) from None
    except BaseException:
        file.close()
        raise
    return file


def _mode(volume: Volume) -> int:
    return os.O_RDONLY if volume.read_only else os.O_RDWR


def _is_written(name: str) -> bool:
    try:
        with OwnedFd(os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC)) as device:
            status = loop.status_of(device)
    except OSError:
        return False
    return status is not None and not status.read_only


def _reopenable(volume: Volume, info: os.stat_result, taker: Taker) -> OwnedFd:
    """The file by a mount of its own, in which its owner is the monitor's user."""
    attributes = mounts.Attributes(read_only=volume.read_only)
    try:
        with (
            single_mapping((info.st_uid, info.st_gid), (taker.uid, taker.uid)) as namespace,
            trees.clone(volume.source, attributes, user_namespace=namespace.fileno()) as clone,
        ):
            return reopen(clone.fileno(), _mode(volume) | _FLAGS)
    except (OSError, Unavailable) as error:
        said = error.message if isinstance(error, Unavailable) else error.strerror
        raise Unimplemented(
            f"this monitor cannot be given the disk {quote(volume.source)}, which it would open as a user of its own: {said}",
            "give it a block device (losetup), or choose the monitor qemu",
        ) from None


def _file_system(fd: int, what: str, known: frozenset[str]) -> str:
    found = next((kind for kind, offset, magic in _MAGICS if os.pread(fd, len(magic), offset) == magic), "")
    if found in known:
        return found
    said = f"a file system ({found}) that this guest does not mount" if found else "no file system that is known here"
    raise InvalidArgument(
        f"{what} holds {said}: it mounts {', '.join(sorted(known))}", "make one on it, such as mkfs.ext4 does"
    )
