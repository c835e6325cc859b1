"""One tree made of several detached mounts, itself detached: a descriptor whose holder sees them all, and nobody else any.

It is put together in a mount namespace that exists only meanwhile. Places in it are found beneath its root, whatever links there say. Sources: open_tree(2),
move_mount(2), openat2(2).
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
from collections.abc import Sequence

from unikeel.kernel import mounts
from unikeel.kernel.fd import OwnedFd
from unikeel.kernel.overlay import in_private_namespace
from unikeel.kernel.paths import open_beneath
from unikeel.lean import Final
from unikeel.values import NamedTuple

_PATH: Final = os.O_PATH
_MODE: Final = 0o755
_NEW_FILE: Final = 0o644


class Part(NamedTuple):
    """A detached mount of a directory or a file, and the absolute path in the tree that it is to be at."""

    path: str
    mount: OwnedFd


class NoPlace(OSError):
    """There is nothing in the tree that a part can be mounted at, and nothing can be made there; ``filename`` is the part's path."""


def clone(path: str, attributes: mounts.Attributes, *, user_namespace: int | None = None) -> OwnedFd:
    """A directory or a file with all that is mounted beneath it, as a detached mount that forbids more.

    :param user_namespace: as of :func:`unikeel.kernel.mounts.set_attributes`. :raise OSError: there is no such file, or it cannot be mapped.
    """
    with OwnedFd(os.open(path, os.O_PATH | os.O_CLOEXEC)) as found:
        tree = mounts.open_tree_clone("", dirfd=found.fileno(), recursive=True)
    try:
        mounts.set_attributes(tree, attributes, user_namespace=user_namespace, recursive=True)
    except BaseException:
        tree.close()
        raise
    return tree


def gathered(parts: Sequence[Part], scratch: str) -> OwnedFd:
    """A read-only directory with the parts in it. Parameters and errors as of :func:`composed`."""
    attributes = mounts.Attributes(read_only=False)
    with mounts.detached_mount("tmpfs", None, (("mode", "0755"),), attributes) as root:
        tree = composed(root, parts, scratch)
    try:
        mounts.set_attributes(tree)
    except BaseException:
        tree.close()
        raise
    return tree


def composed(root: OwnedFd, parts: Sequence[Part], scratch: str) -> OwnedFd:
    """A detached mount with others at places in it, which are made there as far as they are missing.

    :param root: is used up. :param scratch: a directory, covered for a moment in a namespace that nobody else is in.
    :raise NoPlace: a part cannot be where it should be. :raise OSError: the kernel says so.
    """

    def work() -> OwnedFd:
        mounts.move_mount(root, scratch)
        with OwnedFd(os.open(scratch, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as top:
            for part in parts:
                _put(top.fileno(), part)
        return mounts.open_tree_clone(scratch, recursive=True)

    return in_private_namespace(work)


def _put(top: int, part: Part) -> None:
    is_directory = stat.S_ISDIR(os.fstat(part.mount.fileno()).st_mode)
    try:
        with _point(top, part.path, is_directory=is_directory) as point:
            mounts.move_mount_to(part.mount, point)
    except OSError as error:
        raise NoPlace(error.errno, error.strerror, part.path) from error


def _point(top: int, path: str, *, is_directory: bool) -> OwnedFd:
    """What is at a path beneath a directory; made, with the directories above, if there is nothing."""
    try:
        return open_beneath(top, path, _PATH, cross=True)
    except FileNotFoundError:
        above, name = posixpath.split(path.rstrip("/"))
        with _point(top, above, is_directory=True) as directory, contextlib.suppress(FileExistsError):
            if is_directory:
                os.mkdir(name, _MODE, dir_fd=directory.fileno())
            else:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
                os.close(os.open(name, flags, _NEW_FILE, dir_fd=directory.fileno()))
        return open_beneath(top, path, _PATH, cross=True)
