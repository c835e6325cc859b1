"""``kill -9`` of the daemon while guests run: containerd sees nothing of it, and nothing is lost."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess

import pytest

from lab_support.dying import restarted
from lab_support.processes import kill_and_wait
from lab_support.stage import Setting, nothing_left, settings
from lab_support.terminal import Terminal
from lab_support.waiting import PATIENCE, until
from lab_support.world import LONG, ROOTS, World
from unikeel.containerd.records import STOPPED

__all__ = ["nothing_left"]
setting = settings(ROOTS)
_EOT = b"\x04"


@pytest.fixture(autouse=True)
def fresh(setting: Setting) -> None:
    """A keeper that has seen no daemon die: its pause before it starts one grows with each death."""
    restarted(setting.world)


def statuses(world: World) -> dict[str, tuple[str, int]]:
    """Status and process of every task, as a client asks."""
    found = world.api(lambda containerd: containerd.tasks.list(timeout=PATIENCE))
    return {task.id: (task.status, task.pid) for task in found}


def test_many_run_one_ends_and_one_has_a_terminal(setting: Setting) -> None:
    world = setting.world
    many = [setting.new("many") for _ in range(20 if LONG else 6)]
    ending, typing = setting.new("ending"), setting.new("typing")
    for ident in many:
        setting.detached(ident, "wait")
    with world.events() as events:
        words = ["ctr", *world.run_words(ending, "echo exit=9", snapshotter=setting.snapshotter)]
        ends = world.lab.popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        terminal = Terminal(
            world, ["ctr", *world.run_words(typing, "echo exit=8", snapshotter=setting.snapshotter, flags=["-t"])]
        )
        terminal.expect(b"command line: echo exit=8")
        until(lambda: world.status(ending) == "RUNNING", f"{ending} runs")
        before = statuses(world)
        monitor = world.host_pid(before[ending][1])
        assert ends.stdin is not None
        with world.halted_daemon() as daemon:
            ends.stdin.write(b"last words\n" + _EOT)
            ends.stdin.flush()
            terminal.type(b"nobody is there\r")
            terminal.expect(b"nobody is there")
            until(lambda: not os.path.exists(f"/proc/{monitor}/exe"), "the guest has ended")
            kill_and_wait(daemon.pid)
        wanted = before | {ending: (STOPPED, before[ending][1])}
        until(lambda: statuses(world) == wanted or ends.poll() is not None, "all are managed again")
        assert ends.wait(PATIENCE) == 9
        assert ends.stdout is not None
        assert b"last words" in ends.stdout.read()
        assert {statuses(world)[ident] for ident in many} == {before[ident] for ident in many}
        terminal.type(b"somebody is\r")
        terminal.expect(b"somebody is")
        terminal.type(_EOT)
        assert terminal.process.wait(PATIENCE) == 8
        terminal.close()
        ends.stdin.close()
        ends.stdout.close()
        for ident in (ending, typing):
            assert _folded(events.await_topic(ident, "delete")) == ["create", "start", "exit", "delete"]
        for ident in many:
            assert events.topics(ident) in ([], ["start"])
        world.remove_all([*many, ending, typing])
        for ident in many:
            assert events.await_topic(ident, "delete")[-2:] == ["exit", "delete"]


def _folded(topics: list[str]) -> list[str]:
    """Without immediate repetitions: what was told in the last moment before the daemon was killed is told again, since nobody knows that it arrived."""
    return [topic for topic, _ in itertools.groupby(topics)]


def test_no_output_is_lost(setting: Setting) -> None:
    """A guest that talks all the time while one daemon after the other is killed."""
    world, ident = setting.world, setting.new()
    words = ["ctr", *world.run_words(ident, "echo exit=0", snapshotter=setting.snapshotter, flags=["--rm"])]
    lines = [f"line {number:05}" for number in range(3000)]
    target = world.lab.path(f"/var/log/tests-{ident}.out")
    with open(target, "wb") as out, world.lab.popen(words, stdin=subprocess.PIPE, stdout=out, stderr=out) as process:
        assert process.stdin is not None
        for number, line in enumerate(lines):
            process.stdin.write(f"{line}\n".encode())
            process.stdin.flush()
            if number % 1000 == 500:
                until(lambda: world.status(ident) == "RUNNING", f"{ident} runs")
                world.kill_daemon()
        process.stdin.write(_EOT)
        process.stdin.flush()
        assert process.wait(PATIENCE) == 0
    with open(target, encoding="utf-8") as file:
        assert [line.rstrip("\r\n") for line in file if line.startswith("line ")] == lines


def test_a_daemon_that_dies_again_and_again(setting: Setting) -> None:
    """The keeper starts one each time, and what is running goes on."""
    world, ident = setting.world, setting.new()
    setting.detached(ident, "wait")
    for _ in range(5):
        world.kill_daemon()
    world.await_status(ident, "RUNNING", 30)
    assert setting.run(setting.new(), "exit=3", check=False, flags=["--rm"]).returncode == 3
    world.remove(ident)


def test_starts_while_there_is_no_daemon(setting: Setting) -> None:
    """A start that arrives while the daemon is away waits for the next one."""
    world, ident = setting.world, setting.new()
    words = ["ctr", *world.run_words(ident, "exit=4", snapshotter=setting.snapshotter, flags=["--rm"])]
    pipe = subprocess.PIPE
    with (
        world.halted_daemon() as daemon,
        world.lab.popen(words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as process,
    ):
        until(lambda: world.ctr("containers", "info", ident, check=False).returncode == 0, "the container is there")
        kill_and_wait(daemon.pid)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 4, errors


def test_kills_and_deletes_while_there_is_no_daemon(setting: Setting) -> None:
    world, ident = setting.world, setting.new()
    setting.detached(ident, "wait")
    words = ["ctr", "tasks", "rm", "--force", ident]
    pipe = subprocess.PIPE
    with (
        world.halted_daemon() as daemon,
        world.lab.popen(words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as process,
    ):
        until(lambda: world.programs("ctr", ident), "somebody asks for its end")
        kill_and_wait(daemon.pid)
        _, errors = process.communicate(timeout=PATIENCE)
    assert world.status(ident) == "", errors
    world.remove(ident)


def test_the_monitor_hangs(setting: Setting) -> None:
    """State answers, and kill -9 ends it."""
    world, ident = setting.world, setting.new()
    setting.detached(ident, "wait")
    monitor = world.monitor_of(ident)
    os.kill(monitor, signal.SIGSTOP)
    assert world.status(ident) == "RUNNING"
    world.ctr("tasks", "kill", "-s", "KILL", ident)
    world.await_status(ident, "STOPPED")
    assert world.delete(ident) == 137
    world.remove(ident)


def test_the_monitor_is_killed_by_somebody(setting: Setting) -> None:
    world, ident = setting.world, setting.new()
    with world.events() as events:
        setting.detached(ident, "wait")
        kill_and_wait(world.monitor_of(ident))
        events.await_topic(ident, "exit")
        assert events.of(ident)[2].body["exit_status"] == 137
    world.remove(ident)


def test_the_keeper_dies(setting: Setting) -> None:
    """Without systemd containerd takes that for the end of all tasks: they are cleaned up, and the next start works."""
    world, ident = setting.world, setting.new()
    with world.events() as events:
        setting.detached(ident, "wait")
        (keeper,) = world.keepers()
        kill_and_wait(keeper.pid)
        assert events.await_topic(ident, "delete") == ["create", "start", "exit", "delete"]
    until(lambda: not world.monitors(), "its guest is ended")
    world.remove(ident)
    assert setting.run(setting.new(), "exit=3", check=False, flags=["--rm"]).returncode == 3
