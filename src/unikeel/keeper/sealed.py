"""OCI runtimes, run from a sealed copy in memory.

crun and runc protect themselves from what they start (CVE-2019-5736): whenever they begin, they copy their own program into a sealed file in memory and
execute that, unless they find that they are running from one already. The keeper makes such a copy once: each ``create``, ``start`` and ``delete`` then
loads once instead of twice, with the same protection. A program that has been replaced on disk is copied anew.
"""

from __future__ import annotations

import fcntl
import os

#: Programs that look for such a copy; another one would only lose its name in /proc.
_NAMES = frozenset({"crun", "runc"})
#: Bytes; a larger one (runc is a static program of ten and more) is not worth keeping in memory.
_MAX = 4 << 20
_ELF = b"\x7fELF"
#: Both ask for exactly these.
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
#: Above the numbers that a child is given.
_LOWEST = 512

Version = tuple[int, int, int, int]


class SealedPrograms:
    """The copies that one process holds, each made when first asked for."""

    def __init__(self) -> None:
        self._copies: dict[str, tuple[Version, int]] = {}

    def executable(self, path: str) -> str:
        """What to execute in place of a program: its copy, or the path itself where there can be none. The child needs no descriptor for it."""
        if os.path.basename(path) not in _NAMES:
            return path
        try:
            return f"/proc/self/fd/{self._copy(path)}"
        except OSError:
            return path

    def _copy(self, path: str) -> int:
        with open(path, "rb") as program:
            info = os.fstat(program.fileno())
            version = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)
            known = self._copies.get(path)
            if known is not None and known[0] == version:
                return known[1]
            copy = _sealed(os.path.basename(path), program.read(_MAX + 1))
        if known is not None:
            os.close(known[1])
        self._copies[path] = (version, copy)
        return copy


def _sealed(name: str, content: bytes) -> int:
    """A descriptor, for reading only, of a sealed file in memory. :raise OSError: the program cannot be run from there, or the kernel refuses."""
    if len(content) > _MAX or not content.startswith(_ELF):
        raise OSError("a large program, or a script, whose interpreter opens it by its path")
    made = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.fchmod(made, 0o755)
        if os.write(made, content) != len(content):
            raise OSError("no memory")
        fcntl.fcntl(made, fcntl.F_ADD_SEALS, _SEALS)
        read_only = os.open(f"/proc/self/fd/{made}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(made)
    try:
        return fcntl.fcntl(read_only, fcntl.F_DUPFD_CLOEXEC, _LOWEST)
    finally:
        os.close(read_only)
