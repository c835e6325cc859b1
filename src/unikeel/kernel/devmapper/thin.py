"""What thin pools and thin devices are told, and what they say of themselves.

Source: the kernel's ``Documentation/admin-guide/device-mapper/thin-provisioning.rst``. A pool answers a message when its metadata is on the disk.
"""

from __future__ import annotations

import re

from unikeel.errors import BadContent, InvalidArgument
from unikeel.kernel.devmapper.wire import SECTOR, Target
from unikeel.lean import Final
from unikeel.values import NamedTuple

#: Thin devices are told apart by numbers of 24 bits.
MAX_ID: Final = (1 << 24) - 1
#: A metadata block's size in bytes.
METADATA_BLOCK: Final = 4096
_POOL: Final = re.compile(r"(\d+) (\d+)/(\d+) (\d+)/(\d+) (\d+|-) (\S+) ?(.*)", re.ASCII)
_THIN: Final = re.compile(r"(\d+) (\d+|-)", re.ASCII)


class PoolStatus(NamedTuple):
    """What a pool says of itself. Metadata and data in blocks; the latter's size is the table's matter.

    :ivar mode: ``rw``, ``ro`` or ``out_of_data_space``; ``Fail`` if it does not work at all. :ivar held_root: the block of the metadata snapshot; None: there is none.
    """

    used_metadata: int
    total_metadata: int
    used_data: int
    total_data: int
    held_root: int | None
    mode: str
    needs_check: bool


def pool_status(targets: tuple[Target, ...]) -> PoolStatus:
    """A pool's status, read. :raise BadContent: it is no pool's, or says ``Error``."""
    text = _only(targets, "thin-pool")
    if text == "Fail":
        return PoolStatus(0, 0, 0, 0, None, "Fail", needs_check=True)
    found = _POOL.match(text)
    if found is None:
        raise BadContent(f"the thin pool says of itself {text[:80]!r}")
    used_metadata, total_metadata, used_data, total_data = (int(found[at]) for at in range(2, 6))
    held = None if found[6] == "-" else int(found[6])
    return PoolStatus(
        used_metadata, total_metadata, used_data, total_data, held, found[7], "needs_check" in found[8].split()
    )


def mapped_bytes(targets: tuple[Target, ...]) -> int:
    """How many bytes of a thin device have blocks in the pool, its own or shared. :raise BadContent: it is no thin device's status, or ``Fail``."""
    text = _only(targets, "thin")
    found = _THIN.match(text)
    if found is None:
        raise BadContent(f"the thin device says of itself {text[:80]!r}")
    return int(found[1]) * SECTOR


def _only(targets: tuple[Target, ...], kind: str) -> str:
    if len(targets) != 1 or targets[0].kind != kind:
        raise BadContent(f"a device is no {kind} but {', '.join(target.kind for target in targets) or 'nothing'}")
    return targets[0].parameters


def thin_table(pool: str, number: int, size: int) -> tuple[Target, ...]:
    """The table of the thin device ``number`` of the pool whose device is ``pool`` (a path or MAJOR:MINOR), of ``size`` bytes."""
    return (Target(0, size, "thin", f"{pool} {_number(number)}"),)


def create_thin(number: int) -> str:
    """The message to a pool that makes an empty thin device; EEXIST: there is one of this number."""
    return f"create_thin {_number(number)}"


def create_snap(number: int, origin: int) -> str:
    """The message that makes a snapshot of a thin device, which nobody may write to meanwhile."""
    return f"create_snap {_number(number)} {_number(origin)}"


def delete(number: int) -> str:
    """The message that deletes a thin device; ENODATA: there is none, EBUSY: it is in use."""
    return f"delete {_number(number)}"


def _number(number: int) -> int:
    if not 0 <= number <= MAX_ID:
        raise InvalidArgument(f"a thin device has a number from 0 to {MAX_ID}, not {number}")
    return number
