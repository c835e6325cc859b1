"""Reads the headers of a tar archive that lies in a file: ustar, GNU, PAX and the old form.

Python's ``tarfile`` is made to cope with damaged archives and stops quietly where it understands no more; here
every doubt is an error, since an archive that is understood half gives a root file system that is there half.
Formats: POSIX.1-2017 (pax), and "Basic Tar Format" of the GNU tar manual. Where they leave room, the answer is that
of Go's ``archive/tar``, which wrote nearly all layers there are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from enum import Enum

from unikeel.errors import BadContent
from unikeel.images.tarfields import Malformed, decimal, nanoseconds, number, octal, owner, records, shown, text
from unikeel.images.tarsparse import Sparse, is_sparse, joined, read_sparse
from unikeel.values import NamedTuple

_BLOCK = 512
_ZERO = bytes(_BLOCK)
_WINDOW = 1 << 18
#: PAX records and long names are bounded like this; the longest sensible ones have a few kilobytes.
_MAX_EXTENSION = 1 << 20
#: So many extended headers may stand before one entry (writers need up to three); otherwise an archive of nothing else takes hours.
_MAX_EXTENSIONS = 32
_SCHILY = b"SCHILY.xattr."
_LIBARCHIVE = b"LIBARCHIVE.xattr."


class Kind(Enum):
    """What an entry is."""

    FILE = "0"
    HARD_LINK = "1"
    SYMLINK = "2"
    CHARACTER = "3"
    BLOCK = "4"
    DIRECTORY = "5"
    FIFO = "6"


class Entry(NamedTuple):
    """One entry of an archive; names are as written there, unchecked.

    :ivar offset: where a file's content begins in the archive; ``size`` its bytes.
    :ivar mtime: nanoseconds since 1970.
    :ivar mode: the twelve permission bits.
    :ivar sparse: for a file stored without its holes: where its pieces are. ``offset`` then means nothing.
    """

    name: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    offset: int
    link: bytes
    device: tuple[int, int]
    xattrs: dict[bytes, bytes]
    sparse: Sparse | None = None


def entries(fd: int, size: int) -> Iterator[Entry]:
    """The entries of an archive of ``size`` bytes in an open file.

    :raises BadContent: the archive is malformed, truncated, or has something that cannot be unpacked. The message says
        at which byte; the caller names the archive.
    """
    return _Reader(fd, size).entries()


class _Reader:
    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size
        self._window = b""
        self._window_start = 0
        self._pax: dict[bytes, bytes] = {}
        self._long: dict[bytes, bytes] = {}
        self._extensions = 0

    def entries(self) -> Iterator[Entry]:
        offset = 0
        while True:
            try:
                header = self._header(offset)
                if header is None:
                    return
                following, entry = self._interpret(header, offset + _BLOCK)
            except Malformed as error:
                raise BadContent(f"the archive is malformed at byte {offset}: {error}") from error
            if entry is not None:
                yield entry
            offset = following

    def _header(self, offset: int) -> bytes | None:
        """The header block at an offset, or nothing at the archive's end."""
        if offset == self._size and not (self._pax or self._long):
            return None
        header = self._read(offset, _BLOCK)
        if header == _ZERO:
            if offset + _BLOCK < self._size and self._read(offset + _BLOCK, _BLOCK) != _ZERO:
                raise Malformed("a lone block of zeroes")
            if self._pax or self._long:
                raise Malformed("an extended header without its entry")
            return None
        stored = octal(header[148:156])
        # The sum counts its own field as spaces.
        if sum(header) - sum(header[148:156]) + 8 * 0x20 != stored and _signed_sum(header) != stored:
            raise Malformed("the header's checksum is wrong")
        return header

    def _interpret(self, header: bytes, content: int) -> tuple[int, Entry | None]:
        """The offset of the next header, and the entry if this is one and not an extension of the next."""
        flag = header[156:157]
        if flag in b"xgLK" and flag:
            size = number(header[124:136])
            if not 0 <= size <= _MAX_EXTENSION:
                raise Malformed(f"an extended header of {size} bytes")
            self._extensions += 1
            if self._extensions > _MAX_EXTENSIONS:
                raise Malformed(f"more than {_MAX_EXTENSIONS} extended headers in a row")
            self._extend(flag, self._read(content, size))
            return content + _rounded(size), None
        pax, long = self._pax, self._long
        self._pax, self._long, self._extensions = {}, {}, 0
        entry = _entry(header, content, pax, long)
        # As in Go's reader, only files have content, whatever the others' size field says.
        if entry.kind is not Kind.FILE:
            return content, entry
        stored = entry.size
        if is_sparse(header, pax):
            content, sparse = read_sparse(header, pax, content, stored, self._read)
            entry = entry._replace(size=sparse.size, sparse=sparse)
        if content + stored > self._size:
            raise Malformed(f"truncated: {shown(entry.name)} has {stored} bytes and {self._size - content} are left")
        return min(content + _rounded(stored), max(self._size, content + stored)), entry

    def _extend(self, flag: bytes, data: bytes) -> None:
        if flag == b"x":
            self._pax.update(joined(records(data)))
        elif flag != b"g":
            # Global headers ("g") are comments in practice, and ignored by containerd.
            self._long[flag] = data.split(b"\0", 1)[0]

    def _read(self, offset: int, count: int) -> bytes:
        if offset + count > self._size:
            raise Malformed("truncated: it ends in the middle of an entry")
        start = offset - self._window_start
        if start < 0 or start + count > len(self._window):
            self._window = _pread(self._fd, max(_WINDOW, count), offset)
            self._window_start, start = offset, 0
        data = self._window[start : start + count]
        if len(data) < count:
            raise Malformed("truncated: the file became shorter")
        return data


