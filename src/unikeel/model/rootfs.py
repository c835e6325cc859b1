"""Which root file system a guest gets: one pure decision, with a reason that users can read.

The order is urunc's: an initrd wins; then a disk image of the image's own that is to be ``/``, if the guest can use a disk; then, with ``mountRootfs``,
the container's snapshot as a disk, if the guest can mount what is in it, else a directory that is shared with the guest; else none. One extension is
ours, ``org.unikeel.rootfs``: ``block`` makes the snapshot the guest's root disk although there is an initrd; ``shared``, or ``virtiofs`` or ``9p``, the container's
root directory a shared one although a disk would do.

What nobody can give is an error, never silence.
"""

from __future__ import annotations

from enum import Enum

from unikeel.errors import BadContent, UnikeelError, Unimplemented
from unikeel.lean import Final
from unikeel.model.image_fields import GuestConfig
from unikeel.values import NamedTuple


class Rootfs(Enum):
    """What the guest's root file system is."""

    NONE = "none"
    INITRD = "initrd"
    #: A disk image that lies in the image.
    IMAGE_DISK = "image-disk"
    #: The container's snapshot, as a disk.
    SNAPSHOT = "snapshot"
    #: The container's root directory, shared with the guest.
    SHARED = "shared"


class RootfsChoice(NamedTuple):
    """The decision and what it needs attached."""

    kind: Rootfs
    #: The container's snapshot is attached as a virtio disk.
    disk: bool
    #: The image's initrd is handed to the monitor, as the root or as a loader for the disk.
    initrd: bool
    #: Why, as a phrase for people.
    reason: str
    #: The shared file system that is used, ``virtiofs`` or ``9p``; else empty.
    share: str = ""
    #: Where the image's own disk image is mounted as a further disk; empty: it has none, or that is the root.
    image_disk: str = ""


class BlockSupport(NamedTuple):
    """What a guest can do with a block device."""

    supported: bool
    #: File systems that it can mount as its root; empty: any, since it reads the device itself.
    file_systems: tuple[str, ...] = ()
    #: It has one disk, which is not its root: its program reads it, or it is mounted where the image says.
    single: bool = False


NO_DEVICE: Final = "the container's snapshot is not a block device"


class Able(NamedTuple):
    """What the guest can use, and what its monitor, the host and the front end can give."""

    block: BlockSupport
    #: The guest can use an initrd.
    initrd: bool = True
    #: The file system in the container's snapshot, such as ``ext4``; empty: it is not a block device.
    snapshot_fs: str = ""
    #: The sentence for that.
    no_device: str = NO_DEVICE
    #: Shared file systems that guest, monitor and host can all three, best first.
    shared: tuple[str, ...] = ()
    #: Why there is none, as a phrase, where it is for the host's sake.
    no_share: str = ""
    #: A disk image that lies in the image can be attached.
    image_disk: bool = False
    #: The guest can be given further disks, and be told where to mount them.
    extra_disks: bool = False


def choose_rootfs(config: GuestConfig, able: Able) -> RootfsChoice:
    """Decide for one container.

    :raises BadContent: the image wants what this guest can never use.
    :raises Unimplemented: the image wants a disk image of its own or a shared directory, which cannot be given here.
    """
    if config.initrd and not able.initrd:
        raise BadContent(f"guest {config.type} cannot use an initrd, and the image names {config.initrd}")
    if config.rootfs == "block":
        choice = _snapshot_as_asked(config, able)
    elif config.rootfs:
        choice = _share_as_asked(config, able)
    elif config.initrd:
        choice = RootfsChoice(
            Rootfs.INITRD, disk=False, initrd=True, reason=f"the image names the initrd {config.initrd}"
        )
    elif config.block and able.block.supported and (config.block_mount == "/" or _is_only_disk(config, able)):
        choice = RootfsChoice(
            Rootfs.IMAGE_DISK,
            disk=False,
            initrd=False,
            reason=f"the image's own disk {config.block} is to be {config.block_mount}",
        )
    elif config.mount_rootfs:
        choice = _mounted(config, able)
    else:
        choice = RootfsChoice(Rootfs.NONE, disk=False, initrd=False, reason="the image asks for no root file system")
    if not config.block or (able.image_disk and choice.kind is Rootfs.IMAGE_DISK):
        return choice
    if not (able.image_disk and able.extra_disks and config.block_mount not in ("", "/")):
        raise _no_image_disk(config)
    return choice._replace(image_disk=config.block_mount)


def _is_only_disk(config: GuestConfig, able: Able) -> bool:
    """Whether the image's own disk is the one of a guest whose root is in its kernel."""
    return able.block.single and bool(config.block_mount) and not config.mount_rootfs


def _no_image_disk(config: GuestConfig) -> UnikeelError:
    where = f"at {config.block_mount}" if config.block_mount else "without blkMntPoint, which says where it is to be"
    return Unimplemented(
        f"the image's own disk image {config.block} cannot be attached {where}: it can be the root of a guest that uses disks, "
        "and elsewhere only where urunit or our own init mounts it",
        "make its content the container's root file system, with mountRootfs",
    )


def _mounted(config: GuestConfig, able: Able) -> RootfsChoice:
    """``mountRootfs``: the snapshot as a disk, else a shared directory."""
    problem = _problem(config, able)
    if not problem:
        reason = f"mountRootfs, and {config.type} can use {able.snapshot_fs}"
        return RootfsChoice(Rootfs.SNAPSHOT, disk=True, initrd=False, reason=reason)
    if able.shared:
        share = able.shared[0]
        return RootfsChoice(
            Rootfs.SHARED, disk=False, initrd=False, reason=f"mountRootfs by {share}: {problem}", share=share
        )
    raise Unimplemented(
        f"mountRootfs: {problem}, and {_no_share(config, able)}", "use a guest and a snapshotter that fit"
    )


def _no_share(config: GuestConfig, able: Able) -> str:
    return able.no_share or f"guest {config.type} and monitor {config.monitor} have no shared directories in common"


def _share_as_asked(config: GuestConfig, able: Able) -> RootfsChoice:
    found = [kind for kind in able.shared if config.rootfs in ("shared", kind)]
    if not found:
        problem = _no_share(config, able) if not able.shared else f"there is only {', '.join(able.shared)}"
        raise Unimplemented(
            f"org.unikeel.rootfs={config.rootfs}: {problem}", "use a guest and a monitor that fit, or another root"
        )
    reason = f"org.unikeel.rootfs={config.rootfs}" + (f", by {found[0]}" if config.rootfs == "shared" else "")
    return RootfsChoice(Rootfs.SHARED, disk=False, initrd=False, reason=reason, share=found[0])


def _snapshot_as_asked(config: GuestConfig, able: Able) -> RootfsChoice:
    problem = _problem(config, able)
    if problem:
        raise BadContent(f"org.unikeel.rootfs=block: {problem}", "use a guest and a snapshotter that fit")
    loader = f", loaded by the initrd {config.initrd}" if config.initrd else ""
    return RootfsChoice(
        Rootfs.SNAPSHOT, disk=True, initrd=bool(config.initrd), reason=f"org.unikeel.rootfs=block{loader}"
    )


def _problem(config: GuestConfig, able: Able) -> str:
    """Why the snapshot cannot be this guest's disk; an empty string if it can."""
    if not able.block.supported:
        return f"guest {config.type} cannot use a block device"
    if not able.snapshot_fs:
        return able.no_device
    if able.block.file_systems and able.snapshot_fs not in able.block.file_systems:
        return f"guest {config.type} cannot mount {able.snapshot_fs} (it can: {', '.join(able.block.file_systems)})"
    return ""
