"""How volumes reach a guest. Pure.

A guest whose root is a shared directory finds them in it. Our own init mounts them from a second shared directory. Where nothing can be shared, small files and directories
are copied: into the initrd of a guest that has one for its root or boots with our init, and onto a read-only disk for each directory where ``urunit`` mounts that. What
is a disk already is attached as one. What cannot be given is an error that names it, never silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from unikeel.errors import InvalidArgument, Unimplemented
from unikeel.lean import Final
from unikeel.model.names import quote
from unikeel.model.rootfs import Rootfs
from unikeel.model.volumes import Volume
from unikeel.values import NamedTuple

#: The most volumes of a container; as ``MOST_VOLUMES`` of ``guests/init/settings.h``.
MOST: Final = 256
#: The most disks of a container beside that of its root.
MOST_DISKS: Final = 16
#: The most bytes of a file, and of all, and the most of them, that are given as copies.
FILE_LIMIT: Final = 1 << 20
FILES_LIMIT: Final = 8 << 20
COUNT_LIMIT: Final = 4096


class Way(Enum):
    """How a container's volumes reach its guest."""

    NONE = "none"
    #: They are in the shared directory that is its root.
    ROOT = "root"
    #: In a second shared directory, from which our own init mounts them.
    SHARE = "share"
    #: Copied, as files of a second archive after the initrd.
    ARCHIVE = "archive"
    #: Copied, each directory onto a read-only disk of its own.
    COPIES = "copies"


class Receiver(NamedTuple):
    """What of a guest decides how volumes reach it."""

    type: str
    monitor: str
    root: Rootfs
    #: It boots with our own init.
    own_init: bool = False
    #: It can be given disks beside that of its root, and be told where to mount them: by our own init, or by ``urunit``.
    extra_disks: bool = False
    #: The shared file systems that guest, monitor and host can all three, best first.
    shared: tuple[str, ...] = ()


class Placed(NamedTuple):
    """How volumes reach a guest: those that do, the way, the shared file system if one of their own is used; and why the others do not, a sentence each."""

    volumes: tuple[Volume, ...]
    way: Way
    share: str
    left_out: tuple[str, ...] = ()


#: There are none.
NOWHERE: Final = Placed((), Way.NONE, "")


def place(volumes: Sequence[Volume], receiver: Receiver) -> Placed:
    """How a container's volumes reach its guest; what is optional is left out where it cannot be given.

    :raises Unimplemented: this guest cannot be given one. :raises InvalidArgument: there are too many, or two at one place.
    """
    _check(volumes)
    left_out: list[str] = []
    given = [volume for volume in volumes if volume.disk]
    if given and not receiver.extra_disks:
        left_out += _without(given, _no_disk(given[0], receiver))
        given = []
    others = [volume for volume in volumes if not volume.disk]
    found, share = Way.NONE, ""
    try:
        found, share = way(others, receiver)
        given += others
    except Unimplemented as error:
        way([volume for volume in others if not volume.optional], receiver)
        left_out += _without(others, error)
    if found is Way.COPIES:
        _check_disks(len(given))
    return Placed(tuple(volume for volume in volumes if volume in given), found, share, tuple(left_out))


def _without(volumes: Sequence[Volume], error: Unimplemented) -> list[str]:
    """What is said of volumes that are left out for an error's sake, which is raised if one is needed."""
    if not all(volume.optional for volume in volumes):
        raise error
    return [f"the volume at {volume.target} is left out: {error.message}" for volume in volumes]


def _check(volumes: Sequence[Volume]) -> None:
    if len(volumes) > MOST:
        raise InvalidArgument(f"a container can have {MOST} volumes, not {len(volumes)}")
    targets = [volume.target for volume in volumes]
    twice = next((target for target in targets if targets.count(target) > 1), "")
    if twice:
        raise InvalidArgument(f"two volumes are to be at {quote(twice)}")
    _check_disks(sum(volume.disk for volume in volumes))


def _check_disks(count: int) -> None:
    if count > MOST_DISKS:
        raise InvalidArgument(f"a guest can be given {MOST_DISKS} further disks, not {count}")


def _no_disk(volume: Volume, receiver: Receiver) -> Unimplemented:
    return Unimplemented(
        f"guest {receiver.type} on {receiver.monitor} cannot be given the disk for {volume.target}: it could not be told where to mount it",
        "boot the image with --guest linux --kernel default, or let its process be urunit",
    )


def way(volumes: Sequence[Volume], receiver: Receiver) -> tuple[Way, str]:
    """How directories and files get there, and the shared file system that is used for it, if it is one of their own.

    :raises Unimplemented: this guest cannot be given any, or only copies for reading.
    """
    if not volumes:
        return Way.NONE, ""
    if receiver.root is Rootfs.SHARED:
        return Way.ROOT, ""
    if receiver.own_init and receiver.shared:
        return Way.SHARE, receiver.shared[0]
    if receiver.type == "linux" and (receiver.root is Rootfs.INITRD or receiver.own_init):
        return Way.ARCHIVE, ""
    if receiver.extra_disks:
        return Way.COPIES, ""
    raise Unimplemented(
        f"guest {receiver.type} on {receiver.monitor} with the root {receiver.root.value} cannot be given the volume at {volumes[0].target}",
        "give it a shared root (--annotation org.unikeel.rootfs=shared), or boot the image with --guest linux --kernel default",
    )
