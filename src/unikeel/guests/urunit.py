"""The configuration file of ``urunit``, the init of urunc's Linux images: what does not fit on a kernel command line.

Sections of lines: ``UES`` variables… ``UEE``, then ``UCS`` ``UID:n`` ``GID:n`` ``WD:directory`` ``UCE``. There is no escape, so a line break in a value cannot be said.
With an initrd as root, the file lies in it (:data:`PATH`, mode 0400); otherwise it is handed over as the initrd itself, which the kernel keeps and shows (``retain_initrd``,
:data:`RETAINED`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from unikeel.errors import InvalidArgument
from unikeel.model.names import quote
from unikeel.model.plan import LaunchRequest

PATH: Final = "/urunit.conf"
#: Where Linux shows an initrd that it was told to keep (Documentation/ABI/testing/sysfs-firmware-initrd).
RETAINED: Final = "/sys/firmware/initrd"
MODE: Final = 0o400


def is_urunit(request: LaunchRequest) -> bool:
    """Whether the guest's process is ``urunit``."""
    argv = request.args or tuple(request.guest.cmdline.split())
    return bool(argv) and "urunit" in argv[0]


def configuration(request: LaunchRequest) -> bytes:
    """The file's content. :raises InvalidArgument: a value has a line break or a NUL."""
    return "".join(f"{_line(line)}\n" for line in _lines(request)).encode(errors="surrogateescape")


def _lines(request: LaunchRequest) -> Iterator[str]:
    yield "UES"
    yield from request.env
    yield from ("UEE", "UCS", f"UID:{request.uid}", f"GID:{request.gid}", f"WD:{request.workdir}", "UCE")


def _line(line: str) -> str:
    if "\n" in line or "\0" in line:
        raise InvalidArgument(f"{quote(line)} cannot be passed to urunit: it contains a line break or a NUL")
    return line
