"""The inode tables, filled in ascending order."""

from __future__ import annotations

from collections.abc import Sequence

from unikeel.snapshots.ext4.layout import BLOCK, FIRST_INODE, INODE_SIZE
from unikeel.snapshots.ext4.output import Output

_BUFFER = 1 << 20


class InodeTables:
    """Takes the reserved inodes in any order first, then all others one after the other from the first free number.

    :param tables: the first block of each group's table.
    :param group_inodes: inodes of one group.
    """

    def __init__(self, fd: int, tables: Sequence[int], group_inodes: int) -> None:
        self._output = Output(fd)
        self._tables = tables
        self._group_bytes = group_inodes * INODE_SIZE
        self._buffer = bytearray(INODE_SIZE * (FIRST_INODE - 1))
        self._flushed = 0
        self.last = FIRST_INODE - 1

    def put(self, ino: int, inode: bytes) -> None:
        """Adds one inode of 256 bytes."""
        if ino < FIRST_INODE:
            self._buffer[(ino - 1) * INODE_SIZE : ino * INODE_SIZE] = inode
            return
        if len(self._buffer) >= _BUFFER:
            self._drain()
        self._buffer += inode
        self.last = ino

    def flush(self) -> None:
        """Writes what has been collected; nothing can be added after that."""
        self._buffer += bytes(-len(self._buffer) % BLOCK)
        self._drain()
        self._output.flush()

    def _drain(self) -> None:
        """Writes the buffer, cut where a group's table ends. Its size is a whole number of blocks here."""
        view = memoryview(self._buffer)
        while view:
            group, inside = divmod(self._flushed, self._group_bytes)
            part = view[: self._group_bytes - inside]
            self._output.write(self._tables[group] * BLOCK + inside, bytes(part))
            self._flushed += len(part)
            view = view[len(part) :]
        self._buffer = bytearray()
