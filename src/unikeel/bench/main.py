"""The command: options, the run, the file, the report. ``make bench`` ends up here."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from unikeel.bench import environment, promises, report
from unikeel.bench.plan import IMAGES, METRICS, Plan, Progress
from unikeel.bench.rows import Board, Document
from unikeel.bench.scenarios import acquire, imports, memory, networks, plans, spans, starts
from unikeel.bench.stage import Stage
from unikeel.errors import PermissionDenied, UnikeelError, mapping

OUTPUT = os.path.join("build", "bench", "main.json")
SAMPLES = os.path.join("build", "samples")
_PARENT = "/var/tmp"  # noqa: S108 - the stage makes a directory of its own in it; on disk, unlike /tmp on many hosts
_PATIENCE = 0.5
_SCENARIOS = (spans, plans, networks, acquire, starts, imports, memory)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m unikeel.bench",
        description="Measure what starts cost here, with each way to get boot files, and compare with what is promised.",
    )
    parser.add_argument("--quick", action="store_true", help="few samples of the smallest image: does it all work?")
    parser.add_argument("--only", action="append", metavar="METRIC", choices=METRICS, help=", ".join(METRICS))
    parser.add_argument("--image", action="append", metavar="NAME", choices=IMAGES, help=", ".join(IMAGES))
    parser.add_argument("--samples", type=int, default=0, metavar="N", help="samples of each series")
    parser.add_argument("--output", default=OUTPUT, metavar="FILE", help=f"where the figures go ({OUTPUT})")
    parser.add_argument(
        "--root", default=_PARENT, metavar="DIR", help=f"where the state root is made, on disk ({_PARENT})"
    )
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
    return parsed


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit status: 0 when everything was measured, whatever came out (but see ``--strict``)."""
    parsed = arguments(argv)
    metrics = tuple(dict.fromkeys(parsed.only or METRICS))
    patience = (0.0 if parsed.quick else _PATIENCE) if parsed.patience is None else parsed.patience
    plan = Plan(tuple(dict.fromkeys(parsed.image or ())), metrics, parsed.samples, parsed.quick)
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        if os.geteuid() != 0:
            raise PermissionDenied("the benchmarks mount, make loop devices and run monitors", "run them as root")
        document, board, notices, interrupted = run(plan, parsed.sample_images, parsed.root, patience)
        output = f"{parsed.output}.interrupted" if interrupted else parsed.output
        document.write(output)
    except UnikeelError as error:
        print(f"bench: {error}", file=sys.stderr)
        return mapping(error).exit
    except OSError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; nothing was written", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    sys.stdout.write(report.render(document, board.failures(), notices))
    print(f"\nwritten to {output}")
    if interrupted:
        print(f"bench: interrupted after {interrupted}: these are not all figures", file=sys.stderr)
        return 130
    missed = any(verdict.kept is False for verdict in promises.verdicts(document.rows))
    return 1 if parsed.strict and missed else 0


def _terminated(_number: int, _frame: object) -> None:
    """Being told to end takes the way of Ctrl-C, so that everything is taken away."""
    raise KeyboardInterrupt


def run(plan: Plan, samples: str, parent: str, patience: float) -> tuple[Document, Board, list[str], str]:
    """Measure: what was found, and how far an interrupted run had come (empty: to its end); what it has measured by then is kept.

    :raise UnikeelError: the host or the samples do not allow it. :raise OSError: no space, and the like."""
    board, progress, interrupted = Board(), Progress(), ""
    images = plan.of(IMAGES)
    with Stage(samples, parent, images, patience) as stage:
        found = environment.describe(stage.engine.services)
        for number, image in enumerate(images):
            progress.at(f"loading {image}", number, len(images))
            stage.load(image)
        try:
            for scenario in _SCENARIOS:
                scenario.measure(stage, plan, board, progress)
        except KeyboardInterrupt:
            if not board.rows():
                raise
            interrupted = progress.where()
        progress.clear()
    found["load_after"] = environment.load()
    found["quiet"] = stage.quiet.describe()
    return Document(found, board.rows()), board, stage.notices, interrupted
