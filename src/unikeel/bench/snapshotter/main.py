"""The command: options, the run, the file, the report. ``make bench-snapshotter`` ends up here."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from unikeel.bench.running import Run, command
from unikeel.bench.snapshotter import promises, report, worlds
from unikeel.bench.snapshotter.plan import GROUPS, METRICS, NATIVE, VM, WORLDS, Plan

OUTPUT = os.path.join("build", "bench", "snapshotter.json")
_PATIENCE = 0.5


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m unikeel.bench.snapshotter",
        description="Measure block snapshotters under containerd, in the lab, and compare with what is promised.",
    )
    parser.add_argument("--quick", action="store_true", help="few samples, one containerd: does it all work?")
    parser.add_argument("--only", action="append", metavar="METRIC", choices=METRICS, help=", ".join(METRICS))
    groups = [group.name for group in GROUPS]
    parser.add_argument(
        "--group", action="append", metavar="GROUP", choices=groups, help=f"of samples: {', '.join(groups)}"
    )
    parser.add_argument("--where", default="", choices=(NATIVE, VM), help="only on this host, or only in the machine")
    names = list(dict.fromkeys(name for world in WORLDS for name in world.contenders))
    parser.add_argument("--snapshotter", action="append", choices=names, help="only this one; may be repeated")
    parser.add_argument("--samples", type=int, default=0, metavar="N", help="rounds of single calls")
    parser.add_argument("--full", type=int, default=0, metavar="N", help="snapshots in a full store (5000)")
    parser.add_argument("--output", default=OUTPUT, metavar="FILE", help=f"where the figures go ({OUTPUT})")
    parser.add_argument(
        "--patience",
        type=float,
        metavar="S",
        help=f"seconds to wait for a quiet host, per round on average ({_PATIENCE:g}; --quick: 0)",
    )
    parser.add_argument("--strict", action="store_true", help="exit with status 1 if what is required is missed")
    parsed = parser.parse_args(argv)
    if parsed.samples < 0 or parsed.full < 0:
        parser.error("--samples and --full must be positive")
    plan = planned(parsed)
    if not plan.worlds():
        parser.error("there is no such world")
    if not plan.groups():
        parser.error("no sample of these groups gives that metric")
    return parsed


def planned(parsed: argparse.Namespace) -> Plan:
    """The plan of some options."""
    metrics = tuple(dict.fromkeys(parsed.only or METRICS))
    return Plan(
        metrics,
        parsed.where,
        tuple(parsed.snapshotter or ()),
        parsed.samples,
        parsed.full,
        parsed.quick,
        tuple(parsed.group or ()),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit status: 0 when everything was measured, whatever came out (but see ``--strict``)."""
    parsed = arguments(argv)
    plan = planned(parsed)
    patience = (0.0 if parsed.quick else _PATIENCE) if parsed.patience is None else parsed.patience
    blocks = [block for world in plan.worlds() for block in plan.blocks(world)]
    return command(
        lambda: Run(blocks, worlds.opened, patience).measure(),
        parsed.output,
        lambda done: report.render(done.document, done.board.failures(), done.notices),
        lambda rows: parsed.strict and promises.missed(rows),
    )
