"""The configuration file of ``urunit``, the init of urunc's Linux images: what does not fit on a kernel command line.

Sections of lines: ``UES`` variables… ``UEE``, then ``UCS`` ``UID:n`` ``GID:n`` ``WD:directory`` ``UCE``, and, of disks that it is to mount, ``UBS``, for each ``ID:serial``
and ``MP:directory``, ``UBE``. There is no escape, so a line break in a value cannot be said, nor a variable that has no ``=`` and might be the end of a section.
With an initrd as root, the file lies in it (:data:`PATH`, mode 0400); otherwise it is handed over as the initrd itself, which the kernel keeps and shows (``retain_initrd``,
:data:`RETAINED`).
"""

from __future__ import annotations

from collections.abc import Iterator

from unikeel.errors import InvalidArgument
from unikeel.lean import Final
from unikeel.model.image_fields import GuestConfig
from unikeel.model.names import quote
from unikeel.model.plan import Attached, LaunchRequest

PATH: Final = "/urunit.conf"
#: Where Linux shows an initrd that it was told to keep (Documentation/ABI/testing/sysfs-firmware-initrd).
RETAINED: Final = "/sys/firmware/initrd"
MODE: Final = 0o400


def is_urunit(request: LaunchRequest) -> bool:
    """Whether the guest's process is ``urunit``."""
    return _is_urunit(request.guest, request.args)


def _is_urunit(guest: GuestConfig, args: tuple[str, ...]) -> bool:
    argv = args or tuple(guest.cmdline.split())
    return bool(argv) and "urunit" in argv[0]


def mounts_disks(guest: GuestConfig, args: tuple[str, ...]) -> bool:
    """Whether a guest can be told to mount disks: it boots with our own init, or ``urunit`` gets a configuration, which it does not behind an initrd that only loads the disk."""
    if guest.type != "linux":
        return False
    if guest.kernel:
        return True
    # Disks of user-mode Linux have no serial number.
    return _is_urunit(guest, args) and not (guest.initrd and guest.rootfs == "block") and guest.monitor != "uml"


def disk_id(request: LaunchRequest, disk: Attached) -> str:
    """What ``urunit`` finds a disk by. Firecracker's have a prefix in urunc's images."""
    return ("FC" if request.guest.monitor == "firecracker" else "") + disk.disk.id


def configuration(request: LaunchRequest) -> bytes:
    """The file's content. :raises InvalidArgument: a value has a line break or a NUL."""
    return "".join(f"{_line(line)}\n" for line in _lines(request)).encode(errors="surrogateescape")


def _lines(request: LaunchRequest) -> Iterator[str]:
    yield "UES"
    for variable in request.env:
        if "=" not in variable:
            raise InvalidArgument(f"{quote(variable)} is not an environment variable", "write NAME=value")
        yield variable
    yield from ("UEE", "UCS", f"UID:{request.uid}", f"GID:{request.gid}", f"WD:{request.workdir}", "UCE")
    mounted = [disk for disk in request.extra if disk.file_system]
    if not mounted:
        return
    yield "UBS"
    for disk in mounted:
        yield from (f"ID:{disk_id(request, disk)}", f"MP:{disk.target}")
    yield "UBE"


def _line(line: str) -> str:
    if "\n" in line or "\0" in line:
        raise InvalidArgument(f"{quote(line)} cannot be passed to urunit: it contains a line break or a NUL")
    return line
