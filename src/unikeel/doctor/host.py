"""The host itself: who we are, which Python, what its kernel does for us."""

from __future__ import annotations

import os
import sys
from typing import Final

from unikeel.doctor.findings import Finding, Level, attempt
from unikeel.errors import Unavailable

_LEAST_PYTHON: Final = (3, 11)
_IMAGE_BYTES: Final = 16 << 20
_MODERN: Final = "use Linux 5.15 or later"
_MEASURES: Final = "boot files come from the cache, which needs none of this"


def user() -> Finding:
    """Whether we are root."""
    if os.geteuid() == 0:
        return Finding("root", Level.OK, "running as root")
    return Finding("root", Level.PROBLEM, f"running as user {os.geteuid()}, not as root", "run as root")


def python() -> Finding:
    """Whether the interpreter is new enough."""
    text = "Python " + ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= _LEAST_PYTHON:
        return Finding("python", Level.OK, text)
    return Finding("python", Level.PROBLEM, f"{text} is too old", "use Python 3.11 or later")


def kernel_features(place: str) -> list[Finding]:
    """What the kernel must do, and what it may. ``place``: a directory for trials."""
    return [
        attempt("sealed-clones", Level.PROBLEM, _MODERN, lambda: _sealed_clone(place)),
        attempt("detached-mounts", Level.WARNING, f"{_MODERN}; {_MEASURES}", _detached_mount),
        attempt("id-mapped-mounts", Level.WARNING, f"{_MODERN}; {_MEASURES}", lambda: _id_mapped(place)),
        attempt("ext4", Level.WARNING, f"load ext4 and loop (modprobe); {_MEASURES}", lambda: _ext4(place)),
        attempt("erofs", Level.WARNING, "load it (modprobe erofs); images of erofs are read by the cache only", _erofs),
    ]


def _sealed_clone(place: str) -> str:
    from unikeel.kernel.mounts import sealed_clone

    path = os.path.join(place, "sealed")
    with open(path, "wb") as file:
        file.write(b"x")
    with sealed_clone(place) as clone:
        try:
            os.close(os.open("sealed", os.O_WRONLY | os.O_CLOEXEC, dir_fd=clone.fileno()))
        except OSError:
            return "shared files are handed over through read-only clones of their mount"
    raise Unavailable("a file can be written through a read-only clone of its mount")


def _detached_mount() -> str:
    from unikeel.kernel.mounts import detached_mount

    detached_mount("tmpfs", None, (("size", "64k"),)).close()
    return "file systems can be mounted without a place in the mount table (fsopen)"


def _id_mapped(place: str) -> str:
    from unikeel.kernel.idmap import single_mapping
    from unikeel.kernel.mounts import SEALED, open_tree_clone, set_attributes

    with single_mapping((0, 0), (65534, 65534)) as space, open_tree_clone(place) as clone:
        set_attributes(clone, SEALED, user_namespace=space.fileno())
    return "owners of files can be mapped in a mount"


def _ext4(place: str) -> str:
    """An ext4 file system of our own, on a loop device, mounted read-only as a view is."""
    from unikeel.kernel import loop
    from unikeel.kernel.fd import open_path
    from unikeel.kernel.mounts import detached_mount
    from unikeel.snapshots.empty import write_empty

    with open_path(os.path.join(place, "ext4.img"), os.O_RDWR | os.O_CREAT) as image:
        write_empty(image.fileno(), _IMAGE_BYTES)
        device = loop.attach(image.fileno())
        try:
            detached_mount("ext4", device.path, (("ro", None), ("noload", None))).close()
        finally:
            device.close()
    return f"ext4 was mounted from a loop device ({device.path})"


def _erofs() -> str:
    """Whether the kernel knows erofs: asking for a context loads its module; that it wants a source comes after that."""
    import errno

    from unikeel.kernel.mounts import MountError, detached_mount

    try:
        detached_mount("erofs", None).close()
    except MountError as error:
        if error.errno == errno.ENODEV:
            raise Unavailable("the kernel has no erofs") from error
    return "the kernel has erofs"
