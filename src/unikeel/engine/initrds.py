"""The initrd that a guest really gets: the image's, with what its guest wants to find there beyond it.

The image's own file is never changed, and neither is anything that is shared: what comes out is a sealed file in memory, of this start alone. Without anything
to add, it is the image's own file.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from unikeel.guests import guest
from unikeel.kernel.fd import OwnedFd
from unikeel.kernel.memfd import sealed, sealed_bytes
from unikeel.model.cpio import ALIGNMENT
from unikeel.model.plan import LaunchRequest
from unikeel.values import NamedTuple


class Initrd(NamedTuple):
    """The request as it is then, and the descriptor; -1: none."""

    request: LaunchRequest
    fd: int


def complete(request: LaunchRequest, own: int, stack: ExitStack) -> Initrd:
    """Add to a request what its guest wants in its initrd.

    :param own: the image's initrd, if the request has one. :param stack: closes what is opened.
    :raises InvalidArgument: as :meth:`unikeel.guests.contract.Guest.added`. :raises OSError: no memory.
    """
    added = guest(request.guest.type).added(request)
    if added.raw:
        return Initrd(request._replace(initrd=True, retained=True), _kept(sealed_bytes("initrd", added.raw), stack))
    if not added.archive:
        return Initrd(request, own if request.initrd else -1)
    if not request.initrd:
        return Initrd(request._replace(initrd=True), _kept(sealed_bytes("initrd", added.archive), stack))
    return Initrd(request, _kept(sealed("initrd", lambda fd: _joined(fd, own, added.archive)), stack))


def _kept(made: OwnedFd, stack: ExitStack) -> int:
    return stack.enter_context(made).fileno()


def _joined(target: int, own: int, archive: bytes) -> None:
    """The image's initrd, zeros up to where another archive may begin, and that archive."""
    size = os.fstat(own).st_size
    done = 0
    while done < size:
        copied = os.sendfile(target, own, done, size - done)
        if not copied:
            raise OSError(0, "the initrd was cut short while it was read")
        done += copied
    rest = memoryview(bytes(-size % ALIGNMENT) + archive)
    while rest:
        rest = rest[os.write(target, rest) :]
