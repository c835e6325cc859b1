"""Names in /dev/mapper, made and taken away by us: udev, which may be slow or not there, is told not to.

A name is a symbolic link to the kernel's own node in a devtmpfs (``../dm-7``), as udev would make it; where /dev is none, a node. It is to be taken away before
its device, whose minor number the kernel gives to the next one.
"""

from __future__ import annotations

import os
import stat
import threading
import time

from unikeel.kernel.devmapper.wire import Info
from unikeel.lean import Final

DIRECTORY: Final = "/dev/mapper"


def path(name: str) -> str:
    """Where a device of this name is to be found."""
    return f"{DIRECTORY}/{name}"


def ensure(info: Info) -> str:
    """See that a device's name leads to it; the name's path. :raise OSError: it cannot be made."""
    place = path(info.name)
    wanted = os.makedev(info.major, info.minor)
    if _leads_to(place, wanted):
        return place
    new = f"{place}.new-{os.getpid()}-{info.minor}"
    if _leads_to(f"/dev/dm-{info.minor}", wanted):
        os.symlink(f"../dm-{info.minor}", new)
    else:
        os.mknod(new, stat.S_IFBLK | 0o600, wanted)
    os.rename(new, place)
    return place


def _leads_to(place: str, wanted: int) -> bool:
    try:
        found = os.stat(place)
    except OSError:
        return False
    return stat.S_ISBLK(found.st_mode) and found.st_rdev == wanted


def touch(name: str) -> bool:
    """Note on a device's name that somebody is about to use it, which :func:`withdraw` heeds. False: there is no such name."""
    try:
        os.utime(path(name), follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def withdraw(name: str, seconds: float) -> bool:
    """Take a device's name away, unless it was made or touched within these seconds; whether it is gone. Who touches it at the same moment either keeps it, or
    finds none.
    """
    place = path(name)
    aside = f"{place}.old-{os.getpid()}-{threading.get_ident()}"
    try:
        os.rename(place, aside)
    except FileNotFoundError:
        return True
    idle = time.time() - os.lstat(aside).st_mtime
    if 0 <= idle < seconds:
        os.rename(aside, place)
        return False
    os.unlink(aside)
    return True


def remove(name: str) -> None:
    """Take a device's name away, if it is there."""
    try:
        os.unlink(path(name))
    except FileNotFoundError:
        return
