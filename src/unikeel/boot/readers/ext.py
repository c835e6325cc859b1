"""The reader of ext2, ext3 and ext4 file systems."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from types import TracebackType

from unikeel.boot.readers import ext_dir, walk
from unikeel.boot.readers.contract import FileInfo, OpenFile
from unikeel.boot.readers.ext_inode import FLAG_INLINE_DATA, FLAG_VERITY, ExtInode, read_inode
from unikeel.boot.readers.ext_journal import check_at_rest
from unikeel.boot.readers.ext_map import file_map
from unikeel.boot.readers.ext_super import ROOT_INODE, ExtSuper
from unikeel.boot.readers.files import MappedFile, MemoryFile
from unikeel.boot.readers.image import Image
from unikeel.errors import BadContent
from unikeel.lean import Self


class ExtReader:
    """See :class:`~unikeel.boot.readers.contract.Reader`; made by :func:`~unikeel.boot.readers.open_reader`.

    :raises BadContent: the superblock is damaged, asks for recovery, or has a feature that is not read.
    """

    def __init__(self, image: Image) -> None:
        image.begin()
        self._image = image
        self._fs = ExtSuper(image)
        check_at_rest(image, self._fs)

    @property
    def fstype(self) -> str:
        """``ext2``, ``ext3`` or ``ext4``, named after the features in use."""
        return self._fs.fstype

    def lookup(self, path: str) -> FileInfo:
        """The file of any type that ``path`` leads to."""
        return self._resolve(path).info

    def open(self, path: str, max_size: int) -> OpenFile:
        """The regular file that ``path`` leads to, its map checked."""
        inode = self._resolve(path)
        info = inode.info
        walk.wanted_regular(info.mode, info.size, path, max_size)
        inode.refuse_encrypted()
        if inode.flags & FLAG_VERITY:
            raise BadContent(f"{walk.shown(path)} has a hash tree (feature verity), which unikeel does not check")
        if inode.flags & FLAG_INLINE_DATA:
            return MemoryFile(info, inode.inline_data())
        return MappedFile(self._image, info, file_map(self._image, self._fs, inode))

    def readlink(self, path: str) -> bytes:
        """What the symbolic link at ``path`` holds."""
        self._image.begin()
        nodes = _Nodes(self._image, self._fs)
        inode = walk.resolve(nodes, path, follow=False)
        walk.wanted_link(inode.info.mode, path)
        return nodes.target(inode)

    def tree(self) -> Iterator[tuple[str, FileInfo]]:
        """Every path with its inode."""
        nodes = _Nodes(self._image, self._fs)
        self._image.begin()
        for path, node in walk.walk(nodes):
            yield path, node.info

    def close(self) -> None:
        """Let go of the descriptor."""
        self._image.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _resolve(self, path: str) -> ExtInode:
        self._image.begin()
        return walk.resolve(_Nodes(self._image, self._fs), path)


class _Nodes:
    """The inodes as a tree to resolve paths in."""

    def __init__(self, image: Image, fs: ExtSuper) -> None:
        self._image = image
        self._fs = fs

    def root(self) -> ExtInode:
        """The root directory."""
        inode = read_inode(self._image, self._fs, ROOT_INODE)
        if not stat.S_ISDIR(inode.info.mode):
            raise BadContent("the root inode is damaged: it is not a directory")
        return inode

    def mode(self, node: ExtInode) -> int:
        """Type and permissions."""
        return node.info.mode

    def child(self, node: ExtInode, name: bytes) -> ExtInode | None:
        """The inode behind an entry."""
        number = ext_dir.find(self._image, self._fs, node, name)
        return None if number is None else read_inode(self._image, self._fs, number)

    def target(self, node: ExtInode) -> bytes:
        """What a symbolic link holds: in the inode, or in one block."""
        node.refuse_encrypted()
        size = node.info.size
        if not 0 < size < walk.PATH_MAX:
            raise BadContent(f"inode {node.info.inode} is damaged: a link of {size} bytes")
        if node.flags & FLAG_INLINE_DATA:
            return node.inline_data()
        if node.is_short_link(self._fs):
            if size >= len(node.map):
                raise BadContent(f"inode {node.info.inode} is damaged: a link of {size} bytes without a block")
            return node.map[:size]
        extents = file_map(self._image, self._fs, node)
        if any(extent.physical is None for extent in extents):
            raise BadContent(f"inode {node.info.inode} is damaged: a link with a hole")
        what = f"the link of inode {node.info.inode}"
        return b"".join(self._image.metadata(extent.physical or 0, extent.length, what) for extent in extents)

    def entries(self, node: ExtInode) -> Iterator[tuple[bytes, int]]:
        """A directory's names and inode numbers; each directory has a budget of its own."""
        self._image.begin()
        return ext_dir.entries(self._image, self._fs, node)

    def load(self, number: int) -> ExtInode:
        """The inode with a number."""
        return read_inode(self._image, self._fs, number)

    def number(self, node: ExtInode) -> int:
        """The inode's number."""
        return node.info.inode
