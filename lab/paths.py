"""Where the lab keeps what it builds, and its locks.

::

    lab/roots/trixie/        a root file system, never written to once it is built
    lab/roots/trixie.json    what it was built from, and the versions got
    lab/roots/trixie.lock    shared by who uses it, exclusive for who builds it
    lab/bytecode/trixie/     the working tree, compiled by that root's interpreter
    lab/disk/                the virtual machine's disk, kernel and initrd
    lab/tools/               crictl
    lab/images/              archives of the lab's own images
    lab/scratch/ID/          what one running lab writes; gone when it ends
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from lab.errors import LabError

PROJECT: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
#: The start of every cgroup that a lab makes, and of the names of its scratch directories.
PREFIX: Final = "unikeel-lab-"


def cache(*names: str) -> str:
    """A path beneath the lab's cache: ``$UNIKEEL_CACHE``, else ``$XDG_CACHE_HOME/unikeel``, else ``~/.cache/unikeel``."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    path = os.path.join(os.environ.get("UNIKEEL_CACHE") or os.path.join(base, "unikeel"), "lab", *names)
    if set(path) & set(":,\\"):
        raise LabError(
            f"the cache directory {path} may not have a colon, a comma or a backslash in its name: overlayfs cannot name it"
        )
    return path


@contextmanager
def locked(path: str, *, shared: bool = False, patience: float = 600) -> Iterator[int]:
    """Hold a lock file's lock; its descriptor. :raise LabError: others hold it for longer than ``patience`` seconds."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, path, patience)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, how: int, path: str, patience: float) -> None:
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise LabError(f"{path} is still locked by another lab or build after {patience:.0f} s") from None
            time.sleep(0.05)
        else:
            return
