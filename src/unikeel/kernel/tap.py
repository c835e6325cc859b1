"""Tap devices (Documentation/networking/tuntap.rst): made in the network namespace of the calling thread, used by descriptor from any."""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import ExitStack

from unikeel.kernel.fd import OwnedFd
from unikeel.lean import Final

DEVICE: Final = "/dev/net/tun"
#: Letters of an interface's name.
NAME_LIMIT: Final = 15
_SET_INTERFACE: Final = 0x400454CA
_SET_PERSISTENT: Final = 0x400454CB
_SET_OWNER: Final = 0x400454CC
_TAP: Final = 0x0002
_MANY_QUEUES: Final = 0x0100
_BARE: Final = 0x1000
_VIRTIO: Final = 0x4000
_NEW: Final = 0x8000
_INTERFACE: Final = struct.Struct("16sH22x")


def create(
    stack: ExitStack, name: str, *, virtio: bool, queues: int = 1, owner: int | None = None
) -> tuple[OwnedFd, ...]:
    """A new tap device, as one descriptor for each queue, which ``stack`` closes. The device goes with the last copy of them.

    :param virtio: each frame has a header of virtio's before it. :param queues: 1 or more.
    :param owner: a user who may open the device by its name: then it stays without any descriptor, until it is deleted or its namespace ends.
    :raise OSError: there is one of this name (EBUSY), or no such device can be made here.
    """
    flags = _TAP | _BARE | (_VIRTIO if virtio else 0) | (_MANY_QUEUES if queues > 1 else 0)
    fds = []
    for number in range(queues):
        fd = stack.enter_context(OwnedFd(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)))
        fcntl.ioctl(fd.fileno(), _SET_INTERFACE, _INTERFACE.pack(name.encode(), flags | (0 if number else _NEW)))
        fds.append(fd)
    if owner is not None:
        fcntl.ioctl(fds[0].fileno(), _SET_OWNER, owner)
        fcntl.ioctl(fds[0].fileno(), _SET_PERSISTENT, 1)
    return tuple(fds)
