"""The keeper's children: those it starts, each with an end in time, and those that ``crun create`` leaves behind to it.

A started process carries ``UNIKEEL_CONTAINER=ID`` in its environment, so that it can be found should the keeper be killed before anybody knows its
pid. A pid in here is never a stranger's: it belongs to a child that has not been waited for.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence

from unikeel.keeper.loop import say
from unikeel.keeper.sealed import SealedPrograms

#: In the environment of whatever is started for a container.
MARK = "UNIKEEL_CONTAINER"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MAX_ORPHANS = 256

Done = Callable[[int], None]
#: As :func:`os.posix_spawn` takes them.
Action = tuple[int, int, int] | tuple[int, int, str, int, int]


class _Child:
    """What is to be done with its wait status, and when it is killed for taking too long (0: never)."""

    __slots__ = ("deadline", "done")

    def __init__(self, done: Done, deadline: float) -> None:
        self.done = done
        self.deadline = deadline


class Children:
    """All children of the keeper."""

    def __init__(self) -> None:
        self._known: dict[int, _Child] = {}
        self._orphans: dict[int, int] = {}
        self._expected = 0
        self._programs = SealedPrograms()

    def __len__(self) -> int:
        return len(self._known)

    def start(
        self,
        argv: Sequence[str],
        fds: Sequence[int],
        output: int,
        done: Done,
        *,
        seconds: float = 0.0,
        mark: str = "",
        environment: Mapping[str, str] | None = None,
        streams: Sequence[int] = (),
    ) -> int:
        """Start a process: descriptors 3, 4, … as given, stdout and stderr to ``output``, nothing else open; its pid.

        :param seconds: it is killed after so long; 0: never. :param mark: the container that it is for.
        :param environment: its environment, instead of just the usual PATH. :param streams: its stdin and stdout, instead of nothing and ``output``.
        :raise OSError: it cannot be started.
        """
        actions: list[Action] = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
        # Numbers are first moved out of the way of 3, 4, …; the copies are close-on-exec like the originals.
        high: list[int] = []
        try:
            for fd in (output, *fds, *streams):
                high.append(_above(fd, 64))  # noqa: PERF401 - what was made is closed when the next one fails
            actions += [(os.POSIX_SPAWN_DUP2, high[0], 1), (os.POSIX_SPAWN_DUP2, high[0], 2)]
            actions += [(os.POSIX_SPAWN_DUP2, fd, 3 + index) for index, fd in enumerate(high[1 : 1 + len(fds)])]
            actions += [(os.POSIX_SPAWN_DUP2, fd, index) for index, fd in enumerate(high[1 + len(fds) :])]
            variables = {
                **(environment if environment is not None else {"PATH": _PATH}),
                **({MARK: mark} if mark else {}),
            }
            pid = self._spawn(argv, variables, actions)
        finally:
            for fd in high:
                os.close(fd)
        self._known[pid] = _Child(done, time.monotonic() + seconds if seconds else 0.0)
        return pid

    def _spawn(self, argv: Sequence[str], environment: Mapping[str, str], actions: Sequence[Action]) -> int:
        program = self._programs.executable(argv[0])
        try:
            return _spawned(program, argv, environment, actions)
        except OSError:
            if program == argv[0]:
                raise
            # A policy of the host forbids to execute what is in memory.
            return _spawned(argv[0], argv, environment, actions)

    def expect(self) -> None:
        """From now on keep the statuses of unknown children, until as many calls of :meth:`expected`."""
        self._expected += 1

    def expected(self) -> None:
        """One expectation less; with the last one the statuses go, so that a later process with such a pid is not taken for it."""
        self._expected -= 1
        if not self._expected:
            self._orphans.clear()

    def claim(self, pid: int, done: Done) -> None:
        """A process that became our child, while one was expected: tell its end, which may be past already."""
        status = self._orphans.pop(pid, None)
        if status is None:
            self._known[pid] = _Child(done, 0.0)
        else:
            done(status)

    def reap(self) -> None:
        """Take note of all that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._known.pop(pid, None)
            if child is not None:
                child.done(status)
            elif self._expected:
                if len(self._orphans) >= _MAX_ORPHANS:
                    self._orphans.pop(next(iter(self._orphans)))
                self._orphans[pid] = status

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        """Kill a child (or send it another signal), if it is one that has not ended."""
        if pid in self._known:
            os.kill(pid, number)

    def due(self) -> float | None:
        """When the next child has used up its time, on the monotonic clock."""
        return min((child.deadline for child in self._known.values() if child.deadline), default=None)

    def tick(self, now: float) -> None:
        """Kill those whose time is up."""
        for pid, child in self._known.items():
            if child.deadline and now >= child.deadline:
                say(f"process {pid} took too long and is killed")
                child.deadline = 0.0
                os.kill(pid, signal.SIGKILL)


def _spawned(program: str, argv: Sequence[str], environment: Mapping[str, str], actions: Sequence[Action]) -> int:
    return os.posix_spawn(
        program,
        list(argv),
        environment,
        file_actions=actions,
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE],
    )


def _above(fd: int, lowest: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
