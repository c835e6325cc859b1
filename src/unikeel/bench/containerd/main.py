"""The command: options, the run, the file, the report. ``make bench-containerd`` ends up here."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from unikeel.bench import environment
from unikeel.bench.containerd import promises, report, worlds
from unikeel.bench.containerd.plan import METRICS, NATIVE, VM, WORLDS, Block, Plan, World
from unikeel.bench.containerd.progress import Progress
from unikeel.bench.quiet import Quiet
from unikeel.bench.rows import Board, Document, Json, Key
from unikeel.errors import PermissionDenied, UnikeelError, mapping
from unikeel.version import VERSION

SAMPLES = os.path.join("build", "samples")
OUTPUT = os.path.join("build", "bench", "containerd.json")
_PATIENCE = 0.5
_INTERRUPTED = 130


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
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        if os.geteuid() != 0:
            raise PermissionDenied("the lab mounts, makes namespaces and runs containerd", "run this as root")
        done = Run(plan, parsed.sample_images, patience).measure()
        output = parsed.output if not done.interrupted else f"{parsed.output}.interrupted"
        done.document.write(output)
    except UnikeelError as error:
        print(f"bench: {error}", file=sys.stderr)
        return mapping(error).exit
    except OSError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
    sys.stdout.write(report.render(done.document, done.board.failures(), done.notices))
    print(f"\nwritten to {output}")
    if done.interrupted:
        print(f"bench: interrupted after {done.interrupted}: these are not all figures", file=sys.stderr)
        return _INTERRUPTED
    missed = any(verdict.kept is False for verdict in promises.verdicts(done.document.rows))
    return 1 if done.incomplete or (parsed.strict and missed) else 0


def _terminated(_number: int, _frame: object) -> None:
    """Being told to end takes the way of Ctrl-C, so that everything is taken away."""
    raise KeyboardInterrupt


class Done(NamedTuple):
    """What a run gave. ``interrupted``: how far it had come then, empty if it came to its end. ``incomplete``: a block could not be run."""

    document: Document
    board: Board
    notices: list[str]
    interrupted: str
    incomplete: bool


class Run:
    """One run of a plan."""

    def __init__(self, plan: Plan, samples: str, patience: float) -> None:
        self._plan = plan
        self._samples = samples
        self._patience = patience
        self._quiet = Quiet(patience)
        self._board = Board()
        self._notices: list[str] = []
        self._worlds: dict[str, Json] = {}
        self._incomplete = False

    def measure(self) -> Done:
        """Every world in turn. :raise UnikeelError: the first of them cannot be made."""
        blocks = [block for world in self._plan.worlds() for block in self._plan.blocks(world)]
        progress, found, interrupted = Progress(blocks), self._environment(), ""
        try:
            for world in dict.fromkeys(block.world for block in blocks):
                self._world(world, [block for block in blocks if block.world == world], progress)
        except KeyboardInterrupt:
            interrupted = progress.where()
            self._notices.append(f"the run was interrupted after {interrupted}")
        progress.clear()
        found |= {"worlds": self._worlds, "load_after": environment.load(), "quiet": self._quiet.describe()}
        return Done(Document(found, self._board.rows()), self._board, self._notices, interrupted, self._incomplete)

    def _world(self, world: World, blocks: Sequence[Block], progress: Progress) -> None:
        """All blocks of a world. What fails there is told and counted; the others go on."""
        progress.step(f"{world.snapshotter}: starting the lab ({world.root})")
        names = tuple(dict.fromkeys(name for block in blocks for name in block.images))
        left = list(blocks)
        try:
            with worlds.opened(world, self._samples, names) as stage:
                for block in blocks:
                    self._block(stage, block, progress)
                    left.remove(block)
        except UnikeelError as error:
            if not self._worlds and not self._board.rows():
                raise
            self._incomplete = True
            self._notices.append(str(error))
            for block in left:
                self._failed(block, error)

    def _block(self, stage: worlds.Stage, block: Block, progress: Progress) -> None:
        progress.begin(block)
        self._quiet.wait()
        try:
            found = stage.run(block, self._board, self._patience)
        except UnikeelError as error:
            self._failed(block, error)
        else:
            self._notices += found.notices
            about = self._worlds.setdefault(stage.world.snapshotter, {"root": stage.world.root})
            assert isinstance(about, dict)
            about.update(found.environment)
        progress.end(block)

    def _failed(self, block: Block, error: UnikeelError) -> None:
        """A block that could not be run is a failure, so that nobody takes the rest for everything."""
        self._incomplete = True
        self._notices.append(f"not run: {error}")
        self._board.series(Key(block.group, "block", "", snapshotter=block.world.snapshotter)).fail(str(error))

    def _environment(self) -> dict[str, Json]:
        """The host's part; each world adds its own."""
        return {
            "unikeel": VERSION,
            "commit": environment.commit(),
            "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "kernel": os.uname().release,
            "machine": os.uname().machine,
            "cpu": environment.cpu(environment.read("/proc/cpuinfo")),
            "cores": os.cpu_count(),
            "memory_mib": environment.memory_mib(environment.read("/proc/meminfo")),
            "load": environment.load(),
        }
