"""``unikeel pool grow``: make a pool larger while it is used."""

from __future__ import annotations

from unikeel.cli.options import JSON, POOLS, Argument, Command, Option, Parsed
from unikeel.cli.output import json, line
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session

COMMAND = Command(
    "pool grow",
    "make a pool larger, also while it is used",
    options=(
        Option(("--size",), "the new size of a pool in files", "SIZE"),
        Option(("--metadata-size",), "the new size of its metadata; as much as the data needs", "SIZE"),
        JSON,
    ),
    arguments=(Argument("POOL", "the pool", 1, 1, POOLS),),
    examples=(
        ("unikeel pool grow main", "take what the devices have by now, after lvextend"),
        ("unikeel pool grow fast --size 40GiB", "a pool in a file"),
    ),
    details="A pool never becomes smaller. JSON: an object as `pool status` has it.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Plan it, do it, say it."""
    from unikeel.cli.pooling import described, pools
    from unikeel.snapshots.pools.lifecycle import grow
    from unikeel.snapshots.pools.planning import plan_growth
    from unikeel.snapshots.pools.status import status_of

    name = parsed.operands[0]
    with pools(session) as found:
        growth = plan_growth(found.registry.find(name), parsed.size("size"), parsed.size("metadata-size"))
        grow(found.registry, growth.pool)
        if parsed.flag("json"):
            json(described(status_of(found.registry, name, found.catalog, found.is_dead)))
        else:
            for change in growth.changes:
                line(f"{name}: {change}")
    return 0
