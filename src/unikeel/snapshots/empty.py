"""The content of a snapshot without a parent: an ext4 file system with an empty root directory (0755, no lost+found)."""

from __future__ import annotations

import os

from unikeel.snapshots.ext4 import empty_image


def write_empty(fd: int, size: int) -> None:
    """Fill the empty file behind ``fd`` with an empty file system of ``size`` bytes and a UUID of its own.

    :raise InvalidArgument: no file system has this size. :raise ResourceExhausted: no space.
    """
    empty_image(fd, size, uuid=os.urandom(16))
