"""A directory tree of this host as nodes for the writer: reached by descriptors from its root on, no link ever followed.

What a file system of the guest's own cannot need is left out: sockets, the whiteouts of a lone layer, and the attributes that belong to
this host (overlayfs's notes, SELinux's labels, EVM's signatures).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence

from unikeel.errors import BadContent, ResourceExhausted, Unavailable
from unikeel.kernel.fd import OwnedFd
from unikeel.lean import Final, Self
from unikeel.snapshots.ext4.layout import BLOCK
from unikeel.snapshots.ext4.nodes import Data, Node
from unikeel.snapshots.ext4.xattrs import known
from unikeel.values import NamedTuple

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_WHITEOUT: Final = (0, 0)
_OF_THIS_HOST: Final = (b"trusted.overlay.", b"user.overlay.", b"security.selinux", b"security.evm")
_NO_ATTRIBUTES: Final = frozenset({errno.ENOTSUP, errno.ENODATA, errno.ENOSYS})

_Names = tuple[bytes, ...]


class Bounds(NamedTuple):
    """What a tree may have at most: bytes of files, names, and bytes of names, link targets and attributes, which are held in memory."""

    size: int
    entries: int = 2_000_000
    metadata: int = 512 << 20


class _File(NamedTuple):
    """Where a regular file is, and what tells that it is still the one that was seen."""

    directory: _Names
    name: bytes
    inode: int
    size: int


class HostTree:
    """A tree as it was found, and its files; a context manager.

    :param top: its root directory; closed with the tree.
    :param look: called every now and then; what it raises ends the work.
    :raise ResourceExhausted: it has more than the bounds. :raise Unavailable: it cannot be read.
    """

    def __init__(self, top: OwnedFd, bounds: Bounds, look: Callable[[], None]) -> None:
        self._top = top
        self._bounds = bounds
        self._look = look
        self._files: list[_File] = []
        self._linked: dict[tuple[int, int], Node] = {}
        #: The directory that was opened last: files come in the order of their directories.
        self._near: tuple[_Names, OwnedFd] | None = None
        self._file = OwnedFd(-1)
        self.entries = 0
        #: Bytes of all files, in whole blocks.
        self.size = 0
        self._metadata = 0
        try:
            self.root = self._scan()
        except OSError as error:
            self.close()
            raise Unavailable(f"the image's files cannot be read: {error.strerror}") from error
        except BaseException:
            self.close()
            raise

    # -- looking -----------------------------------------------------------------------------------------------------

    def _scan(self) -> Node:
        with OwnedFd(os.open(".", _DIRECTORY, dir_fd=self._top.fileno())) as top:
            info = os.fstat(top.fileno())
            root = _described(info, self._attributes(f"/proc/self/fd/{top.fileno()}".encode(), follow=True))
        waiting: list[tuple[_Names, Node]] = [((), root)]
        while waiting:
            self._look()
            path, node = waiting.pop()
            children = self._scan_one(path)
            node.children = children
            waiting += [((*path, name), child) for name, child in children.items() if child.children is not None]
        return root

    def _scan_one(self, path: _Names) -> dict[bytes, Node]:
        children: dict[bytes, Node] = {}
        directory = self._directory(path)
        with os.scandir(directory.fileno()) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                child = self._node(path, directory, name, entry.stat(follow_symlinks=False))
                if child is not None:
                    children[name] = child
        return children

    def _node(self, path: _Names, directory: OwnedFd, name: bytes, info: os.stat_result) -> Node | None:
        """One entry; None: it is left out."""
        if stat.S_ISSOCK(info.st_mode) or (stat.S_ISCHR(info.st_mode) and _device(info) == _WHITEOUT):
            return None
        self._count(len(name))
        identity = (info.st_dev, info.st_ino)
        many = info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode)
        if many and identity in self._linked:
            return self._linked[identity]
        place = b"/proc/self/fd/%d/%s" % (directory.fileno(), name)
        node = _described(info, self._attributes(place, follow=False))
        if stat.S_ISREG(info.st_mode) and info.st_size:
            self._measure(info.st_size)
            node.data = Data(len(self._files), 0, info.st_size)
            self._files.append(_File(path, name, info.st_ino, info.st_size))
        elif stat.S_ISLNK(info.st_mode):
            node.target = os.readlink(name, dir_fd=directory.fileno())
            self._count(len(node.target), entries=0)
        if many:
            self._linked[identity] = node
        return node

    def _attributes(self, place: bytes, *, follow: bool) -> dict[bytes, bytes] | None:
        try:
            names = os.listxattr(place, follow_symlinks=follow)
        except OSError as error:
            if error.errno in _NO_ATTRIBUTES:
                return None
            raise
        found = {
            encoded: os.getxattr(place, name, follow_symlinks=follow)
            for name in names
            if known(encoded := os.fsencode(name)) and not encoded.startswith(_OF_THIS_HOST)
        }
        self._count(sum(len(name) + len(value) for name, value in found.items()), entries=0)
        return found or None

    def _count(self, metadata: int, entries: int = 1) -> None:
        self.entries += entries
        self._metadata += metadata
        if self.entries > self._bounds.entries:
            raise ResourceExhausted(f"the image has more than {self._bounds.entries} files")
        if self._metadata > self._bounds.metadata:
            raise ResourceExhausted(
                f"the image has more than {self._bounds.metadata} bytes of names, links and attributes"
            )

    def _measure(self, size: int) -> None:
        self.size += -(-size // BLOCK) * BLOCK
        if self.size > self._bounds.size:
            raise ResourceExhausted(
                f"the image's files have more than {self._bounds.size >> 20} MiB", "raise containerd.made_limit"
            )

    # -- reading -----------------------------------------------------------------------------------------------------

    def open(self, number: int) -> int:
        """The descriptor of a file by its number, good until the next call. :raise BadContent: it is not what was seen any more."""
        self._look()
        file = self._files[number]
        try:
            self._file.close()
            self._file = OwnedFd(os.open(file.name, _FILE, dir_fd=self._directory(file.directory).fileno()))
        except OSError as error:
            raise Unavailable(f"the image's file {_shown(file)} cannot be opened: {error.strerror}") from error
        info = os.fstat(self._file.fileno())
        if not stat.S_ISREG(info.st_mode) or (info.st_ino, info.st_size) != (file.inode, file.size):
            raise BadContent(f"{_shown(file)} was changed while the image was read: a committed snapshot never changes")
        return self._file.fileno()

    def _directory(self, path: _Names) -> OwnedFd:
        """A directory of the tree, open until another is asked for. Each name is opened in the directory before it."""
        if self._near is not None and self._near[0] == path:
            return self._near[1]
        directory = _descend(self._top, path)
        if self._near is not None:
            self._near[1].close()
        self._near = (path, directory)
        return directory

    def close(self) -> None:
        """Close all that is open. Closing twice is fine."""
        self._file.close()
        if self._near is not None:
            self._near[1].close()
        self._top.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_details: object) -> None:
        self.close()


def _descend(top: OwnedFd, names: Sequence[bytes]) -> OwnedFd:
    directory = OwnedFd(os.open(".", _DIRECTORY, dir_fd=top.fileno()))
    for name in names:
        with directory as above:
            directory = OwnedFd(os.open(name, _DIRECTORY, dir_fd=above.fileno()))
    return directory


def _described(info: os.stat_result, attributes: dict[bytes, bytes] | None) -> Node:
    return Node(
        info.st_mode,
        uid=info.st_uid,
        gid=info.st_gid,
        mtime=info.st_mtime_ns,
        xattrs=attributes,
        device=_device(info),
    )


def _device(info: os.stat_result) -> tuple[int, int]:
    return os.major(info.st_rdev), os.minor(info.st_rdev)


def _shown(file: _File) -> str:
    return repr(b"/".join((b"", *file.directory, file.name))[-300:].decode("utf-8", "backslashreplace"))
