"""``kill -9`` of the command, of the keeper, and of both, at every recorded step: the next command cleans up or adopts, and says so.

The points are learned from a traced run. The short form takes a part of them, the long form (UNIKEEL_LONG=1) all, with every strategy.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

import unikeel
from engine_leftovers import Baseline
from engine_stages import (
    LONG,
    PATIENCE,
    STRATEGIES,
    Stage,
    keeper_pid,
    keeper_stopping_at,
    kill_and_wait,
    kill_command_at,
    options,
    points,
    type_end,
)

#: qemu.qmp leaves sockets of conversations that failed to the collector of garbage.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

_STATE = unikeel.ContainerState
_SHORT = ["cache"]
#: A whole life: made, run to its end by itself, started again, removed while it runs.
_LIFE = ("create=c", "ready=c", "wait=c", "remove=c")
#: What the short form kills at, of the command.
_PART = frozenset(
    {
        "create.recorded",
        "create.created",
        "start.recorded",
        "start.bundle",
        "start.launching",
        "start.launched",
        "start.pid-recorded",
        "start.running",
        "exit.sandbox-removed",
        "remove.recorded",
        "remove.sandbox",
    }
)
#: The least that must be among the points of a life; the lists themselves are learned from a run.
_KNOWN = _PART
_KEEPER_LAUNCH = (
    "keeper.main",
    "keeper.ready",
    "keeper.launch.begin",
    "keeper.launch.helper",
    "keeper.launch.spawned",
    "keeper.launch.created",
    "keeper.launch.answered",
    "keeper.spawn.begin",
    "keeper.spawn.started",
    "keeper.spawn.ended",
)
_KEEPER_EXIT = ("keeper.exit.seen", "keeper.exit.stored", "keeper.exit.told")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(str(tmp_path_factory.mktemp("kills")))


@pytest.fixture(scope="module")
def baseline(stage: Stage) -> Baseline:
    return stage.warm_up()


@pytest.fixture(autouse=True)
def nothing_is_left(stage: Stage) -> Iterator[None]:
    """Whatever a failed test leaves may not disturb the next one."""
    yield
    with stage.engine() as engine:
        for container in engine.containers(everything=True):
            container.remove(force=True)


def clean_up(stage: Stage, baseline: Baseline, what: str) -> list[str]:
    """Open the engine, which reconciles; then start what is there again, remove it, and see that nothing is left. The notices."""
    stage.notices.clear()
    with stage.engine() as engine:
        notices = list(stage.notices)
        for container in engine.containers(everything=True):
            stage.idents.append(container.id)
            assert container.state in (_STATE.CREATED, _STATE.EXITED, _STATE.RUNNING), what
            if container.refresh().state is _STATE.RUNNING:
                container.stop(0)
            container.start(ready="first-output", seconds=PATIENCE)
            container.remove(force=True)
    assert baseline.leftovers(stage.idents) == [], what
    with stage.engine() as engine:
        assert stage.notices == notices, what
        assert engine.containers(everything=True) == []
    return notices


@pytest.mark.parametrize("strategy", STRATEGIES if LONG else _SHORT)
def test_the_command_is_killed(stage: Stage, baseline: Baseline, strategy: str) -> None:
    life = (f"strategy={strategy}", "args=exit=0", *_LIFE)
    passed = [point for point in points(stage, *life) if not point.startswith("keeper")]
    assert set(passed) >= _KNOWN
    for point in passed:
        if not LONG and point not in _PART:
            continue
        kill_command_at(stage, point, *life)
        notices = clean_up(stage, baseline, point)
        silent = (
            "create.created",
            "start.running",
            "exit.recorded",
            "remove.done",
            "exit.begin",
            "exit.sandbox-removed",
        )
        assert notices or point in silent or point.startswith("clear."), point


@pytest.mark.parametrize("point", ["start.launching", "start.launched", "start.pid-recorded", "start.sandbox-started"])
@pytest.mark.parametrize("sandbox", ["0", "1"])
def test_without_a_sandbox_and_with(stage: Stage, baseline: Baseline, point: str, sandbox: str) -> None:
    kill_command_at(stage, point, f"sandbox={sandbox}", "create=c", "start=c")
    assert clean_up(stage, baseline, point)


@pytest.mark.parametrize("point", _KEEPER_LAUNCH)
@pytest.mark.parametrize("net", ["none", "user"] if LONG else ["user"])
def test_the_keeper_is_killed_during_a_start(stage: Stage, baseline: Baseline, point: str, net: str) -> None:
    """The command gets a clear error, or goes on with a new keeper; either way nothing is half done."""
    with keeper_stopping_at(stage, point) as (environment, stopped):
        child = stage.command(f"net={net}", "create=c", "ready=c", **environment)
        kill_and_wait(stopped(child))
        out, _ = child.communicate(timeout=PATIENCE)
    if child.returncode != 0:
        assert "error " in out
        assert "keeper" in out
    clean_up(stage, baseline, f"{point}: {out}")


@pytest.mark.parametrize("point", _KEEPER_LAUNCH if LONG else _KEEPER_LAUNCH[2::3])
def test_both_are_killed_during_a_start(stage: Stage, baseline: Baseline, point: str) -> None:
    with keeper_stopping_at(stage, point) as (environment, stopped):
        child = stage.command("net=user", "create=c", "ready=c", **environment)
        pid = stopped(child)
        child.kill()
        child.communicate()
        kill_and_wait(pid)
    assert clean_up(stage, baseline, point)


@pytest.mark.parametrize("point", _KEEPER_EXIT)
def test_the_keeper_is_killed_at_an_exit(stage: Stage, baseline: Baseline, point: str) -> None:
    """Whoever waits gets the exit code all the same."""
    with keeper_stopping_at(stage, point) as (environment, stopped):
        child = stage.command("args=echo,exit=7", "create=c", "ready=c", "say=waiting", "wait=c", **environment)
        assert child.stdout is not None
        stage.idents.append(child.stdout.readline().split()[1])
        assert child.stdout.readline() == "waiting\n"
        while not _waits(child.pid):
            assert child.poll() is None
            time.sleep(0.01)
        type_end(stage, "c")
        kill_and_wait(stopped(child))
        out, _ = child.communicate(timeout=PATIENCE)
    assert child.returncode == 0, out
    assert out.splitlines()[-1] == "exit 7"
    clean_up(stage, baseline, point)


@pytest.mark.parametrize("point", _KEEPER_EXIT)
def test_the_keeper_is_killed_at_the_exit_of_a_guest_that_was_quick(
    stage: Stage, baseline: Baseline, point: str
) -> None:
    """It ends before the start is done: the start is undone, if nobody knows how it ended."""
    with keeper_stopping_at(stage, point) as (environment, stopped):
        child = stage.command("args=exit=7", "create=c", "start=c", "wait=c", **environment)
        kill_and_wait(stopped(child))
        out, _ = child.communicate(timeout=PATIENCE)
    last = out.splitlines()[-1]
    assert last == "exit 7" or "keeper" in last, out
    clean_up(stage, baseline, point)


def _waits(pid: int) -> bool:
    """Whether a process holds a pidfd: it has begun to wait for a monitor's end."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            continue
    return "anon_inode:[pidfd]" in found


