"""``unikeel boot gc``: take away boot files that nobody uses."""

from __future__ import annotations

from unikeel.cli.options import JSON, Command, Option, Parsed
from unikeel.cli.output import json, line, short, size
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session

COMMAND = Command(
    "boot gc",
    "take away what is over the cache's bound, idle views and made disks; never what is in use",
    options=(Option(("-a", "--all"), "all that nobody uses"), JSON),
    examples=(("unikeel boot gc --all", "the next start of each image reads its boot files again"),),
    details="JSON keys: freed, each with kind, name and size; and the total size, in bytes.",
)


def run(parsed: Parsed, session: Session) -> int:
    """Collect, and tell what went."""
    from unikeel.daemon.asking import ask

    everything = parsed.flag("all")
    with session.engine() as engine:
        freed = [item._asdict() for item in engine.collect_boot_files(everything=everything)]
        # Only the daemon can give back what it has made in containerd.
        freed += ask(engine.services.layout, "Collect", {"everything": everything}) or []
    total = sum(item["size"] for item in freed)
    if parsed.flag("json"):
        json({"freed": freed, "size": total})
        return 0
    for item in freed:
        line(f"{item['kind']} {short(item['name'])} {size(item['size'])}")
    line(f"freed {size(total)}")
    return 0
