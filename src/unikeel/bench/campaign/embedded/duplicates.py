"""How much of a process's own memory has the same bytes as some files: its private copies of them, page by page (proc(5): maps, pagemap, mem).

Private is what is no file's: pages of a file that is only mapped are the host's page cache, which all processes share. Looked for are whole pages, as a monitor puts them into a
guest's memory; pages of nothing but zeros count for nobody.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator
from typing import Final

PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_PRESENT: Final = 1 << 63
#: Pages that are read at once.
_PIECE: Final = 256
_ZEROS: Final = bytes(PAGE)


def pages(files: Iterable[bytes]) -> frozenset[bytes]:
    """The digests of the files' pages."""
    return frozenset(_digest(page) for data in files for page in _pages(data))


def held(pid: int, known: frozenset[bytes]) -> int:
    """Bytes of a process's private memory that are copies of known pages. :raise OSError: it has gone, or may not be looked at."""
    if not known:
        return 0
    found = 0
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory, open(f"/proc/{pid}/pagemap", "rb", buffering=0) as maps:
        for begin, end in _private(pid):
            for first in range(begin // PAGE, end // PAGE, _PIECE):
                count = min(_PIECE, end // PAGE - first)
                if _present(maps.fileno(), first, count):
                    found += sum(_digest(page) in known for page in _pages(_read(memory.fileno(), first, count)))
    return found * PAGE


def _private(pid: int) -> Iterator[tuple[int, int]]:
    """Mappings of no file of a file system: anonymous ones, the heap, stacks, memory files."""
    with open(f"/proc/{pid}/maps", encoding="ascii", errors="replace") as file:
        for line in file:
            addresses, mode, _, _, inode, *path = line.split(None, 5)
            anonymous = inode == "0" and not (path and path[0].startswith("[v"))
            if mode.startswith("r") and (anonymous or (path and path[0].startswith("/memfd:"))):
                begin, _, end = addresses.partition("-")
                yield int(begin, 16), int(end, 16)


def _present(maps: int, first: int, count: int) -> bool:
    data = os.pread(maps, count * 8, first * 8)
    return any(entry & _PRESENT for (entry,) in struct.iter_unpack("=Q", data))


def _read(memory: int, first: int, count: int) -> bytes:
    """Nothing, where it cannot be read: a guard."""
    try:
        return os.pread(memory, count * PAGE, first * PAGE)
    except OSError:
        return b""


def _pages(data: bytes) -> Iterator[bytes]:
    """Whole ones that are not empty."""
    for at in range(0, len(data) - PAGE + 1, PAGE):
        page = data[at : at + PAGE]
        if page != _ZEROS:
            yield page


def _digest(page: bytes) -> bytes:
    return hashlib.blake2b(page, digest_size=16).digest()
