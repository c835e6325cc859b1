"""The command: options, the run, the file, the report. ``make bench-containerd`` ends up here."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial

from unikeel.bench.containerd import promises, report, worlds
from unikeel.bench.containerd.plan import METRICS, NATIVE, VM, WORLDS, Plan
from unikeel.bench.running import Run, command

SAMPLES = os.path.join("build", "samples")
OUTPUT = os.path.join("build", "bench", "containerd.json")
_PATIENCE = 0.5


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m unikeel.bench.containerd",
        description="Measure what starts cost under containerd, in the lab, and compare with what is promised.",
    )
    parser.add_argument("--quick", action="store_true", help="few samples, one native containerd: does it all work?")
    parser.add_argument("--only", action="append", metavar="METRIC", choices=METRICS, help=", ".join(METRICS))
    parser.add_argument("--where", default="", choices=(NATIVE, VM), help="only on this host, or only in the machine")
    names = [world.snapshotter for world in WORLDS]
    parser.add_argument("--snapshotter", default="", choices=names, help="only from this one")
    parser.add_argument("--samples", type=int, default=0, metavar="N", help="samples of each series")
    parser.add_argument("--output", default=OUTPUT, metavar="FILE", help=f"where the figures go ({OUTPUT})")
    parser.add_argument(
        "--sample-images", default=SAMPLES, metavar="DIR", help=f"what `make samples` filled ({SAMPLES})"
    )
    parser.add_argument(
        "--patience",
        type=float,
        metavar="S",
        help=f"seconds to wait for a quiet host, per round on average ({_PATIENCE:g}; --quick: 0)",
    )
    parser.add_argument("--strict", action="store_true", help="exit with status 1 if a promise is missed")
    parsed = parser.parse_args(argv)
    if parsed.samples < 0:
        parser.error("--samples must be positive")
    worlds_left = Plan(where=parsed.where, snapshotter=parsed.snapshotter).worlds()
    if not worlds_left or (parsed.quick and worlds_left[0].where == VM):
        parser.error("there is no such world, or --quick is not for it")
    return parsed


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit status: 0 when everything was measured, whatever came out (but see ``--strict``)."""
    parsed = arguments(argv)
    metrics = tuple(dict.fromkeys(parsed.only or METRICS))
    patience = (0.0 if parsed.quick else _PATIENCE) if parsed.patience is None else parsed.patience
    plan = Plan(metrics, parsed.where, parsed.samples, parsed.quick, parsed.snapshotter)
    blocks = [block for world in plan.worlds() for block in plan.blocks(world)]
    opened = partial(worlds.opened, samples=parsed.sample_images)
    return command(
        lambda: Run(blocks, opened, patience).measure(),
        parsed.output,
        lambda done: report.render(done.document, done.board.failures(), done.notices),
        lambda rows: parsed.strict and any(verdict.kept is False for verdict in promises.verdicts(rows)),
    )
