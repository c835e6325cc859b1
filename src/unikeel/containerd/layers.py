"""In which layer of an image its boot files get to be what they are, told from the headers of the layers' archives.

The layers are merged in memory as for unpacking, each name with the layer that put it there; then the paths are resolved. A path is final from the
highest layer on that put one of its links or its file there: directories on the way need not be looked at, since what lies in one that was
removed and made anew was put there anew as well.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

from unikeel.containerd.records import Descriptor
from unikeel.errors import BadContent
from unikeel.images.layers import Layer, Limits, open_archive, scratch_file
from unikeel.images.tarball import Kind, entries
from unikeel.images.tree import Member, Tree
from unikeel.kernel.fd import link_of

#: The most bytes that all archives may have, uncompressed: looking is to cost less than what it saves.
LIMITS: Final = Limits(archive_bytes=4 << 30, entries=500_000, metadata_bytes=128 << 20, steps=10_000_000)
_MAX_LINKS: Final = 40

#: Writes a blob into an open file.
Fetch = Callable[[Descriptor, int], None]


class Origins:
    """The layers of an image, merged. :param layers: the lowest first, each with its diff ID.

    :param fetch: gets a blob. :param scratch: a directory for files without names.
    :raise BadContent: a layer is damaged, or all of them are too large to be looked through. :raise NotFound: a blob is not there.
    """

    def __init__(self, layers: Sequence[tuple[Descriptor, str]], fetch: Fetch, scratch: str) -> None:
        self._tree = Tree(LIMITS)
        self._linked: dict[Member, int] = {}
        left = LIMITS.archive_bytes
        for number, (blob, diff_id) in enumerate(layers):
            self._tree.begin(number, blob.digest)
            with ExitStack() as stack:
                spool = stack.enter_context(scratch_file(scratch))
                fetch(blob, spool)
                layer = Layer(diff_id, blob.digest, blob.media_type, link_of(spool))
                archive = open_archive(layer, scratch, left, stack)
                left -= archive.size
                for entry in entries(archive.fd, archive.size):
                    self._tree.add(entry)
                    if entry.kind is Kind.HARD_LINK:
                        self._note_link(entry.name, number)

    def _note_link(self, name: bytes, number: int) -> None:
        """A file of a lower layer got a new name in this one: it counts as this one's."""
        node: Member | None = self._tree.root
        for part in name.split(b"/"):
            if part not in (b"", b".") and node is not None:
                child = (node.children or {}).get(part)
                node = child if isinstance(child, Member) else None
        if node is not None:
            self._linked[node] = number

    def final_layer(self, paths: Sequence[str]) -> int:
        """The number of the lowest layer from which on all paths lead to the files that they lead to in the end.

        :raise BadContent: one leads nowhere.
        """
        return max(self._of(path) for path in paths)

    def _of(self, path: str) -> int:
        todo = deque(os.fsencode(path).split(b"/"))
        trail = [self._tree.root]
        number = links = 0
        while todo:
            part = todo.popleft()
            if part in (b"", b"."):
                continue
            if part == b"..":
                trail = trail[:-1] or trail
                continue
            node = (trail[-1].children or {}).get(part)
            if not isinstance(node, Member):
                raise BadContent(f"there is no {path!a} in the image's layers")
            if node.children is not None:
                trail.append(node)
                continue
            number = max(number, node.layer, self._linked.get(node, 0))
            if stat.S_ISLNK(node.mode):
                links += 1
                if links > _MAX_LINKS:
                    raise BadContent(f"the path {path!a} goes through too many links")
                todo.extendleft(reversed(node.target.split(b"/")))
                trail = trail[:1] if node.target.startswith(b"/") else trail
            elif any(todo):
                raise BadContent(f"the path {path!a} goes through what is not a directory")
        return number
