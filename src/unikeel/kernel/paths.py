"""Opening what an image names, without leaving the image; and what else is done by path.

openat2(2) (Linux 5.6, no capability beyond those for the files) resolves the whole path in the kernel as if ``root`` were
"/": absolute links and ".." stay inside, magic links of /proc are refused, mounts are not crossed.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Sequence

from unikeel.kernel import libc
from unikeel.kernel.fd import OwnedFd, link_of
from unikeel.lean import Final

_RESOLVE_NO_XDEV: Final = 0x01
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_IN_ROOT: Final = 0x10
_AGAIN: Final = 64
#: Where programs of the host are looked for. Not PATH: what runs as root is not for the environment to choose.
PROGRAM_DIRECTORIES: Final = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


class NotRegular(OSError):
    """What the path names is not a regular file (errno EINVAL, EISDIR for a directory)."""


class TooLarge(OSError):
    """The file is larger than allowed (errno EFBIG)."""


def open_beneath(root: int, path: str, flags: int, *, cross: bool = False) -> OwnedFd:
    """openat2 of ``path`` with ``root`` (a directory's descriptor) as "/"; close-on-exec.

    :param cross: what is mounted beneath may be entered.

    EAGAIN, which the kernel answers when something was renamed or mounted meanwhile, is tried again a bounded number of times.

    :raise OSError: ENOENT, ENOTDIR, ELOOP (too many links, or a magic link), ENAMETOOLONG, EXDEV (a mount would be
        crossed), EACCES. :raise ValueError: the path holds a NUL. :raise Unavailable: no openat2.
    """
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError("embedded null byte")
    resolve = _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS | (0 if cross else _RESOLVE_NO_XDEV)
    how = bytearray(struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve))
    for attempt in range(_AGAIN):
        try:
            return OwnedFd(libc.syscall(libc.OPENAT2, f"opening {path}", root, encoded, how, len(how)))
        except OSError as error:
            if error.errno != errno.EAGAIN or attempt == _AGAIN - 1:
                raise
    raise OSError(errno.EAGAIN, f"{os.strerror(errno.EAGAIN)} (opening {path})")


def open_regular_beneath(root: int, path: str, max_size: int) -> OwnedFd:
    """A regular file beneath ``root``, read-only, of at most ``max_size`` bytes.

    It is looked at before it is opened (O_PATH: no device is touched, no fifo waited for) and then re-opened through
    ``/proc/self/fd``, so that what was checked is what is read, whatever happens to the name.

    :raise NotRegular: something else. :raise TooLarge: more than ``max_size``. :raise OSError: as :func:`open_beneath`.
    """
    with open_beneath(root, path, os.O_PATH) as found:
        info = os.fstat(found.fileno())
        if not stat.S_ISREG(info.st_mode):
            code = errno.EISDIR if stat.S_ISDIR(info.st_mode) else errno.EINVAL
            raise NotRegular(code, f"{path} is not a regular file")
        if info.st_size > max_size:
            raise TooLarge(errno.EFBIG, f"{path} has {info.st_size} bytes, more than {max_size}")
        return reopen(found.fileno())


def reopen(fd: int, flags: int = os.O_RDONLY) -> OwnedFd:
    """A new open file description of what ``fd`` names, close-on-exec. The file's mode is checked again. :raise OSError."""
    return OwnedFd(os.open(link_of(fd), flags | os.O_CLOEXEC))


def find_program(name: str, directories: Sequence[str] = ()) -> str:
    """The path of a program in these directories (:data:`PROGRAM_DIRECTORIES` if none are named), or an empty string.

    (shutil.which would do; importing it costs more than starting the program.)
    """
    for directory in directories or PROGRAM_DIRECTORIES:
        path = f"{directory}/{name}"
        if directory and os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    return ""


def remove_strange_tree(path: str) -> None:
    """Remove a directory whose content somebody else made, however deep it is: nothing in it is ever named by more than one name.

    What lies in directories of directories is moved up until there are none. One that is not there is fine. :raise OSError.
    """
    try:
        top = OwnedFd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW))
    except FileNotFoundError:
        return
    with top:
        number = 0
        while names := os.listdir(top.fileno()):
            for name in names:
                if not _is_directory(top.fileno(), name):
                    os.unlink(name, dir_fd=top.fileno())
                    continue
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
                with OwnedFd(os.open(name, flags, dir_fd=top.fileno())) as directory:
                    number = _raise_content(top.fileno(), directory.fileno(), number)
                os.rmdir(name, dir_fd=top.fileno())
    os.rmdir(path)


def _raise_content(top: int, directory: int, number: int) -> int:
    """Empty a directory: its files go, its directories move to ``top``, under names that nothing there has; the next number for such a name."""
    for name in os.listdir(directory):
        if not _is_directory(directory, name):
            os.unlink(name, dir_fd=directory)
            continue
        while _exists(top, f"raised-{number}"):
            number += 1
        os.rename(name, f"raised-{number}", src_dir_fd=directory, dst_dir_fd=top)
    return number


def _is_directory(directory: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def remove_tree(path: str) -> None:
    """Remove a directory of ours and all in it; one that is not there is fine."""
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return
    for name in names:
        child = os.path.join(path, name)
        if os.path.isdir(child) and not os.path.islink(child):
            remove_tree(child)
        else:
            os.unlink(child)
    os.rmdir(path)
