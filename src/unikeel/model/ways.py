"""How volumes reach a guest. Pure.

A guest whose root is a shared directory finds them in it. Our own init mounts them from a second shared directory. Of a guest that has an initrd for its root, files
are added to that as a second archive. What cannot be given is an error that names it, never silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

from unikeel.errors import InvalidArgument, Unimplemented
from unikeel.model.names import quote
from unikeel.model.rootfs import Rootfs
from unikeel.model.volumes import Volume
from unikeel.values import NamedTuple

#: The most volumes of a container; as ``MOST_VOLUMES`` of ``guests/init/settings.h``.
MOST: Final = 256
#: The most bytes of a file, and of all, that are added to an initrd.
FILE_LIMIT: Final = 1 << 20
FILES_LIMIT: Final = 8 << 20


class Way(Enum):
    """How a container's volumes reach its guest."""

    NONE = "none"
    #: They are in the shared directory that is its root.
    ROOT = "root"
    #: In a second shared directory, from which our own init mounts them.
    SHARE = "share"
    #: Copied, as files of a second archive after the initrd.
    ARCHIVE = "archive"


class Receiver(NamedTuple):
    """What of a guest decides how volumes reach it."""

    type: str
    monitor: str
    root: Rootfs
    #: It boots with our own init.
    own_init: bool = False
    #: The shared file systems that guest, monitor and host can all three, best first.
    shared: tuple[str, ...] = ()


class Placed(NamedTuple):
    """How volumes reach a guest: those that do, the way, the shared file system if one of their own is used; and why the others do not, a sentence each."""

    volumes: tuple[Volume, ...]
    way: Way
    share: str
    left_out: tuple[str, ...] = ()


def place(volumes: Sequence[Volume], receiver: Receiver) -> Placed:
    """As :func:`way`, but what is optional is left out where it cannot be given. Raises as that."""
    try:
        found, share = way(volumes, receiver)
    except Unimplemented as error:
        if not all(volume.optional for volume in volumes):
            needed = [volume for volume in volumes if not volume.optional]
            way(needed, receiver)
            raise
        told = tuple(f"the volume at {volume.target} is left out: {error.message}" for volume in volumes)
        return Placed((), Way.NONE, "", told)
    return Placed(tuple(volumes), found, share)


def way(volumes: Sequence[Volume], receiver: Receiver) -> tuple[Way, str]:
    """How they get there, and the shared file system that is used for it, if it is one of their own.

    :raises Unimplemented: this guest cannot be given any. :raises InvalidArgument: there are too many, or two at one place.
    """
    if not volumes:
        return Way.NONE, ""
    if len(volumes) > MOST:
        raise InvalidArgument(f"a container can have {MOST} volumes, not {len(volumes)}")
    targets = [volume.target for volume in volumes]
    twice = next((target for target in targets if targets.count(target) > 1), "")
    if twice:
        raise InvalidArgument(f"two volumes are to be at {quote(twice)}")
    if receiver.root is Rootfs.SHARED:
        return Way.ROOT, ""
    if receiver.own_init and receiver.shared:
        return Way.SHARE, receiver.shared[0]
    if receiver.type == "linux" and (receiver.root is Rootfs.INITRD or receiver.own_init):
        return Way.ARCHIVE, ""
    raise Unimplemented(
        f"guest {receiver.type} on {receiver.monitor} with the root {receiver.root.value} cannot be given the volume at {targets[0]}",
        "give it a shared root (--annotation org.unikeel.rootfs=shared), or boot the image with --guest linux --kernel default",
    )
