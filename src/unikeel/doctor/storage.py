"""The state root: can it be made, how much room is there, do files share blocks."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from unikeel.doctor.findings import Finding, Level, attempt
from unikeel.errors import InvalidArgument, PermissionDenied

_LITTLE: Final = 2 << 30
_NOTHING: Final = 128 << 20


@contextmanager
def workplace(root: str) -> Iterator[str]:
    """A directory for trials on the file system of the state root; gone, with all in it, at the end.

    :raise PermissionDenied: none can be made. :raise InvalidArgument: what the path names is no directory.
    """
    from unikeel.kernel.paths import remove_tree

    try:
        path = tempfile.mkdtemp(prefix="doctor-", dir=_existing(root))
    except NotADirectoryError as error:
        raise InvalidArgument(f"{_existing(root)} is not a directory", "choose another root with --root") from error
    except OSError as error:
        raise PermissionDenied(
            f"nothing can be written in {_existing(root)}: {error.strerror}",
            "run as root, or choose another with --root",
        ) from error
    try:
        yield path
    finally:
        remove_tree(path)


def _existing(path: str) -> str:
    """The path, or the nearest directory above it that is there."""
    while not os.path.lexists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def state_root(root: str) -> Finding:
    """Whether it is ours alone, or can be made."""
    if not os.path.lexists(root):
        return Finding("state-root", Level.OK, f"{root} will be made in {_existing(root)}")
    status = os.stat(root)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        mode = f"{stat.S_IMODE(status.st_mode):04o}, of user {status.st_uid}"
        return Finding(
            "state-root", Level.WARNING, f"{root} is open to others ({mode})", f"chown root {root}; chmod 700 {root}"
        )
    return Finding("state-root", Level.OK, root)


def free_space(root: str) -> Finding:
    """How much room there is."""
    usage = os.statvfs(_existing(root))
    free = usage.f_bavail * usage.f_frsize
    text = f"{free / 1e9:.1f} GB free in {_existing(root)}"
    if free < _NOTHING or (usage.f_files and not usage.f_favail):
        return Finding("space", Level.PROBLEM, text, "free some space or inodes, or choose another root with --root")
    if free < _LITTLE:
        return Finding("space", Level.WARNING, text, "free some: images are unpacked there")
    return Finding("space", Level.OK, text)


def reflink(place: str) -> Finding:
    """Whether a writable snapshot can share its image's blocks."""
    mend = "put the state root on xfs or btrfs, or snapshots in a pool (`unikeel pool create --type file`); until then disks are qcow2 overlays, which costs QEMU some speed"
    return attempt("reflink", Level.WARNING, mend, lambda: _clone(place))


def pools(root: str) -> list[Finding]:
    """Whether the pools of a state root can be used, and how full they are; nothing if it has none."""
    from unikeel.snapshots.pools.registry import Registry
    from unikeel.snapshots.pools.status import usable

    registry = Registry(os.path.join(root, "pools"))
    findings = []
    for name in registry.names():
        text, problem = usable(registry, name)
        mend = f"see `unikeel pool status {name}`" if problem else ""
        findings.append(Finding("pool", Level.WARNING if problem else Level.OK, f"{name}: {problem or text}", mend))
    return findings


def _clone(place: str) -> str:
    from unikeel.kernel.fd import open_path
    from unikeel.kernel.reflink import clone_file

    flags = os.O_RDWR | os.O_CREAT
    with open_path(os.path.join(place, "a"), flags) as source, open_path(os.path.join(place, "b"), flags) as target:
        os.write(source.fileno(), bytes(64 << 10))
        clone_file(source.fileno(), target.fileno())
    return "files share blocks: writable snapshots are made at once"
