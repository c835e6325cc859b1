"""Merges the layers' entries into one tree in memory, by the rules of the OCI image specification (layer.md).

Nothing here touches a file system, so no name and no link of a layer can reach anything outside the tree. What
would have escaped elsewhere is still refused, because an image that tries is not what it says it is.
"""

from __future__ import annotations

import stat

from unikeel.errors import BadContent
from unikeel.images.layers import Limits
from unikeel.images.tarball import Entry, Kind
from unikeel.snapshots.ext4.nodes import Data, Node
from unikeel.snapshots.ext4.xattrs import known

#: The number of the source that has the content of files which their layer stores without holes.
EXPANDED = -1

_WHITEOUT = b".wh."
_META = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
_MAX_PATH = 4096
_MAX_NAME = 255
_MAX_TARGET = 4095
_MAX_SYMLINKS = 40
_TYPES = {
    Kind.FILE: stat.S_IFREG,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.CHARACTER: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.FIFO: stat.S_IFIFO,
}


class Member(Node):
    """A node of the tree being merged.

    :ivar layer: the layer whose entry made it or last described it.
    :ivar touched: the last layer that put something at or below it.
    :ivar pruned: the last layer after whose whiteout nothing of lower layers is below it.
    """

    __slots__ = ("layer", "pruned", "touched")

    layer: int
    touched: int
    pruned: int


class _Refused(Exception):
    """An entry cannot be; the message is half a sentence about it."""


