"""Path resolution with the kernel's rules, over anything that can name children and read links.

The rules are those of ``openat2(root, path, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV)`` (openat2(2),
path_resolution(7)): the image's root is the root of absolute links, ``..`` does not leave it, the last link is
followed, at most 40 links are followed in all, and a trailing slash asks for a directory. Two differences of taste:
an empty path and one with a NUL are refused as bad names, because no system call could be asked about them.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from itertools import islice

from unikeel.boot.readers.contract import PathError, PathReason
from unikeel.errors import BadContent
from unikeel.lean import Protocol, TypeVar

#: Links followed in one resolution (MAXSYMLINKS), bytes of a path with its NUL (PATH_MAX), bytes of a name (NAME_MAX).
MAX_LINKS = 40
PATH_MAX = 4096
NAME_MAX = 255

#: Bounds of a walk over a whole tree.
MAX_ENTRIES = 1 << 20
MAX_DIRECTORY = 1 << 18
MAX_DEPTH = 256

Node = TypeVar("Node")


class Tree(Protocol[Node]):
    """A tree of nodes that paths are resolved in."""

    def root(self) -> Node:
        """The root directory."""

    def mode(self, node: Node) -> int:
        """The node's type and permissions."""

    def child(self, node: Node, name: bytes) -> Node | None:
        """The entry ``name`` of the directory ``node``, or None; never asked for ``.`` or ``..``."""

    def target(self, node: Node) -> bytes:
        """What the symbolic link ``node`` holds."""


def resolve(tree: Tree[Node], path: str, *, follow: bool = True) -> Node:
    """The node that ``path`` leads to; with ``follow`` false a link at the very end is the answer itself.

    :raises PathError: with the reason.
    :raises BadContent: a link or directory on the way is damaged.
    """
    raw = _encode(path)
    parents = [tree.root()]
    node: Node = parents[0]
    todo = _split(raw)
    links = 0
    while todo:
        name = todo.pop()
        if not stat.S_ISDIR(tree.mode(node)):
            raise PathError(PathReason.NOT_DIRECTORY, f"the path {shown(path)} goes through what is not a directory")
        if name == b".":
            continue
        if name == b"..":
            if len(parents) > 1:
                parents.pop()
            node = parents[-1]
            continue
        found = _step(tree, node, name, path)
        if stat.S_ISLNK(tree.mode(found)) and (follow or todo):
            links += 1
            if links > MAX_LINKS:
                raise PathError(
                    PathReason.LINK_LOOP, f"the path {shown(path)} goes through more than {MAX_LINKS} links"
                )
            target = _link(tree, found, path)
            todo += _split(target)
            if target.startswith(b"/"):
                del parents[1:]
            node = parents[-1]
            continue
        node = found
        if stat.S_ISDIR(tree.mode(node)):
            parents.append(node)
    return node


def _step(tree: Tree[Node], node: Node, name: bytes, path: str) -> Node:
    if len(name) > NAME_MAX:
        raise PathError(PathReason.NAME_TOO_LONG, f"the path {shown(path)} has a name of more than {NAME_MAX} bytes")
    found = tree.child(node, name)
    if found is None:
        raise PathError(PathReason.MISSING, f"there is no {shown(path)} in the image")
    return found


def _link(tree: Tree[Node], node: Node, path: str) -> bytes:
    target = tree.target(node)
    if len(target) >= PATH_MAX:
        raise BadContent(f"a link on the way to {shown(path)} is {len(target)} bytes long")
    return target.partition(b"\0")[0]  # the kernel's strings end there, too


def _split(raw: bytes) -> list[bytes]:
    """The names of a path, the first one last; a trailing slash becomes the name ``.``, which asks for a directory."""
    names = [name for name in raw.split(b"/") if name]
    if raw.endswith(b"/"):
        names.append(b".")
    names.reverse()
    return names


def _encode(path: str) -> bytes:
    try:
        raw = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise PathError(PathReason.BAD_NAME, f"the path {shown(path)} is not text") from None
    if not raw or b"\0" in raw:
        raise PathError(PathReason.BAD_NAME, f"the path {shown(path)} is empty or holds a NUL")
    if len(raw) >= PATH_MAX:
        raise PathError(PathReason.NAME_TOO_LONG, f"the path {shown(path)} is {len(raw)} bytes long")
    return raw


def shown(path: str) -> str:
    """The path as a message prints it: printable, and not longer than a line."""
    text = ascii(path)[1:-1]
    return f"'{text}'" if len(text) <= 120 else f"'{text[:100]}…' ({len(path)} characters)"


def wanted_regular(mode: int, size: int, path: str, max_size: int) -> None:
    """:raises PathError: what was found is not a regular file of at most ``max_size`` bytes."""
    if not stat.S_ISREG(mode):
        raise PathError(PathReason.NOT_REGULAR, f"{shown(path)} is not a regular file")
    if size > max_size:
        raise PathError(
            PathReason.TOO_LARGE, f"{shown(path)} has {size} bytes, more than the limit of {max_size} bytes"
        )


def wanted_link(mode: int, path: str) -> None:
    """:raises PathError: what was found is not a symbolic link."""
    if not stat.S_ISLNK(mode):
        raise PathError(PathReason.NOT_LINK, f"{shown(path)} is not a symbolic link")


class Listing(Tree[Node], Protocol[Node]):
    """A tree whose directories can be listed."""

    def entries(self, node: Node) -> Iterator[tuple[bytes, int]]:
        """A directory's names with the numbers of their inodes, without ``.`` and ``..``."""

    def load(self, number: int) -> Node:
        """The node with an inode number."""

    def number(self, node: Node) -> int:
        """The inode number of a node."""


def walk(tree: Listing[Node]) -> Iterator[tuple[str, Node]]:
    """Every path of the tree with its node, parents first, names in order.

    :raises BadContent: a directory is its own ancestor, or the tree is over the bounds.
    """
    root = tree.root()
    stack: list[tuple[str, Node, frozenset[int]]] = [("", root, frozenset())]
    count = 1
    yield "/", root
    while stack:
        prefix, directory, above = stack.pop()
        above |= {tree.number(directory)}
        deeper: list[tuple[str, Node, frozenset[int]]] = []
        for name, number in _sorted_entries(tree, directory, prefix):
            path = f"{prefix}/{name.decode('utf-8', 'surrogateescape')}"
            count += 1
            if count > MAX_ENTRIES or len(above) > MAX_DEPTH:
                raise BadContent(f"the tree of files is larger or deeper than unikeel reads, at {shown(path)}")
            node = tree.load(number)
            yield path, node
            if stat.S_ISDIR(tree.mode(node)):
                if number in above:
                    raise BadContent(f"the directory {shown(path)} is its own ancestor")
                deeper.append((path, node, above))
        stack.extend(reversed(deeper))


def _sorted_entries(tree: Listing[Node], directory: Node, path: str) -> list[tuple[bytes, int]]:
    found = list(islice(tree.entries(directory), MAX_DIRECTORY + 1))
    if len(found) > MAX_DIRECTORY:
        raise BadContent(f"the directory {shown(path or '/')} has more than {MAX_DIRECTORY} names")
    return sorted(found)
