"""Sealed memory files: bytes that nobody, whoever holds the descriptor, can change (memfd_create(2), Linux 3.17)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable

from unikeel.kernel.fd import OwnedFd
from unikeel.kernel.paths import reopen
from unikeel.lean import Final

_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed(name: str, fill: Callable[[int], object]) -> OwnedFd:
    """A memory file that ``fill`` wrote and that can no longer be written, shrunk, grown or unsealed.

    The descriptor is read-only, close-on-exec and at offset 0. The memory counts for whoever's cgroup wrote it. Needs no
    capability; its mode allows everybody to re-open it for reading. A chmod by its owner is possible and changes no byte.

    :param name: shown in /proc/PID/fd only, at most 249 bytes.
    :raise OSError: no memory, or what ``fill`` raises.
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with OwnedFd(fd) as writable:
        fill(fd)
        os.fchmod(fd, 0o444)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        return reopen(writable.fileno())


def sealed_bytes(name: str, content: bytes) -> OwnedFd:
    """The same with given content."""

    def write(fd: int) -> None:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]

    return sealed(name, write)
