"""Network namespaces by path: opened as what they are, and looked into by a thread of its own.

A thread that has entered another namespace is never used for anything else: it ends, whatever happens in it. Needs CAP_SYS_ADMIN in the namespace's user
namespace (setns(2)).
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable

from unikeel.errors import FailedPrecondition, NotFound
from unikeel.kernel import libc
from unikeel.kernel.fd import OwnedFd
from unikeel.lean import Final, TypeVar

T = TypeVar("T")

_NEWNET: Final = 0x40000000
_GET_TYPE: Final = 0xB703  # NS_GET_NSTYPE of ioctl_nsfs(2)
_DETACH: Final = 2  # MNT_DETACH of umount(2)


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

    def enter() -> T:
        if libc.library().setns(namespace.fileno(), _NEWNET) != 0:
            raise libc.fail("entering a network namespace")
        return look()

    return apart(enter)


def apart(work: Callable[[], T]) -> T:
    """Call a function in a thread of its own; what it returns or raises."""
    found: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
            failed.append(error)

    thread = threading.Thread(target=run, name="netns")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


def make(path: str) -> None:
    """Make a network namespace that a new file at ``path`` holds, as a mount. :raise OSError: the kernel refuses."""
    from unikeel.kernel.mounts import move_mount, open_tree_clone

    def hold() -> None:
        with open_tree_clone("/proc/thread-self/ns/net") as mount:
            move_mount(mount, path)

    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    apart_in_new(hold)


def apart_in_new(work: Callable[[], T]) -> T:
    """Call a function in a new network namespace, in a thread of its own; what it returns or raises. :raise OSError: there can be none."""

    def enter() -> T:
        if libc.library().unshare(_NEWNET) != 0:
            raise libc.fail("making a network namespace")
        return work()

    return apart(enter)


def unmake(path: str) -> None:
    """Let go of a namespace that :func:`make` has made; it ends with its last process. What is not there is fine."""
    from unikeel.kernel.mounts import UMOUNT_NOFOLLOW, is_mount_point, unmount

    if os.path.lexists(path):
        if is_mount_point(path):
            unmount(path, UMOUNT_NOFOLLOW | _DETACH)
        os.unlink(path)


def loopback_up() -> None:
    """Bring the loopback of the calling thread's namespace up."""
    from unikeel.kernel import links
    from unikeel.kernel.netlink import Netlink

    with Netlink() as netlink:
        netlink.order(*(links.up(link.number) for link in links.links(netlink) if link.loopback))
