"""``unikeel bench compare``: what differs between two campaigns' results."""

from __future__ import annotations

from unikeel.cli.options import FILES, JSON, Argument, Command, Parsed
from unikeel.cli.output import json, line
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session

COMMAND = Command(
    "bench compare",
    "compare two results: what became slower or faster, and do they agree",
    options=(JSON,),
    arguments=(Argument("A", "results of `unikeel bench run`", complete=FILES), Argument("B", "others", complete=FILES)),
    examples=(("unikeel bench compare before.jsonl after.jsonl", ""),),
    details="Only differences that are significant for all series together are called one. Differences between strategies within A are looked up in B: "
    "exit status 1 if one that is significant in A has the other sign in B. JSON keys: changes, contradicted, confirmed, unknown.",
)  # fmt: skip


def run(parsed: Parsed, session: Session) -> int:
    """Compare."""
    from unikeel.bench.campaign.results import read
    from unikeel.bench.evaluation.comparing import agreement, changes

    del session
    first, second = (read([path]) for path in parsed.operands)
    changed, agreed = changes(first, second), agreement(first, second)
    if parsed.flag("json"):
        json({"changes": changed, **agreed._asdict()})
        return 1 if agreed.contradicted else 0
    for sentence in changed or ["No series differs significantly between the two."]:
        line(sentence)
    line(
        f"Of the differences within A that are significant, B has the same sign for {len(agreed.confirmed)}, the other for "
        f"{len(agreed.contradicted)}, and does not have the series of {len(agreed.unknown)}."
    )
    for sentence in agreed.contradicted:
        line(f"contradicted: {sentence}")
    return 1 if agreed.contradicted else 0
