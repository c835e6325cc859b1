"""``unikeel pool create``: make a pool."""

from __future__ import annotations

import time

from unikeel.cli.failures import say
from unikeel.cli.options import FILES, JSON, Argument, Command, Option, Parsed
from unikeel.cli.output import json, line
from unikeel.errors import InvalidArgument
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session
    from unikeel.snapshots.pools.planning import Device

COMMAND = Command(
    "pool create",
    "make a pool for snapshots, out of block devices or in files",
    options=(
        Option(("--type",), "thin provisioning, or a file system that shares blocks", "TYPE", choices=("thin", "file")),
        Option(("--data",), "the block device for the data of a thin pool", "DEVICE", complete=FILES),
        Option(("--metadata",), "the block device for its metadata", "DEVICE", complete=FILES),
        Option(("--size",), "instead of devices: the size of the file that the pool is in", "SIZE"),
        Option(("--metadata-size",), "the size of its metadata's file; as much as the data needs", "SIZE"),
        Option(("--block-size",), "a thin pool's unit (64KiB)", "SIZE"),
        Option(("--sparse",), "do not take the files' room at once"),
        Option(("--force",), "overwrite what the devices hold"),
        JSON,
    ),
    arguments=(Argument("POOL", "what it is to be called"),),
    examples=(
        ("unikeel pool create main --data /dev/vg/data --metadata /dev/vg/metadata", "a thin pool on logical volumes"),
        ("unikeel pool create trial --size 8GiB", "a thin pool in files, for trials"),
        ("unikeel pool create fast --type file --size 20GiB", "XFS in a file, for a disk whose files share no blocks"),
    ),
    details="A pool belongs to one state root, and holds its own identifier, so that no other store touches it. The type is thin unless --type says file. "
    "JSON: an object as `pool status` has it.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Plan it, say what is to be said, make it."""
    from unikeel.cli.pooling import described, pools
    from unikeel.snapshots.pools.definition import PoolKind, new_uuid
    from unikeel.snapshots.pools.lifecycle import create
    from unikeel.snapshots.pools.planning import Request, plan_creation
    from unikeel.snapshots.pools.status import status_of

    request = Request(
        name=parsed.operands[0],
        kind=PoolKind(parsed.text("type") or "thin"),
        data=_device(parsed, "data"),
        metadata=_device(parsed, "metadata"),
        size=parsed.size("size"),
        metadata_size=parsed.size("metadata-size"),
        block_size=parsed.size("block-size"),
        sparse=parsed.flag("sparse"),
        force=parsed.flag("force"),
    )
    creation = plan_creation(request, new_uuid(), time.time_ns())
    with pools(session, make=True) as found:
        for warning in creation.warnings:
            say(f"warning: {warning}")
        create(found.registry, creation.pool)
        if parsed.flag("json"):
            json(described(status_of(found.registry, request.name, found.catalog, found.is_dead)))
        else:
            line(request.name)
    return 0


def _device(parsed: Parsed, key: str) -> Device | None:
    path = parsed.maybe(key)
    if path is None:
        return None
    if not path:
        raise InvalidArgument(f"--{key} names no device")
    from unikeel.snapshots.pools.devices import probe

    return probe(path)
