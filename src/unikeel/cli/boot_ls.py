"""``unikeel boot ls``: what is kept of boot files, and for whom."""

from __future__ import annotations

import time
from collections.abc import Sequence

from unikeel.cli.options import JSON, Command, Parsed
from unikeel.cli.output import age, json, short, size, table, write
from unikeel.cli.ps import recorded, recorded_tasks
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.boot.contract import Holding
    from unikeel.cli.session import Session

_COLUMNS = ("KIND", "NAME", "FROM", "SIZE", "SNAPSHOTS", "USED BY", "LEASE", "LAST USED")
COMMAND = Command(
    "boot ls",
    "list what the cache, the shared views, the views, the copies and the made disks hold, and who uses it",
    options=(JSON,),
    examples=(("unikeel boot ls", "what is kept, and what could go"),),
    details="Of containerd's images, FROM is the namespace and the snapshotter; LEASE keeps a view in containerd. "
    "JSON keys: holdings, each with kind (object, shared-view, view, copy, disk), name, parents, users, size, reclaimable, namespace, snapshotter, lease "
    "and last_used in nanoseconds since the epoch (0: unknown); and the totals size and reclaimable, in bytes.",
)


def run(parsed: Parsed, session: Session) -> int:
    """List it, with totals."""
    with session.engine() as engine:
        holdings = engine.boot_files()
        names = {record.id: record.name for record in recorded(engine, everything=True)}
        names |= {task.ident: task.id for task in recorded_tasks(engine, everything=True)}
    if parsed.flag("json"):
        json(described(holdings))
    else:
        write(rendered(holdings, names, time.time_ns()))
    return 0


def described(holdings: Sequence[Holding]) -> dict[str, object]:
    """Everything, as JSON."""
    return {
        "holdings": [
            {
                "kind": found.kind,
                "name": found.name,
                "parents": list(found.parents),
                "users": list(found.users),
                "size": found.size,
                "reclaimable": found.reclaimable,
                "last_used": found.last_used_ns,
                "namespace": found.namespace,
                "snapshotter": found.snapshotter,
                "lease": found.lease,
            }
            for found in holdings
        ],
        "size": sum(found.size for found in holdings),
        "reclaimable": reclaimable(holdings),
    }


def reclaimable(holdings: Sequence[Holding]) -> int:
    """Bytes that nobody uses."""
    return sum(found.size for found in holdings if found.reclaimable)


def rendered(holdings: Sequence[Holding], names: dict[str, str], now_ns: int) -> str:
    """A table and the totals. :param names: containers' names by id."""
    rows = [
        (
            found.kind,
            short(found.name),
            f"{found.namespace}/{found.snapshotter}" if found.namespace else "-",
            size(found.size),
            ", ".join(short(parent) for parent in found.parents) or "-",
            ", ".join(names.get(user, user) for user in found.users) or "nobody",
            found.lease or "-",
            age(found.last_used_ns, now_ns),
        )
        for found in holdings
    ]
    total = f"total {size(sum(found.size for found in holdings))}, reclaimable {size(reclaimable(holdings))}\n"
    return table(_COLUMNS, rows, right=frozenset({3})) + total
