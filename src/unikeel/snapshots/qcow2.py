"""An empty qcow2 overlay, written without a tool: a few hundred bytes that make a raw image writable by reference.

Format: QEMU's ``docs/interop/qcow2.txt``, version 3, clusters of 64 KiB, refcounts of 16 bits. The header names no backing
file on purpose: formats and files are never taken from what a guest's monitor can write (a hostile header could otherwise
name any file of the host), so the monitor is told its backing node explicitly. *Opened without one, all reads as zeroes.*

Layout, one cluster each: header · refcount table · refcount block · L1 table (as many as needed).
"""

from __future__ import annotations

import os
import struct

from unikeel.errors import InvalidArgument
from unikeel.lean import Final

CLUSTER_BITS: Final = 16
CLUSTER: Final = 1 << CLUSTER_BITS
#: QEMU refuses L1 tables of more than 32 MiB; this bound of 2 PiB is far below and far above any image.
MAX_SIZE: Final = 1 << 51

_MAGIC: Final = 0x514649FB
_VERSION: Final = 3
_REFCOUNT_ORDER: Final = 4
_HEADER: Final = struct.Struct(">IIQIIQIIQQIIQQQQII")
_BYTES_PER_L2: Final = CLUSTER // 8 * CLUSTER
_END_OF_EXTENSIONS: Final = bytes(8)


def overlay_pieces(size: int) -> tuple[int, list[tuple[int, bytes]]]:
    """The file of an empty overlay as (length of the file, [(offset, bytes)]); everything else is a hole.

    :param size: what the guest sees, in bytes; rounded up to whole sectors of 512.
    :raise InvalidArgument: the size is not positive or is over :data:`MAX_SIZE`.
    """
    if not 0 < size <= MAX_SIZE:
        raise InvalidArgument(f"a qcow2 overlay cannot have {size} bytes")
    size += -size % 512
    l1_entries = -(-size // _BYTES_PER_L2)
    l1_clusters = max(1, -(-l1_entries * 8 // CLUSTER))
    header = _HEADER.pack(
        _MAGIC,
        _VERSION,
        0,  # offset of the backing file's name: none
        0,  # length of that name
        CLUSTER_BITS,
        size,
        0,  # no encryption
        l1_entries,
        3 * CLUSTER,  # L1 table
        1 * CLUSTER,  # refcount table
        1,  # … of one cluster
        0,  # no internal snapshots
        0,
        0,  # incompatible features
        0,  # compatible features
        0,  # auto-clear features
        _REFCOUNT_ORDER,
        _HEADER.size,
    )
    clusters = 3 + l1_clusters
    refcounts = struct.pack(">H", 1) * clusters
    return clusters * CLUSTER, [
        (0, header + _END_OF_EXTENSIONS),
        (1 * CLUSTER, struct.pack(">Q", 2 * CLUSTER)),
        (2 * CLUSTER, refcounts),
    ]


def write_overlay(fd: int, size: int) -> None:
    """Make the empty file behind ``fd`` an overlay for an image of ``size`` bytes.

    :raise InvalidArgument: as :func:`overlay_pieces`. :raise OSError: writing failed.
    """
    length, pieces = overlay_pieces(size)
    for offset, data in pieces:
        os.pwrite(fd, data, offset)
    os.ftruncate(fd, length)
