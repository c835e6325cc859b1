"""Which root file system a guest gets: one pure decision, with a reason that users can read.

The order is urunc's (an initrd wins, then an image's own disk, then the container's snapshot, then a shared directory, else none), with one
extension of ours: ``org.unikeel.rootfs=block`` makes the container's snapshot the guest's root disk although there is an initrd.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from unikeel.errors import BadContent, Unimplemented
from unikeel.model.image_fields import GuestConfig


class Rootfs(Enum):
    """What the guest's root file system is."""

    NONE = "none"
    INITRD = "initrd"
    SNAPSHOT = "snapshot"


class RootfsChoice(NamedTuple):
    """The decision and what it needs attached."""

    kind: Rootfs
    #: The container's snapshot is attached as a virtio disk.
    disk: bool
    #: The image's initrd is handed to the monitor, as the root or as a loader for the disk.
    initrd: bool
    #: Why, as a phrase for people.
    reason: str


class BlockSupport(NamedTuple):
    """What a guest can do with a block device."""

    supported: bool
    #: File systems that it can mount as its root; empty: any, since it reads the device itself.
    file_systems: tuple[str, ...] = ()


NO_DEVICE: Final = "the container's snapshot is not a block device"


def choose_rootfs(
    config: GuestConfig, block: BlockSupport, snapshot_fs: str, no_device: str = NO_DEVICE
) -> RootfsChoice:
    """Decide for one container.

    :param block: what the guest supports (:class:`unikeel.guests.contract.Guest`).
    :param snapshot_fs: the file system in the container's snapshot, such as ``ext4``; an empty string: it is not a block device.
    :param no_device: the sentence for that.
    :raises BadContent: the image wants its snapshot as a disk, and this guest cannot use it.
    :raises Unimplemented: the image wants a disk image of its own, or a shared directory.
    """
    if config.block:
        raise Unimplemented(
            f"the image's own disk image {config.block} cannot be attached by this version",
            "make its content the container's root file system, with mountRootfs",
        )
    if config.rootfs == "block":
        return _snapshot_as_asked(config, block, snapshot_fs, no_device)
    if config.initrd:
        return RootfsChoice(
            Rootfs.INITRD, disk=False, initrd=True, reason=f"the image names the initrd {config.initrd}"
        )
    if not config.mount_rootfs:
        return RootfsChoice(Rootfs.NONE, disk=False, initrd=False, reason="the image asks for no root file system")
    problem = _problem(config, block, snapshot_fs, no_device)
    if problem:
        raise Unimplemented(
            f"mountRootfs: {problem}, and shared directories are not offered by this version",
            "use a guest and a snapshotter that fit",
        )
    return RootfsChoice(
        Rootfs.SNAPSHOT, disk=True, initrd=False, reason=f"mountRootfs, and {config.type} can use {snapshot_fs}"
    )


def _snapshot_as_asked(config: GuestConfig, block: BlockSupport, snapshot_fs: str, no_device: str) -> RootfsChoice:
    problem = _problem(config, block, snapshot_fs, no_device)
    if problem:
        raise BadContent(f"org.unikeel.rootfs=block: {problem}", "use a guest and a snapshotter that fit")
    loader = f", loaded by the initrd {config.initrd}" if config.initrd else ""
    return RootfsChoice(
        Rootfs.SNAPSHOT, disk=True, initrd=bool(config.initrd), reason=f"org.unikeel.rootfs=block{loader}"
    )


def _problem(config: GuestConfig, block: BlockSupport, snapshot_fs: str, no_device: str) -> str:
    """Why the snapshot cannot be this guest's disk; an empty string if it can."""
    if not block.supported:
        return f"guest {config.type} cannot use a block device"
    if not snapshot_fs:
        return no_device
    if block.file_systems and snapshot_fs not in block.file_systems:
        return f"guest {config.type} cannot mount {snapshot_fs} (it can: {', '.join(block.file_systems)})"
    return ""
