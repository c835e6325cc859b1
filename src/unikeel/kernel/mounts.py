"""Mounts as descriptors: made detached, seen by nobody else, gone when their last descriptor is closed.

All of it needs CAP_SYS_ADMIN in the user namespace that owns the mount namespace, and Linux 5.12 (5.2 for all but
:func:`set_attributes`). Sources: mount(2), open_tree(2), fsopen(2), fsconfig(2), fsmount(2), mount_setattr(2), include/uapi/linux/mount.h.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence

from unikeel.kernel import libc
from unikeel.kernel.fd import OwnedFd
from unikeel.lean import Final
from unikeel.values import NamedTuple

_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
_AT_NO_AUTOMOUNT: Final = 0x800
_OPEN_TREE_CLONE: Final = 1
_OPEN_TREE_CLOEXEC: Final = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4
_MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40
_FSOPEN_CLOEXEC: Final = 1
_FSMOUNT_CLOEXEC: Final = 1
_FSCONFIG_SET_FLAG: Final = 0
_FSCONFIG_SET_STRING: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6

_ATTR_RDONLY: Final = 0x1
_ATTR_NOSUID: Final = 0x2
_ATTR_NODEV: Final = 0x4
_ATTR_NOEXEC: Final = 0x8
_ATTR_IDMAP: Final = 0x100000

#: umount2(2): do not follow a link at the end.
UMOUNT_NOFOLLOW: Final = 8

_LOG_LINES: Final = 16
_LOG_LINE_BYTES: Final = 4096


class Attributes(NamedTuple):
    """What a mount forbids, whatever its file system allows."""

    read_only: bool = True
    nosuid: bool = True
    nodev: bool = True
    noexec: bool = True

    @property
    def bits(self) -> int:
        """The MOUNT_ATTR_ bits of fsmount(2) and mount_setattr(2)."""
        return (
            self.read_only * _ATTR_RDONLY
            | self.nosuid * _ATTR_NOSUID
            | self.nodev * _ATTR_NODEV
            | self.noexec * _ATTR_NOEXEC
        )


#: How everything shared is mounted: nothing can be written, run, or used as a device.
SEALED: Final = Attributes()


class MountError(OSError):
    """A file system could not be mounted; the text holds what the kernel said in the context's log."""


def detached_mount(
    fstype: str, source: str | None, options: Sequence[tuple[str, str | None]] = (), attributes: Attributes = SEALED
) -> OwnedFd:
    """Mount a file system without attaching it anywhere; the descriptor is its root directory (O_PATH).

    Atomic: on any failure nothing is left. Files opened beneath it keep it alive after the descriptor is closed.

    :param source: device or image file, as ``source`` of the file system's parameters; None for none (tmpfs).
    :param options: parameters (``("noload", None)`` is a flag, ``("size", "1m")`` has a value). ``("ro", None)`` makes the
        file system itself read-only, which ``attributes.read_only`` does only for this mount.
    :raise MountError: the kernel refused, with its errno and its words. :raise Unavailable: no fsopen.
    """
    what = f"mounting {fstype} of {source}" if source else f"mounting {fstype}"
    with _context(fstype, what) as context:
        try:
            if source is not None:
                _configure(context, what, _FSCONFIG_SET_STRING, "source", source)
            for key, value in options:
                if value is None:
                    _configure(context, what, _FSCONFIG_SET_FLAG, key, None)
                else:
                    _configure(context, what, _FSCONFIG_SET_STRING, key, value)
            _configure(context, what, _FSCONFIG_CMD_CREATE, None, None)
            fd = libc.syscall(libc.FSMOUNT, what, context.fileno(), _FSMOUNT_CLOEXEC, attributes.bits)
        except OSError as error:
            raise _explained(error, context, what) from error
    return OwnedFd(fd)


def _context(fstype: str, what: str) -> OwnedFd:
    try:
        return OwnedFd(libc.syscall(libc.FSOPEN, what, os.fsencode(fstype), _FSOPEN_CLOEXEC))
    except OSError as error:
        raise MountError(error.errno, f"{what}: {os.strerror(error.errno or 0)}") from error


