"""Which devices an active pool holds, in use or not: read from its metadata, since device-mapper has no message that lists them."""

from __future__ import annotations

from contextlib import suppress

from unikeel.errors import BadContent
from unikeel.kernel.devmapper import Control, thin
from unikeel.snapshots.thin.reference import ThinPoolRef


def thin_numbers(control: Control, pool: ThinPoolRef) -> set[int]:
    """The numbers of all devices of an active pool. Only one process at a time may ask.

    :raise BadContent: the metadata cannot be read. :raise OSError: what the kernel refuses.
    """
    from unikeel.snapshots.pools.thin_metadata import MetadataDevice

    path = _metadata_path(control, pool)
    if thin.pool_status(control.status(pool.dm_name)).held_root is not None:  # by one who was killed while reading
        control.message(pool.dm_name, "release_metadata_snap")
    control.message(pool.dm_name, "reserve_metadata_snap")
    try:
        with MetadataDevice(path) as metadata:
            return set(metadata.held_devices())
    finally:
        with suppress(OSError):
            control.message(pool.dm_name, "release_metadata_snap")


def _metadata_path(control: Control, pool: ThinPoolRef) -> str:
    """The node of the pool's metadata device, by the number in its table, as the kernel calls it."""
    for target in control.table(pool.dm_name):
        number = target.parameters.split(" ")[0]
        if target.kind == "thin-pool" and number.replace(":", "").isdecimal():
            with open(f"/sys/dev/block/{number}/uevent", encoding="ascii") as file:
                for line in file:
                    if line.startswith("DEVNAME="):
                        return f"/dev/{line.removeprefix('DEVNAME=').strip()}"
    raise BadContent(f"the device {pool.dm_name} is no thin pool")
