"""Block devices that somebody offers for a pool, looked at without writing: partitions, disks, logical volumes."""

from __future__ import annotations

import errno
import os
import stat
import subprocess

from unikeel.errors import FailedPrecondition, InvalidArgument, NotFound
from unikeel.kernel.fd import OwnedFd, open_path
from unikeel.kernel.paths import find_program
from unikeel.lean import Final
from unikeel.snapshots.image_files import translated
from unikeel.snapshots.pools.planning import Device
from unikeel.snapshots.pools.thin_metadata import BLOCK, is_superblock

_SECONDS: Final = 60


def probe(path: str) -> Device:
    """What a device is.

    :raise NotFound: there is none. :raise InvalidArgument: it is none. :raise FailedPrecondition: it is in use (mounted, or part of something).
    """
    path = stable(path)
    with translated(f"look at {path}"):
        try:
            info = os.stat(path)
        except FileNotFoundError:
            raise NotFound(f"there is no device {path}") from None
        if not stat.S_ISBLK(info.st_mode):
            raise InvalidArgument(f"{path} is no block device", "for a pool on a file of ours, give a --size instead")
        with open_alone(path) as device:
            size = os.lseek(device.fileno(), 0, os.SEEK_END)
            head = os.pread(device.fileno(), BLOCK, 0)
    content = "a thin pool's metadata" if is_superblock(head) else _content(path)
    return Device(path, (os.major(info.st_rdev), os.minor(info.st_rdev)), size, content)


def open_alone(path: str, flags: int = os.O_RDONLY) -> OwnedFd:
    """Open a device that nobody else may have claimed. :raise FailedPrecondition: somebody has. :raise OSError: what else the kernel says."""
    try:
        return open_path(path, flags | os.O_EXCL)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise FailedPrecondition(f"{path} is in use", "unmount it, or take it out of what it is part of") from None


def stable(path: str) -> str:
    """A name of the device that outlives a restart of the host, as far as one can tell: device-mapper's numbers do not."""
    path = os.path.abspath(path)
    real = os.path.realpath(path)
    base = os.path.basename(real)
    if os.path.dirname(real) != "/dev" or not base.startswith("dm-"):
        return path
    try:
        with open(f"/sys/block/{base}/dm/name", encoding="utf-8") as file:
            return "/dev/mapper/" + file.read().strip()
    except OSError:
        return path


def _content(path: str) -> str:
    """What blkid finds on a device, as words; empty if it finds nothing, or is not installed."""
    program = find_program("blkid")
    if not program:
        return ""
    words = [program, "-p", "-o", "export", path]
    done = subprocess.run(
        words, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, env={"LC_ALL": "C"}
    )
    found = dict(line.split("=", 1) for line in done.stdout.decode(errors="replace").splitlines() if "=" in line)
    if done.returncode == 8:  # blkid(8): several things at once
        return "signatures of several kinds"
    if "TYPE" in found:
        return f"{found['TYPE'][:32]} (by blkid)"
    return f"a partition table ({found['PTTYPE'][:32]})" if "PTTYPE" in found else ""