class Tree:
    """The root file system as far as it has been put together."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._entries = 0
        self._metadata = 0
        self._steps = 0
        self._layer = -1
        self._layer_name = ""
        self._cached: tuple[bytes, Member] | None = None
        # Names that this layer gave to files of lower layers: the node does not tell which of its names is new.
        self._linked: set[tuple[Member, bytes]] = set()
        self.root = self._directory(-1)

    def begin(self, layer: int, name: str) -> None:
        """What is added from now on belongs to the next higher layer.

        :param layer: its number, which is also the number of the source of its files' data.
        :param name: what messages call it.
        """
        self._layer, self._layer_name, self._cached = layer, name, None
        self._linked.clear()

    def add(self, entry: Entry) -> None:
        """Applies one entry.

        :raises BadContent: it breaks a rule or exceeds a limit; the message names the layer and the entry.
        """
        try:
            self._add(entry)
        except _Refused as error:
            raise BadContent(f"layer {self._layer_name}: entry {_shown(entry.name)} {error}") from error

    def _add(self, entry: Entry) -> None:
        parts = _components(entry.name)
        self._count(1, sum(map(len, parts)) + len(entry.link) + sum(len(k) + len(v) for k, v in entry.xattrs.items()))
        if not parts:
            self._describe_root(entry)
            return
        if any(part.startswith(_META) for part in parts) and parts[-1] != _OPAQUE:
            # aufs kept its own notes under such names.
            return
        if any(part.startswith(_WHITEOUT) for part in parts[:-1]):
            raise _Refused("lies below a whiteout")
        name = parts[-1]
        if name.startswith(_WHITEOUT):
            self._white_out(parts[:-1], name)
            return
        if entry.kind is Kind.HARD_LINK:
            # Looked up first: the name may be about to replace what it links to.
            node = self._link_target(entry)
            parent = self._parent(parts[:-1])
            self._replace(parent, name, node)
            self._linked.add((parent, name))
            return
        self._put(self._parent(parts[:-1]), name, entry)

    def _describe_root(self, entry: Entry) -> None:
        if entry.kind is not Kind.DIRECTORY:
            raise _Refused("would replace the root directory")
        self._describe(self.root, entry)

    def _put(self, parent: Member, name: bytes, entry: Entry) -> None:
        present = _child(parent, name)
        if entry.kind is Kind.DIRECTORY and present is not None and present.children is not None:
            self._describe(present, entry)
            return
        node = Member(_TYPES[entry.kind])
        node.pruned = -1
        self._describe(node, entry)
        if entry.kind is Kind.FILE and entry.size:
            node.data = Data(self._layer if entry.sparse is None else EXPANDED, entry.offset, entry.size)
        elif entry.kind is Kind.SYMLINK:
            if not 0 < len(entry.link) <= _MAX_TARGET:
                raise _Refused(f"is a symbolic link with a target of {len(entry.link)} bytes")
            node.target = entry.link
        node.device = entry.device
        self._replace(parent, name, node)

    def _describe(self, node: Member, entry: Entry) -> None:
        """Gives a node the attributes of an entry, all of them: those of a lower layer's directory do not stay."""
        node.mode = stat.S_IFMT(node.mode) | entry.mode
        node.uid, node.gid, node.mtime = entry.uid, entry.gid, entry.mtime
        # Attributes that no Linux kernel can set (those of other systems) are left out, as containerd does.
        node.xattrs = {name: value for name, value in entry.xattrs.items() if known(name)} or None
        node.layer = node.touched = self._layer

    def _replace(self, parent: Member, name: bytes, node: Member) -> None:
        present = _child(parent, name)
        if present is not None and (present.children is not None or stat.S_ISLNK(present.mode)):
            self._cached = None
        _children(parent)[name] = node

    def _link_target(self, entry: Entry) -> Member:
        """What a hard link names: never followed if it is itself a symbolic link."""
        parts = _components(entry.link)
        if not parts:
            raise _Refused("is a hard link to the root directory")
        found = self._walk(parts[:-1], create=False)
        node = _child(found, parts[-1]) if found is not None else None
        if node is None:
            raise _Refused(f"is a hard link to {_shown(entry.link)}, which does not exist")
        if node.children is not None:
            raise _Refused(f"is a hard link to the directory {_shown(entry.link)}")
        return node

    def _white_out(self, parts: list[bytes], name: bytes) -> None:
        """Removes what lower layers have; what this layer has put there stays, whichever came first."""
        hidden = name.removeprefix(_WHITEOUT)
        if name != _OPAQUE and hidden in {b"", b".", b".."}:
            raise _Refused("is a whiteout without a name")
        directory = self._walk(parts, create=False)
        if directory is None:
            return
        self._cached = None
        if name == _OPAQUE:
            self._prune(directory)
            return
        node = _child(directory, hidden)
        if node is None:
            return
        if not self._is_new(directory, hidden, node):
            del _children(directory)[hidden]
            return
        if node.children is not None:
            self._prune(node)
            self._forget(node)

    def _prune(self, top: Member) -> None:
        """Takes everything of lower layers out from below a directory."""
        waiting = [top]
        while waiting:
            directory = waiting.pop()
            if directory.pruned == self._layer:
                continue
            directory.pruned = self._layer
            kept: dict[bytes, Node] = {}
            for name, node in _children(directory).items():
                if isinstance(node, Member) and self._is_new(directory, name, node):
                    kept[name] = node
                    if node.children is not None:
                        self._forget(node)
                        waiting.append(node)
            directory.children = kept

    def _is_new(self, directory: Member, name: bytes, node: Member) -> bool:
        """Whether this layer put something there, or below it."""
        return node.touched == self._layer or (directory, name) in self._linked

    def _forget(self, directory: Member) -> None:
        """A directory that only lower layers described is from now on one that this layer's paths imply."""
        if directory.layer != self._layer:
            directory.mode, directory.uid, directory.gid = stat.S_IFDIR | 0o755, 0, 0
            directory.mtime, directory.xattrs, directory.layer = 0, None, self._layer

    def _parent(self, parts: list[bytes]) -> Member:
        """The directory that these components name, made where it is missing; marked as touched all the way."""
        path = b"/".join(parts)
        if self._cached is not None and self._cached[0] == path:
            return self._cached[1]
        node = self._walk(parts, create=True)
        if node is None:
            raise _Refused("has no parent directory")
        self._cached = (path, node)
        return node

    def _walk(self, parts: list[bytes], *, create: bool) -> Member | None:
        """Follows components from the root, symbolic links within the root included.

        :param create: make missing directories, and mark all on the way as touched by this layer.
        """
        trail = [self.root]
        # Components still to come, the next one last; those of a link's target are marked as not ours to create.
        waiting = [(part, False) for part in reversed(parts)]
        links = 0
        while waiting:
            part, of_link = waiting.pop()
            self._steps += 1
            if part == b"..":
                if len(trail) == 1:
                    raise _Refused("leads through a symbolic link that leaves the image's root")
                trail.pop()
                continue
            node = _child(trail[-1], part)
            if node is None:
                if not create:
                    return None
                if of_link:
                    raise _Refused("leads through a symbolic link to something that does not exist")
                node = self._imply(trail[-1], part)
            if stat.S_ISLNK(node.mode):
                links += 1
                if links > _MAX_SYMLINKS:
                    raise _Refused("leads through looping links")
                if node.target.startswith(b"/"):
                    del trail[1:]
                waiting += [(step, True) for step in _link_components(node.target)]
                continue
            if node.children is None:
                if create:
                    raise _Refused(f"lies below {_shown(part)}, which is not a directory")
                return None
            trail.append(node)
        if self._steps > self._limits.steps:
            raise _Refused("makes the image exceed the limit of path lookups")
        if create:
            for node in trail:
                node.touched = self._layer
        return trail[-1]

    def _imply(self, parent: Member, name: bytes) -> Member:
        self._count(1, len(name))
        node = self._directory(self._layer)
        _children(parent)[name] = node
        return node

    def _directory(self, layer: int) -> Member:
        node = Member(stat.S_IFDIR | 0o755)
        node.layer = node.touched = layer
        node.pruned = -1
        return node

    def _count(self, entries: int, metadata: int) -> None:
        self._entries += entries
        self._metadata += metadata
        if self._entries > self._limits.entries:
            raise _Refused(f"is one more than the limit of {self._limits.entries} entries")
        if self._metadata > self._limits.metadata_bytes:
            raise _Refused(f"exceeds the limit of {self._limits.metadata_bytes} bytes of names, links and attributes")


def _components(path: bytes) -> list[bytes]:
    """A path's components, taken relative to the root."""
    if len(path) > _MAX_PATH:
        raise _Refused(f"has a path of {len(path)} bytes, more than {_MAX_PATH}")
    parts = [part for part in path.split(b"/") if part and part != b"."]
    if b".." in parts:
        raise _Refused("has a path with '..' in it")
    if any(len(part) > _MAX_NAME for part in parts):
        raise _Refused(f"has a name of more than {_MAX_NAME} bytes in its path")
    return parts


def _link_components(target: bytes) -> list[bytes]:
    """A symbolic link's target as components, the first one last."""
    return [part for part in reversed(target.split(b"/")) if part and part != b"."]


def _children(directory: Member) -> dict[bytes, Node]:
    if directory.children is None:
        raise _Refused("lies below something that is not a directory")
    return directory.children


def _child(directory: Member, name: bytes) -> Member | None:
    node = _children(directory).get(name)
    return node if isinstance(node, Member) else None


def _shown(name: bytes) -> str:
    return repr(name[-300:].decode("utf-8", "backslashreplace"))
