"""``unikeel pool status``: what the pools are, and how full."""

from __future__ import annotations

from unikeel.cli.failures import say
from unikeel.cli.options import JSON, POOLS, Argument, Command, Parsed
from unikeel.cli.output import json, size, table, write
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session
    from unikeel.snapshots.pools.status import Status

_COLUMNS = ("POOL", "TYPE", "STATE", "DATA", "USED", "METADATA", "USED", "COMMITTED", "ACTIVE", "VIEWS", "SPARES")
COMMAND = Command(
    "pool status",
    "show the pools: how full they are and what they hold",
    options=(JSON,),
    arguments=(Argument("POOL", "all, unless some are named", 0, None, POOLS),),
    examples=(("unikeel pool status", "all pools, with what is to be warned of on standard error"),),
    details="JSON: a list of objects with name, type, uuid, state (active, inactive, creating, destroying, damaged), data_device, metadata_device (empty: files of "
    "the pool's own), block_size, data and metadata (used and size in bytes; null if not known), level (fine, warn, full), snapshots (committed, active, views, spares, "
    "unfinished, removed), consumers, problems, and pending (what a store will clear up by itself). `unikeel pool check` tells what mends a problem.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Look at each."""
    from unikeel.cli.pooling import described, pools, problems
    from unikeel.snapshots.pools.status import status_of

    with pools(session) as found:
        names = parsed.operands or found.registry.names()
        statuses = [status_of(found.registry, name, found.catalog, found.is_dead) for name in names]
    if parsed.flag("json"):
        json([described(status) for status in statuses])
        return 0
    write(table(_COLUMNS, [_row(status) for status in statuses], right=frozenset(range(3, len(_COLUMNS)))))
    for status in statuses:
        for problem in problems(status):
            say(f"pool {status.name}: {problem}")
        for pending in status.pending:
            say(f"pool {status.name}: the store will {pending}")
    return 0


def _row(status: Status) -> tuple[str, ...]:
    fill, counts, pool = status.fill, status.counts, status.pool
    data = (size(fill.data.total), f"{fill.data.percent:.1f} %") if fill else ("-", "-")
    own = fill.metadata if fill else None
    metadata = (size(own.total), f"{own.percent:.1f} %") if own else ("-", "-")
    numbers = (counts.committed, counts.active, counts.views, counts.spares) if counts else ("-",) * 4
    kind = pool.kind.value if pool else "-"
    return (status.name, kind, status.state, *data, *metadata, *(str(number) for number in numbers))
