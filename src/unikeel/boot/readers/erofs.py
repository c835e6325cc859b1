"""The reader of erofs file systems."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from types import TracebackType

from unikeel.boot.readers import erofs_dir, walk
from unikeel.boot.readers.contract import FileInfo, OpenFile
from unikeel.boot.readers.erofs_inode import ErofsInode
from unikeel.boot.readers.erofs_super import ErofsSuper
from unikeel.boot.readers.files import MappedFile, PiecewiseFile
from unikeel.boot.readers.image import Image
from unikeel.errors import BadContent
from unikeel.lean import Self


class ErofsReader:
    """See :class:`~unikeel.boot.readers.contract.Reader`; made by :func:`~unikeel.boot.readers.open_reader`.

    :raises BadContent: the superblock is damaged or has a feature that is not read.
    """

    def __init__(self, image: Image) -> None:
        image.begin()
        self._image = image
        self._fs = ErofsSuper(image)

    @property
    def fstype(self) -> str:
        """``erofs``."""
        return "erofs"

    def lookup(self, path: str) -> FileInfo:
        """The file of any type that ``path`` leads to."""
        return self._resolve(path).info

    def open(self, path: str, max_size: int) -> OpenFile:
        """The regular file that ``path`` leads to, its map checked."""
        inode = self._resolve(path)
        walk.wanted_regular(inode.info.mode, inode.info.size, path, max_size)
        return content_of(self._image, self._fs, inode)

    def readlink(self, path: str) -> bytes:
        """What the symbolic link at ``path`` holds."""
        self._image.begin()
        nodes = _Nodes(self._image, self._fs)
        inode = walk.resolve(nodes, path, follow=False)
        walk.wanted_link(inode.info.mode, path)
        return nodes.target(inode)

    def tree(self) -> Iterator[tuple[str, FileInfo]]:
        """Every path with its inode."""
        self._image.begin()
        nodes = _Nodes(self._image, self._fs)
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

    def _resolve(self, path: str) -> ErofsInode:
        self._image.begin()
        return walk.resolve(_Nodes(self._image, self._fs), path)


def content_of(image: Image, fs: ErofsSuper, inode: ErofsInode) -> OpenFile:
    """The content of an inode that has any, its map checked.

    :raises BadContent: the map is damaged, or the compression is one that is not read.
    """
    if inode.compressed():
        from unikeel.boot.readers.erofs_compressed import compressed_file

        return compressed_file(image, fs, inode)
    return MappedFile(image, inode.info, inode.plain_map(image, fs))


class _Nodes:
    """The inodes as a tree to resolve paths in."""

    def __init__(self, image: Image, fs: ErofsSuper) -> None:
        self._image = image
        self._fs = fs

    def root(self) -> ErofsInode:
        """The root directory."""
        inode = ErofsInode(self._image, self._fs, self._fs.root)
        if not stat.S_ISDIR(inode.info.mode):
            raise BadContent("the root inode is damaged: it is not a directory")
        return inode

    def mode(self, node: ErofsInode) -> int:
        """Type and permissions."""
        return node.info.mode

    def child(self, node: ErofsInode, name: bytes) -> ErofsInode | None:
        """The inode behind an entry."""
        number = erofs_dir.find(self._directory(node), self._fs.block_size, name, _named(node))
        return None if number is None else ErofsInode(self._image, self._fs, number)

    def target(self, node: ErofsInode) -> bytes:
        """What a symbolic link holds."""
        if node.info.size >= walk.PATH_MAX:
            raise BadContent(f"inode {node.info.inode} is damaged: a link of {node.info.size} bytes")
        return self._content(node)

    def entries(self, node: ErofsInode) -> Iterator[tuple[bytes, int]]:
        """A directory's names and inode numbers; each directory has a budget of its own."""
        self._image.begin()
        return erofs_dir.entries(self._directory(node), self._fs.block_size, _named(node))

    def load(self, number: int) -> ErofsInode:
        """The inode with a number."""
        return ErofsInode(self._image, self._fs, number)

    def number(self, node: ErofsInode) -> int:
        """The inode's number."""
        return node.info.inode

    def _directory(self, node: ErofsInode) -> bytes:
        if node.info.size > erofs_dir.MAX_DIRECTORY:
            raise BadContent(f"{_named(node)} has {node.info.size} bytes, more than unikeel reads")
        return self._content(node)

    def _content(self, node: ErofsInode) -> bytes:
        file = content_of(self._image, self._fs, node)
        self._image.charge(file.cost() if isinstance(file, PiecewiseFile) else node.info.size)
        return b"".join(file.chunks())


def _named(node: ErofsInode) -> str:
    return f"the directory of inode {node.info.inode}"
