"""A cpio archive in the "newc" format, of which Linux unpacks any number, one after the other, into its first root file system.

Format: Linux, Documentation/driver-api/early-userspace/buffer-format.rst. A further archive begins at a multiple of four bytes; its files replace those of the
same name before.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterator, Mapping

from unikeel.lean import Final
from unikeel.values import NamedTuple

#: Every archive begins, in an initrd, at a multiple of this.
ALIGNMENT: Final = 4
_TRAILER: Final = "TRAILER!!!"


class File(NamedTuple):
    """A file: its bytes (of a symbolic link, where it leads; of a directory, none), its permissions, its kind as :mod:`stat` has it, its user and group."""

    data: bytes
    mode: int = 0o644
    kind: int = stat.S_IFREG
    owner: tuple[int, int] = (0, 0)


_DIRECTORY: Final = File(b"", 0o755, stat.S_IFDIR)
_END: Final = File(b"", 0, 0)


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
        pieces.append(_entry(name[1:], number, file or _DIRECTORY))
    pieces.append(_entry(_TRAILER, 0, _END))
    return b"".join(pieces)


def _parents(path: str) -> Iterator[str]:
    while (path := posixpath.dirname(path)) != "/":
        yield path


def _entry(name: str, inode: int, file: File) -> bytes:
    text = name.encode(errors="surrogateescape") + b"\0"
    links = 2 if stat.S_ISDIR(file.kind) else 1
    # inode, mode, uid, gid, links, time, size, two devices of two numbers each, length of the name, checksum
    numbers = (inode, file.kind | file.mode, *file.owner, links, 0, len(file.data), 0, 0, 0, 0, len(text), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + text
    return _padded(head) + _padded(file.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)
