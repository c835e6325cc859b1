"""Killing the daemon at a named point of its work (:mod:`unikeel.records.failpoint`), and letting the next one go on from there."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from lab_support.processes import Process, kill_and_wait
from lab_support.waiting import PATIENCE, until
from lab_support.world import World

_TRACE: Final = "/var/log/failpoints"
#: A fifo: who reaches a point writes there, and a keeper stops only as long as it is there.
_REACHED: Final = "/var/log/failpoint-reached"


class Background:
    """Some work in a thread: its result, or the error that it ended with."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - it is raised where the work is joined
            self._error = error

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._thread.is_alive()

    def join(self, patience: float = PATIENCE) -> None:
        """Wait for its end, and raise what it raised."""
        self._thread.join(patience)
        assert not self.runs, f"what should go on stands still, {patience} s later"
        if self._error is not None:
            raise self._error


def points(world: World, life: Callable[[], object]) -> list[str]:
    """The points that daemon and keeper pass in a life, each once, in order."""
    restarted(world, UNIKEEL_FAILPOINT_TRACE=_TRACE)
    host = world.lab.path(_TRACE)
    before = len(_lines(host))
    life()
    return list(dict.fromkeys(_lines(host)[before:]))


def _lines(path: str) -> list[str]:
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return file.read().split()


def restarted(world: World, **environment: str) -> None:
    """Keeper and daemon anew, with other variables in their environment."""
    world.stop_everything_of_ours()
    world.start_daemon(**environment)


@contextmanager
def dying_at(world: World, point: str, *, daemons: int = 1) -> Iterator[Callable[[Background], int]]:
    """A daemon (or keeper) that stops at a point, and is killed there. Gives a function that does the killing while some work goes on: how often it was done.

    The keeper starts the next daemon without the variable, so that it goes on; so many ``daemons`` have it.
    """
    fifo = world.lab.path(_REACHED)
    with contextlib.suppress(FileExistsError):
        os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    restarted(
        world,
        UNIKEEL_FAILPOINT=point,
        UNIKEEL_FAILPOINT_FILE=_REACHED,
        UNIKEEL_FAILPOINT_DAEMONS=str(daemons),
    )

    def kill_during(work: Background) -> int:
        killed = 0

        def step() -> bool:
            nonlocal killed
            for process in stopped(world):
                kill_and_wait(process.pid)
                killed += 1
            return not work.runs

        until(step, f"what was interrupted at {point} goes on", pause=0.05)
        return killed

    try:
        yield kill_during
    finally:
        os.unlink(fifo)
        os.close(reader)
        restarted(world)


def stopped(world: World) -> list[Process]:
    """Daemon and keeper, as far as they have stopped themselves."""
    return [process for process in (*world.daemons(), *world.keepers()) if process.state == "T"]
