"""A cpio archive in the "newc" format, of which Linux unpacks any number, one after the other, into its first root file system.

Format: Linux, Documentation/driver-api/early-userspace/buffer-format.rst. A further archive begins at a multiple of four bytes; its files replace those of the
same name before.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterator, Mapping
from typing import Final

from unikeel.values import NamedTuple

#: Every archive begins, in an initrd, at a multiple of this.
ALIGNMENT: Final = 4
_TRAILER: Final = "TRAILER!!!"


class File(NamedTuple):
    """A regular file of root's: its bytes and its permissions."""

    data: bytes
    mode: int = 0o644


def archive(files: Mapping[str, File]) -> bytes:
    """The archive of these files (absolute path → file) and of the directories above them. Equal files give equal bytes.

    :raises ValueError: a path is not absolute and clean, or holds a NUL.
    """
    for path in files:
        if not path.startswith("/") or posixpath.normpath(path) != path or "\0" in path or path == "/":
            raise ValueError(f"{path!r} cannot be in an archive")
    directories = {parent for path in files for parent in _parents(path)}
    pieces: list[bytes] = []
    for number, name in enumerate(sorted({*files, *directories}), start=1):
        file = files.get(name)
        mode = stat.S_IFDIR | 0o755 if file is None else stat.S_IFREG | file.mode
        pieces.append(_entry(name[1:], number, mode, b"" if file is None else file.data))
    pieces.append(_entry(_TRAILER, 0, 0, b""))
    return b"".join(pieces)


def _parents(path: str) -> Iterator[str]:
    while (path := posixpath.dirname(path)) != "/":
        yield path


def _entry(name: str, inode: int, mode: int, data: bytes) -> bytes:
    text = name.encode(errors="surrogateescape") + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    # inode, mode, uid, gid, links, time, size, two devices of two numbers each, length of the name, checksum
    numbers = (inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(text), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + text
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)
