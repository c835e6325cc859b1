"""Files that a layer stores without their holes, put together in an unnamed file, holes and all."""

from __future__ import annotations

import os
from contextlib import ExitStack

from unikeel.errors import BadContent
from unikeel.images.layers import scratch_file
from unikeel.images.tarball import Entry

_ALIGN = 4096
_CHUNK = 1 << 20


class Expanded:
    """The files of all layers of an image, one after the other.

    :param scratch: directory for the temporary file, which is made when it is needed.
    :param limit: most bytes of all of them, holes included.
    :param stack: closes the file.
    """

    def __init__(self, scratch: str, limit: int, stack: ExitStack) -> None:
        self._scratch = scratch
        self._limit = limit
        self._stack = stack
        self.fd = -1
        self.size = 0

    def take(self, source: int, entry: Entry) -> Entry:
        """The same entry with its content here.

        :raises BadContent: over the limit, or the archive became shorter. :raises ResourceExhausted: no space.
        """
        from unikeel.snapshots.ext4.output import NoSpace

        if entry.sparse is None:
            return entry
        start = self.size + -self.size % _ALIGN
        if start + entry.size > self._limit:
            raise BadContent(
                f"sparse files make the image larger than the limit of {self._limit} bytes",
                "raise the limit if the image is meant to be that large",
            )
        if self.fd < 0:
            self.fd = self._stack.enter_context(scratch_file(self._scratch))
        with NoSpace(self.fd):
            os.ftruncate(self.fd, start + entry.size)
            at = entry.sparse.start
            for offset, length in entry.sparse.pieces:
                self._copy(source, at, start + offset, length)
                at += length
        self.size = start + entry.size
        return entry._replace(offset=start)

    def _copy(self, source: int, at: int, to: int, count: int) -> None:
        while count:
            data = os.pread(source, min(count, _CHUNK), at)
            if not data:
                raise BadContent("the archive became shorter while it was read")
            view = memoryview(data)
            while view:
                done = os.pwrite(self.fd, view, to)
                view, to = view[done:], to + done
            at += len(data)
            count -= len(data)
