"""``unikeel snapshot usage``: what snapshots occupy on their own."""

from __future__ import annotations

from unikeel.cli.options import JSON, SNAPSHOTS, Argument, Command, Parsed
from unikeel.cli.output import json, size, table, write
from unikeel.cli.snapshot_ls import NARROWING
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session

COMMAND = Command(
    "snapshot usage",
    "show what snapshots occupy on their own, without what they share",
    options=(*NARROWING, JSON),
    arguments=(Argument("SNAPSHOT", "key or name; all, unless some are named", 0, None, SNAPSHOTS),),
    examples=(("unikeel snapshot usage --consumer engine", "all of the engine's, and the total"),),
    details="Of a committed snapshot it is what it had when it was committed. JSON keys: snapshots, each with name, consumer, store, size and inodes; and the total size, in bytes.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Ask each one's store."""
    from unikeel.cli.pooling import looking

    with looking(session) as found:
        entries = [entry for name in parsed.operands or [""] for entry in found.named(name, parsed)]
        used = [(entry, found.store(entry).usage(entry.info.name)) for entry in entries]
    total = sum(usage.size for _, usage in used)
    if parsed.flag("json"):
        rows = [
            {"name": entry.info.name, "consumer": entry.consumer, "store": entry.store, **usage._asdict()}
            for entry, usage in used
        ]
        json({"snapshots": rows, "size": total})
        return 0
    lines = [
        (entry.info.name, entry.consumer, entry.store, size(usage.size), str(usage.inodes)) for entry, usage in used
    ]
    write(table(("NAME", "CONSUMER", "STORE", "SIZE", "INODES"), lines, right=frozenset({3, 4})))
    write(f"total {size(total)}\n")
    return 0
