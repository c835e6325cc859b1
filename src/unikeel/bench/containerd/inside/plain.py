"""``view_mount``: what others do for each container, as the measure of ours: one View through containerd, and a mount of it.

The mount is by system calls, as few as there are, from a loop device that reads through the page cache, as mount(8) and containerd make it; it is
attached at a directory, without a lease, and no file is looked up in it: the least that anybody would do. With ``copy`` the boot files are copied to a
tmpfs, too. Taking it away is not in the time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from typing import Final

from unikeel.bench.containerd.inside.session import Session
from unikeel.containerd.records import Mount
from unikeel.errors import NotFound, UnikeelError
from unikeel.kernel import loop, mounts
from unikeel.kernel.fd import OwnedFd
from unikeel.values import NamedTuple

#: How long a snapshotter may take in a busy virtual machine.
_SECONDS: Final = 60.0
#: A tmpfs of the lab.
_MEMORY: Final = "/dev/shm"  # noqa: S108 - the benchmark makes a directory of its own there
_FLAGS: Final = frozenset({"ro", "rw", "loop", "rbind", "bind", "nosuid", "nodev", "noexec", "relatime", "noatime"})
#: What a mount of a read-only device needs, and what keeps a driver from replaying a journal.
_CAREFUL: Final[Mapping[str, tuple[str, ...]]] = {
    "ext4": ("ro", "noload"),
    "xfs": ("ro", "norecovery"),
    "erofs": ("ro",),
}


class Times(NamedTuple):
    """Milliseconds: of both steps, and of the copy behind them (0 without one)."""

    view: float
    mount: float
    copy: float


async def sampled(session: Session, parent: str, copied: Mapping[str, str]) -> Times:
    """Make a view of a committed snapshot, mount it, copy the files of these paths in it; all of it is gone afterwards.

    :raise UnikeelError: containerd, or the kernel, refuses.
    """
    store = session.containerd.snapshots(session.snapshotter)
    key = f"bench-plain-{os.getpid()}-{time.monotonic_ns()}"
    target, memory = tempfile.mkdtemp(prefix="bench-"), tempfile.mkdtemp(prefix="bench-", dir=_MEMORY)
    attached = False
    try:
        begun = time.perf_counter_ns()
        given = await store.view(key, parent, timeout=_SECONDS)
        seen = time.perf_counter_ns()
        attach(given, target)
        attached = True
        mounted = time.perf_counter_ns()
        for role, path in copied.items():
            shutil.copyfile(os.path.join(target, path.lstrip("/")), os.path.join(memory, role))
        copied_at = time.perf_counter_ns() if copied else mounted
        return Times((seen - begun) / 1e6, (mounted - seen) / 1e6, (copied_at - mounted) / 1e6)
    finally:
        if attached:
            mounts.unmount(target)
        os.rmdir(target)
        shutil.rmtree(memory)
        await _forget(session, key)


async def _forget(session: Session, key: str) -> None:
    with contextlib.suppress(NotFound):
        await session.containerd.snapshots(session.snapshotter).remove(key, timeout=_SECONDS)


def attach(given: tuple[Mount, ...], target: str) -> None:
    """Mount what a snapshotter gave at a directory. :raise UnikeelError: it is more than one mount. :raise OSError: the kernel refuses."""
    if len(given) != 1:
        raise UnikeelError(f"the view has {len(given)} mounts")
    with _opened(given[0]) as detached:
        mounts.move_mount(detached, target)


def _opened(mount: Mount) -> OwnedFd:
    if mount.type == "bind":
        return mounts.open_tree_clone(mount.source)
    options = parameters(mount)
    if "loop" not in mount.options:
        source = None if mount.type == "overlay" else mount.source
        return mounts.detached_mount(mount.type, source, options)
    with OwnedFd(os.open(mount.source, os.O_RDONLY | os.O_CLOEXEC)) as backing:
        device = loop.attach(backing.fileno(), direct=False)
    try:
        return mounts.detached_mount(mount.type, device.path, options)
    finally:
        device.close()


def parameters(mount: Mount) -> list[tuple[str, str | None]]:
    """A snapshotter's options as parameters of the file system: without the flags of the mount, read-only where it would write."""
    found: list[tuple[str, str | None]] = [(name, None) for name in _CAREFUL.get(mount.type, ())]
    for option in mount.options:
        name, equals, value = option.partition("=")
        if name not in _FLAGS and (name, None) not in found:
            found.append((name, value if equals else None))
    return found
