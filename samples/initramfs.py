"""An initrd: a cpio archive in the "newc" format (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).

Written here and not by cpio(1), since inode numbers, owners and times must not be those of the machine that builds.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

_TRAILER: Final = "TRAILER!!!"


class File(NamedTuple):
    """A regular file: its bytes and permissions."""

    data: bytes
    mode: int = 0o644


def archive(files: Mapping[str, File]) -> bytes:
    """The archive of these files (absolute path → file) and the directories above them."""
    directories = {parent for path in files for parent in _parents(path)}
    names = sorted([*files, *directories])
    pieces: list[bytes] = []
    for number, name in enumerate(names, start=1):
        file = files.get(name)
        mode = stat.S_IFDIR | 0o755 if file is None else stat.S_IFREG | file.mode
        pieces.append(_entry(name.lstrip("/"), number, mode, b"" if file is None else file.data))
    pieces.append(_entry(_TRAILER, 0, 0, b""))
    return b"".join(pieces)


def _parents(path: str) -> Iterator[str]:
    while (path := posixpath.dirname(path)) != "/":
        yield path


def _entry(name: str, inode: int, mode: int, data: bytes) -> bytes:
    text = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    numbers = (inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(text), 0)
    head = b"070701" + b"".join(b"%08x" % number for number in numbers) + text
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
