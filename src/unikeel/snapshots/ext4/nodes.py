"""The tree that the ext4 writer turns into a file system: plain nodes in memory, no file contents."""

from __future__ import annotations

import stat
from collections.abc import Mapping

from unikeel.values import NamedTuple


class Data(NamedTuple):
    """Where the bytes of a regular file are: ``size`` bytes at ``offset`` of the source with that number."""

    source: int
    offset: int
    size: int


class ImageStats(NamedTuple):
    """What was written.

    :ivar size: apparent size of the image in bytes.
    :ivar blocks: bytes that the image really takes on the host.
    :ivar files: inodes used by the tree, its root included.
    """

    size: int
    blocks: int
    files: int


class Node:
    """One inode. A node that occurs under several names is a hard link.

    :ivar mode: type and permission bits as in ``st_mode``.
    :ivar uid: owner, 0 … 2³²-1.
    :ivar gid: group, 0 … 2³²-1.
    :ivar mtime: nanoseconds since 1970; also written as the other three times. Clamped to what ext4 can hold.
    :ivar xattrs: full names (``user.x``) to values as ``getxattr`` gives them.
    :ivar children: of a directory: names to nodes; no name is empty, ``.``, ``..`` or has more than 255 bytes.
    :ivar target: of a symbolic link.
    :ivar device: of a device node: major and minor number.
    :ivar data: of a regular file; ``None`` is an empty one.
    """

    __slots__ = (
        "children",
        "data",
        "device",
        "gid",
        "ino",
        "links",
        "mode",
        "mtime",
        "target",
        "uid",
        "up",
        "xattrs",
    )

    def __init__(
        self,
        mode: int,
        *,
        uid: int = 0,
        gid: int = 0,
        mtime: int = 0,
        xattrs: Mapping[bytes, bytes] | None = None,
        target: bytes = b"",
        device: tuple[int, int] = (0, 0),
        data: Data | None = None,
    ) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime = mtime
        self.xattrs = xattrs
        self.target = target
        self.device = device
        self.data = data
        self.children: dict[bytes, Node] | None = {} if stat.S_ISDIR(mode) else None
        # The writer's own notes: inode number, number of names, and a directory's parent.
        self.ino = 0
        self.links = 0
        self.up = 0

    @property
    def size(self) -> int:
        """Bytes of a regular file's content."""
        return self.data.size if self.data is not None else 0
