"""The root of a container of the engine's as a directory that can be shared with its guest.

Beneath is the image's committed snapshot, which our own writer wrote and no guest has written to, mounted read-only where nobody sees it; what the guest changes goes to a
directory of the container's, so that it is there again after a restart. (A root that is a disk is a snapshot of the same; what is in one does not show in the other.)
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack

from unikeel.boot.contract import HostMount
from unikeel.boot.mounted import Mounter
from unikeel.engine.containers import Container
from unikeel.engine.layout import OWN_ROOT
from unikeel.engine.services import Services
from unikeel.engine.sharing import scratch
from unikeel.errors import FailedPrecondition, Unavailable
from unikeel.kernel import overlay
from unikeel.kernel.fd import OwnedFd
from unikeel.kernel.idmap import root_mapping


def open_root(services: Services, container: Container, uid: int) -> OwnedFd:
    """A detached mount of it, writable: nosuid, nodev, noexec.

    :param uid: what is root's in it is to be this user's, who serves it; 0: root does.
    :raise FailedPrecondition: the parent is not an image's. :raise Unavailable: it cannot be mounted, or its changes cannot lie where the state root is.
    """
    parent = services.parent(container.parent)
    if not parent.trusted:
        raise FailedPrecondition(
            f"the root of {container.name} is not an image's as it was unpacked, and is not shared"
        )
    place = os.path.join(services.layout.container(container.id), OWN_ROOT)
    upper, work = os.path.join(place, "upper"), os.path.join(place, "work")
    for path in (upper, work):
        os.makedirs(path, mode=0o755, exist_ok=True)
    room = scratch(services)
    locks = os.path.join(services.layout.boot, "locks")  # boot files' own, so that an image has one loop device
    os.makedirs(locks, mode=0o700, exist_ok=True)
    source = HostMount(parent.fstype, services.snapshots.disk(parent.name).path)
    with ExitStack() as stack:
        namespace = stack.enter_context(root_mapping(uid)).fileno() if uid else None
        lower = stack.enter_context(Mounter(locks).mount([source], namespace))
        os.chmod(upper, stat.S_IMODE(os.fstat(lower.fileno()).st_mode))
        try:
            return overlay.writable([lower], upper, work, room, namespace)
        except OSError as error:
            raise Unavailable(
                f"the root of {container.name} cannot be shared: {error.strerror}",
                "keep the state root on a file system that overlayfs can write to, such as ext4 or xfs",
            ) from error
