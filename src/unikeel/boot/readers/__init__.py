"""Readers of file systems in user space: files out of an image through a descriptor, without a mount.

``open_reader`` is the door; the types are in :mod:`unikeel.boot.readers.contract`.
"""

from __future__ import annotations

from unikeel.boot.readers.contract import Reader
from unikeel.boot.readers.ext import ExtReader
from unikeel.boot.readers.image import Image
from unikeel.errors import BadContent

_EXT_MAGIC_OFFSET = 1024 + 56
_EXT_MAGIC = b"\x53\xef"
_EROFS_MAGIC_OFFSET = 1024
_EROFS_MAGIC = b"\xe2\xe1\xf5\xe0"
_PROBED = 2048


def open_reader(fd: int) -> Reader:
    """The reader for the file system in ``fd``, a regular file or block device open for reading.

    The descriptor stays the caller's: it must stay open while the reader is used, its offset is neither used nor
    moved, and closing the reader does not close it.

    :raises BadContent: it is no ext2/3/4 or erofs file system, is damaged, needs recovery, or has a feature that is
        not read, which the message names.
    :raises Unavailable: it cannot be read.
    """
    image = Image(fd)
    probe = image.data(0, _PROBED, "the superblock") if image.size >= _PROBED else b""
    if probe[_EROFS_MAGIC_OFFSET:].startswith(_EROFS_MAGIC):
        from unikeel.boot.readers.erofs import ErofsReader

        return ErofsReader(image)
    if probe[_EXT_MAGIC_OFFSET:].startswith(_EXT_MAGIC):
        return ExtReader(image)
    raise BadContent(
        "the image holds no ext2/3/4 or erofs file system",
        "unikeel reads boot files from ext2, ext3, ext4 and erofs images",
    )
