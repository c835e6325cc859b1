"""The root directory of all sandboxes of a state root: empty but for the points that bind mounts go to.

It is made once and never written to again; each sandbox sees it read-only, with the host's files that its plan names bound into it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache

from unikeel.errors import Unavailable
from unikeel.lean import Final

#: Where a merged-/usr host has links; the dynamic loader is found through them.
_LINKS: Final = (
    ("lib", "usr/lib"),
    ("lib32", "usr/lib32"),
    ("lib64", "usr/lib64"),
    ("bin", "usr/bin"),
    ("sbin", "usr/sbin"),
)
_MOUNTS: Final = ("proc", "dev", "tmp")


def prepare_root(directory: str, binds: Sequence[str]) -> None:
    """Make the root and the mount points for these host paths, as far as they are missing.

    :raise Unavailable: a path is not on the host.
    """
    os.makedirs(directory, mode=0o755, exist_ok=True)
    for name in _MOUNTS:
        os.makedirs(os.path.join(directory, name), exist_ok=True)
    for name, target in _LINKS:
        if os.path.islink("/" + name) and not os.path.lexists(os.path.join(directory, name)):
            os.makedirs(os.path.join(directory, target), exist_ok=True)
            _symlink(target, os.path.join(directory, name))
    for path in binds:
        _mount_point(directory, path)


@lru_cache(256)
def destination(path: str) -> str:
    """Where a host path appears in the sandbox: the same, with the host's links of its directories followed (as they were when first asked)."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def _mount_point(directory: str, path: str) -> None:
    if not os.path.exists(path):
        raise Unavailable(f"the monitor needs {path}, which this host does not have", "run `unikeel doctor`")
    target = directory + destination(path)
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if not os.path.lexists(target):
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))


def _symlink(target: str, path: str) -> None:
    try:
        os.symlink(target, path)
    except FileExistsError:
        return
