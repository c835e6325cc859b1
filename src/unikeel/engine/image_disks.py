"""A disk image that lies in the container's image, as the guest's root disk: read as a boot file is, and written to in a file of the container's.

The writable file shares the image's blocks, lies over it as a qcow2 overlay, or is a copy, as snapshots do. It appears under its name when it is whole, and stays for the
container's next starts; its format is in its name, since nothing that a guest wrote is ever looked at for that.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from unikeel.kernel.fd import OwnedFd
from unikeel.lean import Final
from unikeel.model.plan import DiskSpec, FileRole
from unikeel.records.failpoint import failpoint
from unikeel.snapshots.contract import How
from unikeel.snapshots.copying import make_writable

_NAME: Final = "image-disk"
_FORMATS: Final = ("raw", "qcow2")


def provide(
    directory: str, image: int, formats: frozenset[str], stack: ExitStack
) -> tuple[DiskSpec, dict[FileRole, int]]:
    """The disk and its descriptors, made if this is the first start; ``stack`` closes what is opened.

    :param directory: the container's. :param image: the image's disk, as a descriptor. :param formats: what the monitor takes.
    :raise OSError: no space, or it cannot be read.
    """
    kind = next((kind for kind in _FORMATS if os.path.exists(os.path.join(directory, f"{_NAME}.{kind}"))), "")
    if not kind:
        kind = _make(directory, image, formats)
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    disk = stack.enter_context(OwnedFd(os.open(os.path.join(directory, f"{_NAME}.{kind}"), flags)))
    fds = {FileRole.DISK: disk.fileno()}
    if kind == "qcow2":
        fds[FileRole.BACKING] = image
    return DiskSpec(kind, backing=kind == "qcow2"), fds


def _make(directory: str, image: int, formats: frozenset[str]) -> str:
    """Make the writable file; its format."""
    new = os.path.join(directory, f"{_NAME}.new")
    with OwnedFd(os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)) as file:
        how = make_writable(image, file.fileno(), formats)
        failpoint("image-disk.made")
    kind = "qcow2" if how is How.QCOW2 else "raw"
    os.rename(new, os.path.join(directory, f"{_NAME}.{kind}"))
    return kind
