"""``unikeel snapshot ls``: the snapshots of all stores."""

from __future__ import annotations

import time

from unikeel.cli.options import JSON, Command, Option, Parsed
from unikeel.cli.output import age, json, short, size, table, write
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session
    from unikeel.snapshots.catalog import Entry

_COLUMNS = ("NAME", "KIND", "PARENT", "STORE", "CONSUMER", "HOW", "SIZE", "CREATED")
_NAME_WIDTH = 48

#: What :mod:`.snapshot_ls`, :mod:`.snapshot_inspect` and :mod:`.snapshot_usage` can be narrowed by.
NARROWING = (
    Option(("--consumer",), "only those of this consumer (`engine`, or what a containerd is called)", "NAME"),
    Option(("--store",), "only those in this store (`file`, or `pool:POOL`)", "NAME"),
)
COMMAND = Command(
    "snapshot ls",
    "list the snapshots that there are",
    options=(*NARROWING, Option(("-q", "--quiet"), "print names only"), JSON),
    examples=(("unikeel snapshot ls --store pool:main", "what one pool holds"),),
    details="Each consumer (the engine, each containerd) has names of its own. SIZE is what the guest sees. JSON keys: name, kind, parent, store, consumer, "
    "how (how its content came to be), size, created and updated in nanoseconds since the epoch, labels.",
)


def run(parsed: Parsed, session: Session) -> int:
    """List them."""
    from unikeel.cli.pooling import looking

    with looking(session) as found:
        entries = list(found.catalog().entries(consumer=parsed.text("consumer"), store=parsed.text("store")))
    if parsed.flag("json"):
        json([described(entry) for entry in entries])
    elif parsed.flag("quiet"):
        write("".join(f"{entry.info.name}\n" for entry in entries))
    else:
        now = time.time_ns()
        write(table(_COLUMNS, [_row(entry, now) for entry in entries], right=frozenset({6})))
    return 0


def described(entry: Entry) -> dict[str, object]:
    """One snapshot, as JSON."""
    return {
        "name": entry.info.name,
        "kind": entry.info.kind.value,
        "parent": entry.info.parent,
        "store": entry.store,
        "consumer": entry.consumer,
        "how": entry.how.value,
        "size": entry.virtual_size,
        "created": entry.info.created_ns,
        "updated": entry.info.updated_ns,
        "labels": dict(entry.info.labels),
    }


def _row(entry: Entry, now_ns: int) -> tuple[str, ...]:
    name, parent = entry.info.name, entry.info.parent
    return (
        name if len(name) <= _NAME_WIDTH else name[: _NAME_WIDTH - 1] + "…",
        entry.info.kind.value,
        short(parent) or "-",
        entry.store,
        entry.consumer,
        entry.how.value,
        size(entry.virtual_size),
        age(entry.info.created_ns, now_ns),
    )