def _pread(fd: int, count: int, offset: int) -> bytes:
    data = os.pread(fd, count, offset)
    while len(data) < count and (more := os.pread(fd, count - len(data), offset + len(data))):
        data += more
    return data


def _entry(header: bytes, content: int, pax: dict[bytes, bytes], long: dict[bytes, bytes]) -> Entry:
    name, link = _names(header, pax, long)
    kind = _kind(header[156:157], name)
    size = decimal(pax, b"size", number(header[124:136]))
    if size < 0:
        raise Malformed(f"{shown(name)} has a size of {size} bytes")
    mtime = pax.get(b"mtime")
    device = (0, 0)
    if kind in {Kind.CHARACTER, Kind.BLOCK}:
        device = (number(header[329:337]), number(header[337:345]))
    return Entry(
        name,
        kind,
        number(header[100:108]) & 0o7777,
        owner(pax, b"uid", header[108:116]),
        owner(pax, b"gid", header[116:124]),
        nanoseconds(mtime) if mtime else number(header[136:148]) * 10**9,
        size if kind is Kind.FILE else 0,
        content,
        link,
        device,
        _xattrs(pax),
    )


def _names(header: bytes, pax: dict[bytes, bytes], long: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    name = text(header[0:100])
    if header[257:263] == b"ustar\0":
        # GNU's own magic ("ustar ") has other fields where POSIX has the prefix.
        prefix = text(header[345:500] if header[508:512] != b"tar\0" else header[345:476])
        if prefix:
            name = prefix + b"/" + name
    name = pax.get(b"GNU.sparse.name") or long.get(b"L") or pax.get(b"path") or name
    link = long.get(b"K") or pax.get(b"linkpath") or text(header[157:257])
    if b"\0" in name or b"\0" in link:
        raise Malformed("a name with a zero byte in it")
    if not name:
        raise Malformed("an entry without a name")
    return name, link


def _kind(flag: bytes, name: bytes) -> Kind:
    if flag in {b"\0", b"7", b"S"}:
        return Kind.DIRECTORY if flag == b"\0" and name.endswith(b"/") else Kind.FILE
    try:
        return Kind(flag.decode("latin-1"))
    except ValueError:
        raise Malformed(f"{shown(name)} is of the unknown type {flag!r}") from None


def _xattrs(pax: dict[bytes, bytes]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for key, value in pax.items():
        if key.startswith(_LIBARCHIVE):
            name, decoded = _libarchive(key[len(_LIBARCHIVE) :], value)
            found.setdefault(name, decoded)
        elif key.startswith(_SCHILY):
            found[key[len(_SCHILY) :]] = value
    return found


def _libarchive(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """libarchive's form: the name URL-encoded, the value in base64 without padding."""
    import base64
    import binascii
    from urllib.parse import unquote_to_bytes

    try:
        decoded = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        raise Malformed(f"the extended attribute {shown(name)} is not valid base64") from None
    return unquote_to_bytes(name), decoded


def _signed_sum(header: bytes) -> int:
    """Some old implementations summed signed bytes."""
    rest = header[:148] + header[156:]
    return sum(byte - 256 if byte & 0x80 else byte for byte in rest) + 8 * 0x20


def _rounded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
