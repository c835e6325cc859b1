"""A run in labs, whatever it measures: world after world, block after block; what fails is told and counted, and the others go on.

The command around it: exit status, the file, what an interruption leaves. Both benchmarks that run in the lab are made of this.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final, Generic, Protocol, TypeVar

from unikeel.bench import environment
from unikeel.bench.lines import Found
from unikeel.bench.progress import Block, Progress, World
from unikeel.bench.quiet import Quiet
from unikeel.bench.rows import Board, Document, Json, Key, Row
from unikeel.errors import PermissionDenied, UnikeelError, mapping
from unikeel.values import NamedTuple
from unikeel.version import VERSION

_INTERRUPTED: Final = 130

B = TypeVar("B", bound=Block)
C_contra = TypeVar("C_contra", bound=Block, contravariant=True)


class Stage(Protocol[C_contra]):
    """A world that runs."""

    @property
    def world(self) -> World:
        """Which."""
        ...

    def run(self, block: C_contra, board: Board, patience: float) -> Found:
        """Run a block; its samples are on the board when this returns.

        :raise Unavailable: it cannot be run, or did not come to its end; what it had measured until then is on the board.
        """
        ...


class Done(NamedTuple):
    """What a run gave. ``interrupted``: how far it had come then, empty if it came to its end. ``incomplete``: a block could not be run."""

    document: Document
    board: Board
    notices: list[str]
    interrupted: str
    incomplete: bool


class Run(Generic[B]):
    """One run.

    :param blocks: all of it, the blocks of one world next to each other. :param opened: makes the world of some blocks.
    :param patience: seconds to wait for a quiet host, per round on average. :param board: where samples go.
    :param done: told of each block that came to its end. :param enough: asked before each block whether the run is to end here, as if interrupted.
    """

    def __init__(
        self,
        blocks: Sequence[B],
        opened: Callable[[Sequence[B]], AbstractContextManager[Stage[B]]],
        patience: float,
        *,
        board: Board | None = None,
        done: Callable[[B], None] = lambda _: None,
        enough: Callable[[], bool] = lambda: False,
    ) -> None:
        self._blocks = blocks
        self._opened = opened
        self._patience = patience
        self._quiet = Quiet(patience)
        self._board = board or Board()
        self._done = done
        self._enough = enough
        self._notices: list[str] = []
        self._worlds: dict[str, Json] = {}
        self._incomplete = False

    def measure(self) -> Done:
        """Every world in turn. :raise UnikeelError: the first of them cannot be made."""
        progress, found, interrupted = Progress(self._blocks), host(), ""
        try:
            for world in dict.fromkeys(block.world for block in self._blocks):
                self._world(world, [block for block in self._blocks if block.world == world], progress)
        except KeyboardInterrupt:
            interrupted = progress.where()
            self._notices.append(f"the run was interrupted after {interrupted}")
        progress.clear()
        found |= {"worlds": self._worlds, "load_after": environment.load(), "quiet": self._quiet.describe()}
        return Done(Document(found, self._board.rows()), self._board, self._notices, interrupted, self._incomplete)

    def _world(self, world: World, blocks: Sequence[B], progress: Progress) -> None:
        """All blocks of a world. What fails there is told and counted; the others go on."""
        progress.step(f"{world.snapshotter}: starting the lab ({world.root})")
        left = list(blocks)
        try:
            with self._opened(blocks) as stage:
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

    def _block(self, stage: Stage[B], block: B, progress: Progress) -> None:
        if self._enough():
            raise KeyboardInterrupt
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
            self._done(block)
        progress.end(block)

    def _failed(self, block: B, error: UnikeelError) -> None:
        """A block that could not be run is a failure, so that nobody takes the rest for everything."""
        self._incomplete = True
        self._notices.append(f"not run: {error}")
        self._board.series(Key(block.group, "block", "", snapshotter=block.world.snapshotter)).fail(str(error))


def host() -> dict[str, Json]:
    """The host's part of the environment; each world adds its own."""
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


def command(
    measure: Callable[[], Done],
    output: str,
    render: Callable[[Done], str],
    missed: Callable[[Sequence[Row]], bool],
) -> int:
    """Measure, write the file, print the report; the exit status.

    :param output: where the file goes; ``.interrupted`` is added where the run was. :param missed: whether these rows are reason for status 1.
    """
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        if os.geteuid() != 0:
            raise PermissionDenied("the lab mounts, makes namespaces and runs containerd", "run this as root")
        done = measure()
        output = output if not done.interrupted else f"{output}.interrupted"
        done.document.write(output)
    except UnikeelError as error:
        print(f"bench: {error}", file=sys.stderr)
        return mapping(error).exit
    except OSError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
    sys.stdout.write(render(done))
    print(f"\nwritten to {output}")
    if done.interrupted:
        print(f"bench: interrupted after {done.interrupted}: these are not all figures", file=sys.stderr)
        return _INTERRUPTED
    return 1 if done.incomplete or missed(done.document.rows) else 0


def _terminated(_number: int, _frame: object) -> None:
    """Being told to end takes the way of Ctrl-C, so that everything is taken away."""
    raise KeyboardInterrupt
