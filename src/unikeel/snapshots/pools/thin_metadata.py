"""Which snapshots a thin pool holds, read from its metadata device, without any program: device-mapper has no message that lists them.

The kernel writes while we read, so an active pool is read through its *held root*: the message ``reserve_metadata_snap`` keeps a state of the metadata as it
is on the disk, until ``release_metadata_snap``. Reading is direct, past the page cache, which the kernel's own writes go past, too.

Facts: the kernel's drivers/md/dm-thin-metadata.c and drivers/md/persistent-data/dm-btree-internal.h. Blocks are 4096 bytes, numbers little-endian; a block's
checksum is CRC-32C of all behind it, combined with a number for its kind.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from types import TracebackType

from unikeel.boot.readers.crc import crc32c
from unikeel.errors import BadContent, FailedPrecondition
from unikeel.kernel.fd import OwnedFd
from unikeel.lean import Final, Self
from unikeel.values import NamedTuple

BLOCK: Final = 4096
#: The first number that is no device's: they have 24 bits.
DEVICES: Final = 1 << 24

_MAGIC: Final = 27022010
_SUPERBLOCK_SALT: Final = 160774
_NODE_SALT: Final = 121107
_NEEDS_CHECK: Final = 1
_SECTOR: Final = 512
#: struct thin_disk_superblock, up to the size of the metadata.
_SUPERBLOCK: Final = struct.Struct("<IIQ16sQIIQQ128s128sQQIIQ")
#: The begin of a space map's root: blocks, those in use.
_SPACE: Final = struct.Struct("<QQ")
#: struct node_header.
_NODE: Final = struct.Struct("<IIQIIII")
#: struct disk_device_details.
_DETAILS: Final = struct.Struct("<QQII")
_INTERNAL: Final = 1
_LEAF: Final = 2
_DEPTH: Final = 16

#: Gives a block by its number.
Read = Callable[[int], bytes]


class Superblock(NamedTuple):
    """What the pool's metadata says of the whole. Sizes in bytes, ``held_root`` and ``details_root`` are blocks."""

    needs_check: bool
    transaction: int
    held_root: int
    details_root: int
    block_size: int
    data_blocks: int
    data_used: int
    metadata_blocks: int


class Details(NamedTuple):
    """What the pool knows of one device: data blocks that it refers to (its own and shared ones), and when it was made."""

    mapped_blocks: int
    transaction: int


def is_superblock(block: bytes) -> bool:
    """Whether a device's first block begins a thin pool's metadata, intact or not."""
    return len(block) >= 40 and int.from_bytes(block[32:40], "little") == _MAGIC


def parse_superblock(block: bytes, number: int = 0) -> Superblock:
    """:raise BadContent: it is none, or damaged."""
    if len(block) != BLOCK or not is_superblock(block):
        raise BadContent("the metadata device does not begin with a thin pool's superblock")
    _check(block, number, _SUPERBLOCK_SALT, "superblock")
    fields = _SUPERBLOCK.unpack_from(block)
    blocks, used = _SPACE.unpack_from(fields[9])
    return Superblock(
        needs_check=bool(fields[1] & _NEEDS_CHECK),
        transaction=fields[7],
        held_root=fields[8],
        details_root=fields[12],
        block_size=fields[13] * _SECTOR,
        data_blocks=blocks,
        data_used=used,
        metadata_blocks=fields[15],
    )


def _check(block: bytes, number: int, salt: int, what: str) -> None:
    stored, where = int.from_bytes(block[:4], "little"), int.from_bytes(block[8:16], "little")
    if stored != crc32c(0xFFFFFFFF, block[4:]) ^ salt or where != number:
        raise BadContent(f"the {what} in block {number} of the pool's metadata is damaged")


def devices(read: Read, superblock: Superblock) -> dict[int, Details]:
    """All devices of a pool by their numbers. :raise BadContent: the metadata is damaged."""
    found: dict[int, Details] = {}
    for key, value in _leaves(read, superblock.details_root, superblock.metadata_blocks, set()):
        if key >= DEVICES:
            raise BadContent(f"the pool's metadata names a device {key}, which cannot be")
        mapped, transaction, _, _ = _DETAILS.unpack(value)
        found[key] = Details(mapped, transaction)
    return found


def _leaves(read: Read, number: int, blocks: int, seen: set[int], depth: int = 0) -> Iterator[tuple[int, bytes]]:
    """Keys and values of a tree, in order. :param seen: nodes read so far; the kernel's trees come to none twice, and are a few levels deep."""
    if depth >= _DEPTH or not 0 < number < blocks or number in seen:
        raise BadContent(f"the pool's metadata refers to block {number}, which cannot be")
    seen.add(number)
    block = read(number)
    if len(block) != BLOCK:
        raise BadContent(f"block {number} of the pool's metadata is cut short")
    _check(block, number, _NODE_SALT, "node")
    _, flags, _, count, most, size, _ = _NODE.unpack_from(block)
    at = _NODE.size + 8 * most
    wanted = 8 if flags & _INTERNAL else _DETAILS.size
    if count > most or size != wanted or at + most * size > BLOCK or flags & (_INTERNAL | _LEAF) not in (1, 2):
        raise BadContent(f"the node in block {number} of the pool's metadata is damaged")
    keys = struct.unpack_from(f"<{count}Q", block, _NODE.size)
    for index, key in enumerate(keys):
        value = block[at + index * size : at + (index + 1) * size]
        if flags & _INTERNAL:
            yield from _leaves(read, int.from_bytes(value, "little"), blocks, seen, depth + 1)
        else:
            yield key, value


class MetadataDevice:
    """A pool's metadata device or file, open for direct reading; a context manager.

    :raise OSError: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._fd = OwnedFd(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT))
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system without direct reading, which then has no other way either
                raise
            self._fd = OwnedFd(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        self._buffer = mmap.mmap(-1, BLOCK)

    def read(self, number: int) -> bytes:
        """A block. :raise BadContent: the device ends before it. :raise OSError: it cannot be read."""
        if os.preadv(self._fd.fileno(), [self._buffer], number * BLOCK) != BLOCK:
            raise BadContent(f"{self.path} ends before block {number} of the pool's metadata")
        return self._buffer[:]

    def superblock(self) -> Superblock:
        """What it says of the whole, as last committed. :raise BadContent: it is damaged, or no pool's."""
        return parse_superblock(self.read(0))

    def held_devices(self) -> dict[int, Details]:
        """All devices, as they were when ``reserve_metadata_snap`` was sent. :raise FailedPrecondition: it was not. :raise BadContent: damage."""
        root = self.superblock().held_root
        if root == 0:
            raise FailedPrecondition(f"the metadata of the pool on {self.path} is not held for reading")
        return devices(self.read, parse_superblock(self.read(root), root))

    def resting_devices(self) -> dict[int, Details]:
        """All devices of a pool that is not active. :raise BadContent: damage."""
        return devices(self.read, self.superblock())

    def close(self) -> None:
        """Closing twice is fine."""
        self._fd.close()
        self._buffer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
