"""The disk that loses its power, and its parts: a file system for the state root, and the two devices of a thin pool."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: The parts in MiB; pool data takes the rest.
ROOT_MIB: Final = 512
META_MIB: Final = 16
DISK_MIB: Final = 1536
LOG_MIB: Final = 2048
MOUNT_POINT: Final = "/run/power"
_SECTORS: Final = 2048
_PARTS: Final = ("power-root", "power-meta", "power-data")
_LOGGED: Final = "power-logged"
_SECONDS: Final = 240.0
_MAKE: Final = {
    "ext4": ("mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-m", "reflink=1"),
}


def tool(*argv: str) -> str:
    """Run a program; what it prints. :raise RuntimeError: it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


@contextmanager
def parts(device: str) -> Iterator[None]:
    """The three parts of a disk as devices of their own."""
    sizes = (ROOT_MIB, META_MIB, DISK_MIB - ROOT_MIB - META_MIB)
    start = 0
    made: list[str] = []
    try:
        for name, size in zip(_PARTS, sizes, strict=True):
            tool("dmsetup", "create", name, "--table", f"0 {size * _SECTORS} linear {device} {start * _SECTORS}")
            made.append(name)
            start += size
        yield
    finally:
        for name in reversed(made):
            tool("dmsetup", "remove", "--retry", name)


@contextmanager
def mounted(file_system: str) -> Iterator[str]:
    """The state root's file system; gives the state root."""
    os.makedirs(MOUNT_POINT, exist_ok=True)
    tool("mount", "-t", file_system, "/dev/mapper/power-root", MOUNT_POINT)
    try:
        yield os.path.join(MOUNT_POINT, "unikeel")
    finally:
        tool("umount", MOUNT_POINT)


def formatted(file_system: str) -> None:
    """Make the file system."""
    tool(*_MAKE[file_system], "/dev/mapper/power-root")


@contextmanager
def looped(path: str, mebibytes: int) -> Iterator[str]:
    """A file as a block device; it is made if it is not there."""
    if not os.path.exists(path):
        with open(path, "wb") as file:
            file.truncate(mebibytes << 20)
    device = tool("losetup", "--find", "--show", path)
    try:
        yield device
    finally:
        tool("losetup", "--detach", device)


@contextmanager
def logged(device: str, log: str) -> Iterator[str]:
    """A device that is another one with every write to it logged."""
    tool("modprobe", "dm-log-writes")
    table = f"0 {DISK_MIB * _SECTORS} log-writes {device} {log}"
    tool("dmsetup", "create", _LOGGED, "--table", table)
    try:
        yield f"/dev/mapper/{_LOGGED}"
    finally:
        tool("dmsetup", "remove", "--retry", _LOGGED)


def mark(text: str) -> None:
    """Put a mark into the log of writes."""
    tool("dmsetup", "message", _LOGGED, "0", "mark", text)
