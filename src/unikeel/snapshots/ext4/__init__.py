"""Writes a whole ext4 file system into a regular file, without mounting anything and without any helper program.

The same tree always gives the same bytes. The on-disk format is that of the Linux kernel's documentation
(``Documentation/filesystems/ext4``) and of ``e2fsprogs``; what is written here passes ``e2fsck -fn``.
"""

from __future__ import annotations

from unikeel.snapshots.ext4.nodes import Data, ImageStats, Node
from unikeel.snapshots.ext4.writer import DEFAULT_FREE_BYTES, empty_image, write_image

__all__ = ["DEFAULT_FREE_BYTES", "Data", "ImageStats", "Node", "empty_image", "write_image"]