def _configure(context: OwnedFd, what: str, command: int, key: str | None, value: str | None) -> None:
    libc.syscall(
        libc.FSCONFIG,
        what,
        context.fileno(),
        command,
        None if key is None else os.fsencode(key),
        None if value is None else os.fsencode(value),
        0,
    )


def _explained(error: OSError, context: OwnedFd, what: str) -> MountError:
    """The error, with the lines that the kernel wrote to the context's log (each read gives one, "e ext4: …")."""
    lines = []
    for _ in range(_LOG_LINES):
        try:
            lines.append(os.read(context.fileno(), _LOG_LINE_BYTES).decode("utf-8", "replace")[2:].strip())
        except OSError:  # ENODATA: no more
            break
    text = "; ".join(lines) or os.strerror(error.errno or 0)
    return MountError(error.errno, f"{what}: {text}")


def open_tree_clone(path: str, *, dirfd: int = _AT_FDCWD, recursive: bool = False) -> OwnedFd:
    """A detached copy of the mount at ``path``, rooted there; 3 µs, no new superblock.

    :param path: empty to clone at ``dirfd`` itself (a directory, or an O_PATH descriptor of a file).
    :param recursive: also what is mounted beneath.
    :raise OSError: EINVAL when ``dirfd`` is in a detached mount and the kernel is older than 6.15.
    """
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_NO_AUTOMOUNT
    flags |= _AT_RECURSIVE if recursive else 0
    flags |= _AT_EMPTY_PATH if not path else 0
    what = f"cloning the mount at {path or dirfd}"
    return OwnedFd(libc.syscall(libc.OPEN_TREE, what, dirfd, os.fsencode(path), flags))


def set_attributes(
    mount: OwnedFd, attributes: Attributes = SEALED, *, user_namespace: int | None = None, recursive: bool = False
) -> None:
    """Forbid more in a detached mount, and with ``user_namespace`` map its owners to others (an id-mapped mount).

    Attributes are only added, never taken away. Mapping works once per mount, before it was ever attached, and only where the file
    system allows it (ext4 5.12, erofs 5.19, tmpfs 6.3).

    :param recursive: in all mounts beneath it, too.
    :raise OSError: EINVAL if the file system cannot be id-mapped. :raise Unavailable: no mount_setattr (Linux 5.12).
    """
    bits = attributes.bits | (_ATTR_IDMAP if user_namespace is not None else 0)
    packed = bytearray(struct.pack("=QQQQ", bits, 0, 0, user_namespace or 0))
    what = "setting a mount's attributes"
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    libc.syscall(libc.MOUNT_SETATTR, what, mount.fileno(), b"", flags, packed, len(packed))


def sealed_clone(path: str, *, dirfd: int = _AT_FDCWD) -> OwnedFd:
    """A detached clone through which nothing can be changed, by anybody: the way to open what is shared."""
    clone = open_tree_clone(path, dirfd=dirfd)
    try:
        set_attributes(clone)
    except BaseException:
        clone.close()
        raise
    return clone


def move_mount(mount: OwnedFd, target: str) -> None:
    """Attach a detached mount at a directory: from now on it is in the mount table, and outlives us. :raise OSError."""
    what = f"attaching a mount at {target}"
    libc.syscall(libc.MOVE_MOUNT, what, mount.fileno(), b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)


def move_mount_to(mount: OwnedFd, target: OwnedFd) -> None:
    """Attach a detached mount at what a descriptor names: a directory, or of a file's mount a file. :raise OSError."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    libc.syscall(libc.MOVE_MOUNT, "attaching a mount", mount.fileno(), b"", target.fileno(), b"", flags)


def unmount(path: str, flags: int = UMOUNT_NOFOLLOW) -> None:
    """umount2(2) of the topmost mount at ``path``. :raise OSError: EINVAL if it is no mount point, EBUSY if it is in use."""
    if libc.library().umount2(os.fsencode(path), flags) != 0:
        raise libc.fail(f"unmounting {path}")


def is_mount_point(path: str) -> bool:
    """Whether something is mounted at ``path`` (a directory): its device differs from its parent's.

    A bind mount of the same file system is not seen; a missing path is none.
    """
    try:
        return os.lstat(path).st_dev != os.lstat(os.path.dirname(path.rstrip("/")) or "/").st_dev
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise
