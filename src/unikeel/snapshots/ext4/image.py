"""An ext4 image that is being written: allocation, data and inodes in ascending order, then what describes them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from unikeel.errors import BadContent, InvalidArgument
from unikeel.snapshots.ext4 import directories, inodes, layout, superblock, xattrs
from unikeel.snapshots.ext4.layout import BLOCK, Allocator, Geometry
from unikeel.snapshots.ext4.nodes import Node
from unikeel.snapshots.ext4.output import Output, name_of
from unikeel.snapshots.ext4.tables import InodeTables

_CHUNK = 1 << 20
_EMPTY_MAP = bytes(60)


class Image:
    """An image that is being written."""

    def __init__(self, fd: int, geometry: Geometry, uuid: bytes) -> None:
        if len(uuid) != 16:
            raise InvalidArgument(f"a UUID has 16 bytes, not {len(uuid)}")
        if os.fstat(fd).st_size:
            raise InvalidArgument(f"{name_of(fd)} is not empty")
        os.ftruncate(fd, geometry.blocks * BLOCK)
        self._fd = fd
        self._geometry = geometry
        self._uuid = uuid
        self._allocator = allocator = Allocator(geometry)
        self._block_bitmaps = [allocator.run(1) for _ in range(geometry.groups)]
        self._inode_bitmaps = [allocator.run(1) for _ in range(geometry.groups)]
        self._tables = [allocator.run(geometry.table_blocks) for _ in range(geometry.groups)]
        self._inodes = InodeTables(fd, self._tables, geometry.group_inodes)
        self._data_output = Output(fd)
        self._directories = [0] * geometry.groups
        self._journal_map = b""
        self._add_journal()

    def add(self, node: Node, open_data: Callable[[int], int], progress: Callable[[int], None] | None) -> None:
        """Writes a node's data and its inode; nodes come in the order of their numbers."""
        encoded = xattrs.encode(node.xattrs)
        acl = 0
        if encoded.block:
            acl = self._allocator.run(1)
            self._data_output.write(acl * BLOCK, encoded.block)
        owned = 1 if acl else 0
        size, flags, block_map = 0, 0, _EMPTY_MAP
        if node.children is not None:
            content = directories.encode(node)
            size, flags = len(content), inodes.EXTENTS_FLAG
            block_map, blocks = self._store(content)
            owned += blocks
            self._directories[(node.ino - 1) // self._geometry.group_inodes] += 1
        elif stat.S_ISREG(node.mode):
            size, flags = node.size, inodes.EXTENTS_FLAG
            block_map, blocks = self._copy(node, open_data, progress)
            owned += blocks
        elif stat.S_ISLNK(node.mode):
            size = len(node.target)
            if inodes.is_fast_link(node):
                block_map = node.target
            else:
                flags = inodes.EXTENTS_FLAG
                block_map, blocks = self._store(node.target.ljust(BLOCK, b"\0"))
                owned += blocks
        elif stat.S_ISCHR(node.mode) or stat.S_ISBLK(node.mode):
            block_map = inodes.device_map(*node.device)
        self._inodes.put(
            node.ino,
            inodes.encode(
                node, size=size, blocks=owned, block_map=block_map, flags=flags, acl=acl, inline=encoded.inline
            ),
        )

    def finish(self) -> None:
        """Writes what describes the rest, the superblock last, and syncs."""
        self._inodes.flush()
        self._data_output.flush()
        output = Output(self._fd)
        groups = self._groups(output)
        totals = superblock.Totals(
            sum(group.free_blocks for group in groups),
            sum(group.free_inodes for group in groups),
            self._journal_map,
            self._geometry.journal_blocks * BLOCK,
        )
        table = superblock.descriptors(groups)
        for group in reversed(layout.backup_groups(self._geometry.groups)):
            copy = superblock.superblock(self._geometry, self._uuid, totals, group)
            start = group * layout.GROUP_BLOCKS * BLOCK
            output.write(start + BLOCK, table)
            output.write(start, copy.ljust(BLOCK, b"\0") if group else superblock.first_block(copy))
        output.flush()
        os.fsync(self._fd)

    def _add_journal(self) -> None:
        blocks = self._geometry.journal_blocks
        extents = self._allocator.extents(blocks)
        mapping = inodes.map_extents(extents, lambda: self._allocator.run(1))
        self._write_blocks(mapping.tree)
        self._data_output.write(extents[0][0] * BLOCK, superblock.journal_superblock(blocks, self._uuid))
        node = Node(stat.S_IFREG | 0o600, mtime=superblock.FIXED_TIME * 10**9)
        node.links = 1
        self._journal_map = mapping.root.ljust(60, b"\0")
        inode = inodes.encode(
            node,
            size=blocks * BLOCK,
            blocks=blocks + len(mapping.tree),
            block_map=self._journal_map,
            flags=inodes.EXTENTS_FLAG,
            acl=0,
            inline=b"",
        )
        self._inodes.put(superblock.JOURNAL_INODE, inode)

    def _store(self, content: bytes) -> tuple[bytes, int]:
        """Puts content of whole blocks somewhere; its block map and the number of blocks it took."""
        extents = self._allocator.extents(len(content) // BLOCK)
        mapping = inodes.map_extents(extents, lambda: self._allocator.run(1))
        position = 0
        for start, length in extents:
            self._data_output.write(start * BLOCK, content[position : position + length * BLOCK])
            position += length * BLOCK
        self._write_blocks(mapping.tree)
        return mapping.root, len(content) // BLOCK + len(mapping.tree)

    def _copy(
        self, node: Node, open_data: Callable[[int], int], progress: Callable[[int], None] | None
    ) -> tuple[bytes, int]:
        """As :meth:`_store`, for a regular file's content out of its source."""
        blocks = -(-node.size // BLOCK)
        extents = self._allocator.extents(blocks)
        mapping = inodes.map_extents(extents, lambda: self._allocator.run(1))
        if node.data is not None and node.size:
            source = open_data(node.data.source)
            offset, end = node.data.offset, node.data.offset + node.size
            for start, length in extents:
                part = min(length * BLOCK, end - offset)
                self._copy_run(source, offset, start * BLOCK, part, progress)
                offset += part
        self._write_blocks(mapping.tree)
        return mapping.root, blocks + len(mapping.tree)

    def _copy_run(
        self, source: int, offset: int, target: int, count: int, progress: Callable[[int], None] | None
    ) -> None:
        while count:
            hole = _hole(source, offset, count) if count >= _CHUNK else 0
            length = hole or min(count, _CHUNK)
            if not hole:
                data = _read(source, offset, length)
                self._data_output.write(target, data + bytes(-length % BLOCK) if length % BLOCK else data)
            offset += length
            target += length
            count -= length
            if progress is not None:
                progress(length)

    def _write_blocks(self, blocks: list[tuple[int, bytes]]) -> None:
        for block, content in blocks:
            self._data_output.write(block * BLOCK, content)

    def _groups(self, output: Output) -> list[superblock.Group]:
        """Writes both bitmaps of every group; the groups' descriptors."""
        geometry = self._geometry
        used_blocks = self._allocator.used_ranges()
        used_inodes = [(0, self._inodes.last)]
        groups = []
        for number in range(geometry.groups):
            size = geometry.group_size(number)
            first_inode = number * geometry.group_inodes
            blocks = layout.bitmap(used_blocks, number * layout.GROUP_BLOCKS, size)
            inode_bits = layout.bitmap(used_inodes, first_inode, geometry.group_inodes)
            output.write(self._block_bitmaps[number] * BLOCK, blocks)
            output.write(self._inode_bitmaps[number] * BLOCK, inode_bits)
            groups.append(
                superblock.Group(
                    self._block_bitmaps[number],
                    self._inode_bitmaps[number],
                    self._tables[number],
                    layout.clear_bits(blocks),
                    layout.clear_bits(inode_bits),
                    self._directories[number],
                )
            )
        return groups


def _read(source: int, offset: int, count: int) -> bytes:
    """Exactly so many bytes of a source."""
    data = os.pread(source, count, offset)
    while len(data) < count:
        more = os.pread(source, count - len(data), offset + len(data))
        if not more:
            raise BadContent(f"{name_of(source)} ends at byte {offset + len(data)}, before the file that it holds")
        data += more
    return data


def _hole(source: int, offset: int, count: int) -> int:
    """How many of the next bytes of a sparse source need not be read: whole blocks only."""
    try:
        data = os.lseek(source, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            return 0
        # There is nothing but a hole, or the file ends before: reading will tell.
        data = os.fstat(source).st_size
    return max(0, min(data - offset, count)) // BLOCK * BLOCK
