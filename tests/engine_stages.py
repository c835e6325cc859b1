"""Stages for the engine's tests: a state root with the sample ``hello``, commands in processes of their own, and killing them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import unikeel
from engine_leftovers import Baseline

SAMPLES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "build", "samples")
STRATEGIES = ("cache", "shared-view", "view", "copy")
LONG = os.environ.get("UNIKEEL_LONG") == "1"
#: How long anything may take here, in seconds: the machine may be busy, and everything is emulated.
PATIENCE = 60
_TRIES = 3
_CHILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "engine_child.py")

CONFIG = """\
[keeper]
idle = {idle}
view_idle = 0.3
[start]
timeout = 100
"""


def sample(name: str) -> str:
    """The path of a sample image; without it the test is skipped."""
    path = os.path.join(SAMPLES, f"{name}.tar")
    if not os.path.exists(path):
        pytest.skip(f"{path} is missing: run `make samples`")
    return path


class Stage:
    """A state root of a test."""

    def __init__(self, directory: str, *, config: str = "", idle: float = 0.3) -> None:
        self.directory = directory
        self.root = os.path.join(directory, "root")
        self.config = os.path.join(directory, "config.toml")
        self.notices: list[str] = []
        self.idents: list[str] = []
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(CONFIG.format(idle=idle) + config)
        with self.engine() as engine:
            engine.load(sample("hello"), name="hello")

    def engine(self) -> unikeel.Engine:
        """An engine in this process."""
        return unikeel.Engine(self.root, config=self.config, notice=self.notices.append)

    def warm_up(self, *strategies: str) -> Baseline:
        """Run one container with each strategy, so that what stays for good is there; then how things are."""
        with self.engine() as engine:
            for strategy in strategies or STRATEGIES:
                container = engine.create("hello", options(boot_files=strategy, args=("exit=0",)))
                container.start()
                container.wait()
                container.remove()
        self.notices.clear()
        return Baseline(self.root)

    def command(self, *steps: str, **environment: str) -> subprocess.Popen[str]:
        """A command in a process of its own; see ``engine_child.py``."""
        variables = {"PATH": os.environ["PATH"], "UNIKEEL_CONFIG": self.config, **environment}
        return subprocess.Popen(
            [sys.executable, _CHILD, self.root, *steps],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=variables,
        )

    def run(self, *steps: str, status: int = 0, **environment: str) -> list[str]:
        """Run a command to its end; its lines."""
        child = self.command(*steps, **environment)
        out, _ = child.communicate("\n" * 8, timeout=PATIENCE)
        assert child.returncode == status, out
        lines = out.splitlines()
        self.idents += [line.removeprefix("id ") for line in lines if line.startswith("id ")]
        return lines

    def all_idents(self) -> list[str]:
        """The ids of all containers that are recorded, and of those that were."""
        with self.engine() as engine:
            return [*self.idents, *(container.id for container in engine.containers(everything=True))]


def options(**changes: object) -> unikeel.Options:
    """Options for a ``hello`` that halts for ever, without a network."""
    values: dict[str, object] = {"args": ("wait",), "network": "none", **changes}
    return unikeel.Options(**values)  # type: ignore[arg-type]  # the callers' names and types are those of Options


# -- fail points ---------------------------------------------------------------------------------------------------------


def points(stage: Stage, *steps: str) -> list[str]:
    """The fail points that a command and its keeper pass, each once, in order."""
    trace = os.path.join(stage.directory, "trace")
    if os.path.exists(trace):
        os.unlink(trace)
    stage.run(*steps, UNIKEEL_FAILPOINT_TRACE=trace)
    with open(trace, encoding="utf-8") as file:
        return list(dict.fromkeys(file.read().split()))


def kill_command_at(stage: Stage, point: str, *steps: str) -> list[str]:
    """Run a command until it stops at a point; kill it there. Its lines so far.

    On a busy machine, the command that the keeper runs after a guest's end may be quicker to deal with that; then it is tried again.
    """
    said = ""
    for _ in range(_TRIES if point.startswith("exit.") else 1):
        child = stage.command(*steps, UNIKEEL_FAILPOINT=point)
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            break
        said, _ = child.communicate(timeout=PATIENCE)
        stage.idents += [line.removeprefix("id ") for line in said.splitlines() if line.startswith("id ")]
    assert os.WIFSTOPPED(status), f"{point} was not reached: {said}"
    child.send_signal(signal.SIGKILL)
    out, _ = child.communicate(timeout=PATIENCE)
    stage.idents += [line.removeprefix("id ") for line in out.splitlines() if line.startswith("id ")]
    return out.splitlines()


@contextmanager
def keeper_stopping_at(
    stage: Stage, point: str
) -> Iterator[tuple[dict[str, str], Callable[[subprocess.Popen[str]], int]]]:
    """The environment with which a keeper stops at a point, and a function that waits for that and tells its pid."""
    fifo = os.path.join(stage.directory, "stopped")
    if os.path.exists(fifo):
        os.unlink(fifo)
    os.mkfifo(fifo)
    fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def stopped(child: subprocess.Popen[str]) -> int:
        ended = os.pidfd_open(child.pid)
        try:
            ready = select.select([fd, ended], [], [], PATIENCE)[0]
        finally:
            os.close(ended)
        if fd not in ready:
            child.kill()
            raise AssertionError(f"the keeper did not reach {point}: {child.communicate()[0]}")
        name, pid = os.read(fd, 4096).decode().split()
        assert name == point
        os.unlink(fifo)
        return int(pid)

    try:
        yield {"UNIKEEL_FAILPOINT": point, "UNIKEEL_FAILPOINT_FILE": fifo}, stopped
    finally:
        if os.path.exists(fifo):
            os.unlink(fifo)
        os.close(fd)


def keeper_pid(stage: Stage) -> int:
    """The pid of the keeper that lives."""
    with stage.engine() as engine:
        pid = engine.services.keeper.ask({"op": "hello"})["pid"]
    assert isinstance(pid, int)
    return pid


def kill_and_wait(pid: int) -> None:
    """Kill a process that is not our child, and wait until it is gone."""
    fd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        assert select.select([fd], [], [], PATIENCE)[0]
    finally:
        os.close(fd)


def type_end(stage: Stage, name: str) -> None:
    """End a ``hello`` that echoes, by the end of its input."""
    with stage.engine() as engine, engine.services.keeper.connect() as connection:
        _, fds = connection.call_with_fds({"op": "input", "id": engine.container(name).id})
        os.write(fds[0], b"\x04")
        os.close(fds[0])
