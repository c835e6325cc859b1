"""The root file system of a task as a directory that can be shared with its guest: what containerd's snapshotter says it is mounted from, if that is directories.

One on a block device is never mounted by the host for this: what a guest wrote there is hostile.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from unikeel.boot.hostmounts import split_layers
from unikeel.errors import Unavailable
from unikeel.kernel import mounts, overlay, trees
from unikeel.kernel.fd import OwnedFd
from unikeel.kernel.idmap import root_mapping
from unikeel.shim.disks import RootMount

_WRITABLE: Final = mounts.Attributes(read_only=False)


def is_shareable(rootfs: Sequence[RootMount]) -> bool:
    """Whether it is made of directories."""
    return len(rootfs) == 1 and rootfs[0].type in ("overlay", "bind", "rbind")


def open_root(rootfs: Sequence[RootMount], uid: int, scratch: str, *, read_only: bool) -> OwnedFd:
    """A detached mount of it: nosuid, nodev, noexec.

    :param uid: what is root's in it is to be this user's, who serves it; 0: root does. :raise Unavailable: it cannot be made.
    """
    (mount,) = rootfs
    with ExitStack() as stack:
        namespace = stack.enter_context(root_mapping(uid)).fileno() if uid else None
        try:
            if mount.type == "overlay":
                tree = _overlay(mount, namespace, scratch)
            else:
                tree = trees.clone(mount.source, _WRITABLE, user_namespace=namespace)
            if read_only:
                mounts.set_attributes(tree)
        except OSError as error:
            raise Unavailable(f"the root file system cannot be shared: {error.strerror}") from error
    return tree


def _overlay(mount: RootMount, namespace: int | None, scratch: str) -> OwnedFd:
    options = dict(option.partition("=")[::2] for option in mount.options if "=" in option)
    layers, upper, work = (
        split_layers(options.get("lowerdir", "")),
        options.get("upperdir", ""),
        options.get("workdir", ""),
    )
    if not upper:
        raise Unavailable("the root file system cannot be shared: its snapshot is only to be read")
    if os.path.dirname(upper) != os.path.dirname(work):
        raise Unavailable(
            f"the root file system cannot be shared: {upper[:200]!r} and {work[:200]!r} are not side by side"
        )
    return overlay.writable(layers, upper, work, scratch, namespace)