def test_the_keeper_is_killed_while_a_guest_runs(stage: Stage, baseline: Baseline) -> None:
    """The guest goes on; the next command adopts it: its console continues, and its exit code is known."""
    stage.notices.clear()
    with stage.engine() as engine:
        container = engine.create("hello", options(name="c", args=("echo", "exit=9"), network="user"))
        container.start(ready="first-output")
        pid = container.record.pid
    kill_and_wait(keeper_pid(stage))
    with stage.engine() as engine:
        assert stage.notices == ["adopted the running container c: its keeper had been killed"]
        container = engine.container(container.id)
        assert (container.state, container.record.pid) == (_STATE.RUNNING, pid)
        with engine.services.keeper.connect() as connection:
            _, fds = connection.call_with_fds({"op": "input", "id": container.id})
            os.write(fds[0], b"still there\n\x04")
            os.close(fds[0])
        assert container.wait(PATIENCE) == 9
        assert b"still there" in b"".join(container.logs())
    clean_up(stage, baseline, "running")


@pytest.mark.parametrize("waiting", ["wait", "follow"])
def test_the_keeper_is_killed_while_somebody_waits(stage: Stage, baseline: Baseline, waiting: str) -> None:
    with stage.engine() as engine:
        container = engine.create("hello", options(name="c"))
        container.start(ready="first-output")
        child = stage.command("say=waiting", f"{waiting}=c")
        assert child.stdout is not None
        assert child.stdout.readline() == "waiting\n"
        kill_and_wait(keeper_pid(stage))
        container.kill(signal.SIGTERM)
        out, _ = child.communicate(timeout=PATIENCE)
        assert child.returncode == 0, out
        if waiting == "wait":
            assert out.splitlines()[-1] == "exit 143"
        assert container.wait(PATIENCE) == 143
    clean_up(stage, baseline, waiting)


