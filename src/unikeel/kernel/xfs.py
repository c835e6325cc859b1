"""XFS: whose file system a device holds, whether a file lies on one, and making a mounted one larger, without any program.

Facts: the kernel's fs/xfs/libxfs/xfs_fs.h (``XFS_IOC_FSGROWFSDATA``, ``XFS_IOC_FSGEOMETRY``) and xfs_format.h (the superblock, big-endian).
"""

from __future__ import annotations

import fcntl
import os
import struct

from unikeel.lean import Final

_MAGIC: Final = b"XFSB"
_UUID_AT: Final = 32
#: struct xfs_growfs_data: new size in blocks, the most percent of it that inodes may take (0: all).
_GROW: Final = struct.Struct("=QI4x")
_GROW_DATA: Final = 0x4010586E
#: struct xfs_fsop_geom, of which only the block's size the inodes' share and the number of data blocks are looked at.
_GEOMETRY: Final = 0x8100587E
_GEOMETRY_SIZE: Final = 256
_BLOCK_SIZE_AT: Final = 0
_INODES_AT: Final = 28
_DATA_BLOCKS_AT: Final = 32


def uuid_of(fd: int) -> str:
    """The identifier of the file system on a device or in a file, as 32 hexadecimal digits; empty if there is no XFS. :raise OSError: it cannot be read."""
    head = os.pread(fd, 512, 0)
    if len(head) < 512 or not head.startswith(_MAGIC):
        return ""
    return head[_UUID_AT : _UUID_AT + 16].hex()


def is_on_xfs(fd: int) -> bool:
    """Whether an open file or directory lies on XFS itself, not on something above it."""
    try:
        fcntl.ioctl(fd, _GEOMETRY, bytearray(_GEOMETRY_SIZE))
    except OSError:
        return False
    return True


def grow(fd: int, size: int) -> bool:
    """Make a mounted file system larger.

    :param fd: its root directory. :param size: bytes that its device has; what is no whole block of it stays unused.
    :return: whether it became larger; one that has this size already stays as it is.
    :raise OSError: what the kernel says, EPERM without CAP_SYS_ADMIN.
    """
    geometry = bytearray(_GEOMETRY_SIZE)
    fcntl.ioctl(fd, _GEOMETRY, geometry)
    (block,) = struct.unpack_from("=I", geometry, _BLOCK_SIZE_AT)
    (inodes,) = struct.unpack_from("=I", geometry, _INODES_AT)
    (blocks,) = struct.unpack_from("=Q", geometry, _DATA_BLOCKS_AT)
    wanted = size // block
    if wanted <= blocks:
        return False
    fcntl.ioctl(fd, _GROW_DATA, _GROW.pack(wanted, inodes))
    return True
