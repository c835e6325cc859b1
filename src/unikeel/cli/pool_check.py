"""``unikeel pool check``: whether pools and records agree, and mending it."""

from __future__ import annotations

import sys

from unikeel.cli.failures import say
from unikeel.cli.options import JSON, POOLS, Argument, Command, Option, Parsed
from unikeel.cli.output import json, line
from unikeel.errors import InvalidArgument
from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from unikeel.cli.session import Session
    from unikeel.snapshots.pools.checking import Report

COMMAND = Command(
    "pool check",
    "check whether a pool and the records of its snapshots agree",
    options=(
        Option(("--repair",), "show a plan that makes them agree, ask, and carry it out"),
        Option(("-y", "--yes"), "do not ask"),
        JSON,
    ),
    arguments=(Argument("POOL", "the pool; the only one if none is named", 0, 1, POOLS),),
    examples=(
        ("unikeel pool check main", "changes nothing"),
        ("unikeel pool check main --repair", "with nothing that uses the pool: the plan, then a question"),
    ),
    details="Exit status 0: they agree, or do now; 1: they do not. What a store will clear up by itself is not wrong. "
    "JSON keys: ok, problems, pending (what a store will clear up by itself), plan (what --repair would do, in order), done (whether it was).",
)


def run(parsed: Parsed, session: Session) -> int:
    """Check, and perhaps repair."""
    from unikeel.cli.pooling import pools
    from unikeel.snapshots.pools.registry import choose
    from unikeel.snapshots.pools.repairing import check, repair

    as_json, mend = parsed.flag("json"), parsed.flag("repair")
    if mend and not parsed.flag("yes") and (as_json or not sys.stdin.isatty()):
        raise InvalidArgument("a repair is asked about on a terminal", "--yes carries the plan out without asking")
    done = 0

    def agree(report: Report) -> bool:
        if not as_json:
            show(report)
        return parsed.flag("yes") or _asked()

    def tell(_step: object) -> None:
        nonlocal done
        done += 1

    with pools(session) as found:
        name = choose(found.registry, parsed.operands[0] if parsed.operands else "")
        if mend:
            report = repair(found.registry, name, found.catalog, found.is_dead, agree, tell)
        else:
            report = check(found.registry, name, found.catalog, found.is_dead)
    repaired = bool(report.steps) and done == len(report.steps)
    if as_json:
        json(described(report, done=repaired))
    elif not mend or not report.steps:
        show(report)
    elif repaired:
        line(f"{name}: done")
    return 0 if report.fine or repaired else 1


def show(report: Report) -> None:
    """What is wrong, on standard output, then the plan."""
    for problem in report.problems:
        line(f"problem: {problem}")
    for pending in report.pending:
        line(f"the store will {pending}")
    for number, step in enumerate(report.steps, 1):
        line(f"repair {number}: {step.text}")
    if report.fine:
        line("the pool and its records agree")


def described(report: Report, *, done: bool) -> dict[str, object]:
    """As JSON."""
    return {
        "ok": report.fine or done,
        "problems": list(report.problems),
        "pending": list(report.pending),
        "plan": [{"does": step.does.value, "text": step.text, "ids": list(step.ids)} for step in report.steps],
        "done": done,
    }


def _asked() -> bool:
    say("carry this out? It cannot be undone. [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")
