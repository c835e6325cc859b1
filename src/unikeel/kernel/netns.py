"""Network namespaces by path: opened as what they are, and looked into by a thread of its own.

A thread that has entered another namespace is never used for anything else: it ends, whatever happens in it. Needs CAP_SYS_ADMIN in the namespace's user
namespace (setns(2)).
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from unikeel.errors import FailedPrecondition, NotFound
from unikeel.kernel import libc
from unikeel.kernel.fd import OwnedFd

T = TypeVar("T")

_NEWNET: Final = 0x40000000
_GET_TYPE: Final = 0xB703  # NS_GET_NSTYPE of ioctl_nsfs(2)


def open_network(path: str) -> OwnedFd:
    """Open a network namespace. :raise NotFound: there is nothing. :raise FailedPrecondition: it is something else."""
    try:
        fd = OwnedFd(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError as error:
        raise NotFound(f"the network namespace {path} cannot be opened: {error.strerror}") from None
    try:
        kind = fcntl.ioctl(fd.fileno(), _GET_TYPE)
    except OSError:
        kind = 0
    if kind != _NEWNET:
        fd.close()
        raise FailedPrecondition(f"{path} is not a network namespace")
    return fd


def is_ours(namespace: OwnedFd) -> bool:
    """Whether it is the one that this process is in."""
    theirs, ours = os.fstat(namespace.fileno()), os.stat("/proc/self/ns/net")
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


def within(namespace: OwnedFd, look: Callable[[], T]) -> T:
    """Call a function within a namespace; what it returns or raises. :raise OSError: it cannot be entered."""
    found: list[T] = []
    failed: list[BaseException] = []

    def enter() -> None:
        try:
            if libc.library().setns(namespace.fileno(), _NEWNET) != 0:
                raise libc.fail("entering a network namespace")
            found.append(look())
        except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
            failed.append(error)

    thread = threading.Thread(target=enter, name="netns")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]