@pytest.mark.parametrize("point", ["keeper.adopt.begin", "keeper.adopt.done"])
def test_the_keeper_is_killed_while_it_adopts(stage: Stage, baseline: Baseline, point: str) -> None:
    with stage.engine() as engine:
        container = engine.create("hello", options(name="c"))
        container.start(ready="first-output")
    kill_and_wait(keeper_pid(stage))
    with keeper_stopping_at(stage, point) as (environment, stopped):
        child = stage.command("wait=c", **environment)
        kill_and_wait(stopped(child))
    with stage.engine() as engine:
        engine.container("c").kill(signal.SIGTERM)
    out, _ = child.communicate(timeout=PATIENCE)
    assert out.splitlines()[-1] == "exit 143", out
    clean_up(stage, baseline, point)


def test_the_guest_ends_while_there_is_no_keeper(stage: Stage, baseline: Baseline) -> None:
    stage.notices.clear()
    with stage.engine() as engine:
        container = engine.create("hello", options(name="c"))
        container.start(ready="first-output")
        pid = container.record.pid
    kill_and_wait(keeper_pid(stage))
    kill_and_wait(pid)
    with stage.engine() as engine:
        container = engine.container("c")
        # Known only if the next keeper came before init had waited for the dead process.
        code = container.wait(PATIENCE)
        assert container.state is _STATE.EXITED
        if code != 137:
            assert code == 255
            assert stage.notices == ["container c ended while no keeper was there: its exit status is unknown"]
    clean_up(stage, baseline, "no keeper")


def test_two_reconcile_at_once_and_one_is_killed(stage: Stage, baseline: Baseline) -> None:
    with open(os.path.join(stage.root, "run", "keeper.log"), encoding="utf-8") as file:
        logged = len(file.read().splitlines())
    kill_command_at(stage, "start.pid-recorded", "create=c", "start=c")
    kill_command_at(stage, "clear.killed", "open")
    first = stage.command("open", UNIKEEL_FAILPOINT="clear.deleted")
    _, status = os.waitpid(first.pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status):  # the keeper's command was quicker
        first.returncode = os.waitstatus_to_exitcode(status)
    others = [stage.command("open") for _ in range(2)]
    first.send_signal(signal.SIGKILL)
    first.communicate()
    lines = [line for other in others for line in other.communicate(timeout=PATIENCE)[0].splitlines()]
    assert [other.returncode for other in others] == [0, 0], lines
    with open(os.path.join(stage.root, "run", "keeper.log"), encoding="utf-8") as file:
        lines += file.read().splitlines()[logged:]  # the keeper has had the end of the monitor looked at, too
    told = [line for line in lines if "undid the start of container c" in line]
    assert len(told) == 1, lines
    clean_up(stage, baseline, "reconciling")


def test_a_living_command_is_left_alone(stage: Stage, baseline: Baseline) -> None:
    for point in ("create.snapshot", "start.bundle", "start.pid-recorded", "remove.recorded"):
        life = ("args=exit=0", *_LIFE)
        child = stage.command(*life, UNIKEEL_FAILPOINT=point)
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        stage.notices.clear()
        with stage.engine() as engine:
            assert stage.notices == []
            assert len(engine.containers(everything=True)) == 1
        child.send_signal(signal.SIGCONT)
        _, status = os.waitpid(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        out, _ = child.communicate()
        assert child.returncode == 0, out
        stage.idents += [line.removeprefix("id ") for line in out.splitlines() if line.startswith("id ")]
    clean_up(stage, baseline, "living")
