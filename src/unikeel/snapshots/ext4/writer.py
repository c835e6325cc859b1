"""From a tree of nodes to a finished ext4 image in an open file.

The tree is walked three times: to number the inodes, to sum up what they need, and to write them. Inode tables and
data are two ascending streams; the bitmaps, descriptors and superblocks come last, so an image that was not finished
is not a file system at all.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

from unikeel.errors import BadContent, InvalidArgument
from unikeel.snapshots.ext4 import directories, inodes, layout, xattrs
from unikeel.snapshots.ext4.image import Image
from unikeel.snapshots.ext4.layout import BLOCK, FIRST_INODE, Demand
from unikeel.snapshots.ext4.nodes import ImageStats, Node
from unikeel.snapshots.ext4.output import NoSpace

DEFAULT_FREE_BYTES = 256 << 20
_ROOT = 2


def write_image(
    fd: int,
    root: Node,
    *,
    uuid: bytes,
    free_bytes: int = DEFAULT_FREE_BYTES,
    open_data: Callable[[int], int],
    progress: Callable[[int], None] | None = None,
) -> ImageStats:
    """Writes the tree below ``root`` as an ext4 file system and syncs it.

    :param fd: an empty regular file, open for reading and writing.
    :param root: the root directory. Its nodes' notes (inode numbers) are overwritten, children are put in order.
    :param uuid: 16 bytes.
    :param free_bytes: free space wanted beside a tenth of the content.
    :param open_data: from the number of a source to an open file descriptor of it, which stays the caller's.
    :param progress: told the number of content bytes written since the last call.
    :raises BadContent: something in the tree cannot be stored, or a source is shorter than the tree says.
    :raises ResourceExhausted: no space.
    """
    nodes = number(root)
    geometry = layout.plan(Demand(len(nodes), sum(_demand(root, node) for node in nodes), free_bytes))
    with NoSpace(fd):
        image = Image(fd, geometry, uuid)
        for node in nodes:
            image.add(node, open_data, progress)
        image.finish()
    return ImageStats(geometry.blocks * BLOCK, os.fstat(fd).st_blocks * 512, len(nodes))


def empty_image(fd: int, size: int, *, uuid: bytes) -> ImageStats:
    """Writes an ext4 file system of ``size`` bytes that has nothing but a root directory (0755, root's).

    :raises InvalidArgument: the size is below 16 MiB or above 16 TiB.
    :raises ResourceExhausted: no space.
    """
    geometry = layout.plan_fixed(size)
    root = Node(stat.S_IFDIR | 0o755)
    with NoSpace(fd):
        image = Image(fd, geometry, uuid)
        for node in number(root):
            image.add(node, _no_data, None)
        image.finish()
        os.ftruncate(fd, size)
    return ImageStats(size, os.fstat(fd).st_blocks * 512, 1)


def _no_data(source: int) -> int:
    raise InvalidArgument(f"there is no source {source}")


def number(root: Node) -> list[Node]:
    """Gives every node its inode number and count of links; all nodes in that order.

    :raises BadContent: a file has more names than ext4 can count.
    """
    for directory in _directories(root):
        for child in (directory.children or {}).values():
            child.ino = child.links = 0
    root.ino, root.up, root.links = _ROOT, _ROOT, 2
    nodes, following = [root], FIRST_INODE
    for directory in _directories(root):
        for name, child in (directory.children or {}).items():
            if not child.ino:
                child.ino = following
                following += 1
                nodes.append(child)
            child.links += 1
            if child.children is not None:
                child.up, child.links = directory.ino, 2
                directory.links += 1
            elif child.links > inodes.MAX_LINKS:
                raise BadContent(f"{_shown(name)} has more than {inodes.MAX_LINKS} names")
    return nodes


def _directories(root: Node) -> Iterator[Node]:
    """All directories, parents first, their children put in the order of their names."""
    waiting = [root]
    while waiting:
        directory = waiting.pop()
        directory.children = children = dict(sorted((directory.children or {}).items()))
        yield directory
        waiting.extend(child for child in reversed(children.values()) if child.children is not None)


def _demand(root: Node, node: Node) -> int:
    """Data blocks of a node, at most; what cannot be stored is refused here, before anything is written."""
    try:
        return _blocks_needed(node)
    except BadContent as error:
        raise BadContent(f"{_path_of(root, node)} cannot be stored in ext4: {error.message}") from error


def _blocks_needed(node: Node) -> int:
    blocks = 0
    if node.children is not None:
        blocks = directories.block_count(node.children)
    elif stat.S_ISREG(node.mode):
        blocks = -(-node.size // BLOCK)
    elif stat.S_ISLNK(node.mode):
        if not 0 < len(node.target) <= inodes.MAX_LINK_TARGET:
            raise BadContent(f"a symbolic link's target cannot have {len(node.target)} bytes")
        blocks = 0 if inodes.is_fast_link(node) else 1
    elif stat.S_ISCHR(node.mode) or stat.S_ISBLK(node.mode):
        inodes.device_map(*node.device)
    return blocks + inodes.extent_tree_blocks(blocks) + (1 if xattrs.encode(node.xattrs).block else 0)


def _path_of(root: Node, wanted: Node) -> str:
    """The first path of a node, for a message."""
    waiting = [(root, b"")]
    while waiting:
        node, path = waiting.pop()
        if node is wanted:
            return _shown(path or b"/")
        waiting.extend((child, path + b"/" + name) for name, child in (node.children or {}).items())
    return f"inode {wanted.ino}"


def _shown(name: bytes) -> str:
    return repr(name[-300:].decode("utf-8", "backslashreplace"))
