"""Ordinary containers under our runtime's name are exactly what they are under containerd's own."""

from __future__ import annotations

import pytest

from lab_support.stage import Setting, nothing_left, settings
from lab_support.terminal import run_at_terminal
from lab_support.waiting import PATIENCE, until
from lab_support.world import BUSYBOX, ROOTS, RUNTIME

__all__ = ["nothing_left"]
setting = settings(ROOTS)
_RUNC = "io.containerd.runc.v2"


def words(setting: Setting, runtime: str, ident: str, *args: str, flags: tuple[str, ...] = ()) -> list[str]:
    """``ctr run`` of a busybox."""
    return ["run", "--runtime", runtime, "--snapshotter", setting.snapshotter, *flags, BUSYBOX, ident, *args]


@pytest.mark.parametrize(
    "script", ["echo out; echo err >&2; exit 7", "kill -9 $$", "read line; echo got $line; exit 3"]
)
def test_the_same_outcome(setting: Setting, script: str) -> None:
    """Exit code, output, events: as with runc's own shim."""
    outcomes = []
    with setting.world.events() as events:
        for runtime in (_RUNC, RUNTIME):
            ident = setting.new()
            line = words(setting, runtime, ident, "sh", "-c", script, flags=("--rm",))
            done = setting.world.lab.ctr(*line, input="typed\n", check=False)
            # The runc shim of containerd 2.1 ends sometimes before it has told the last event.
            topics = events.await_topic(ident, "exit")
            outcomes.append((done.returncode, done.stdout, done.stderr, topics[:3]))
    assert outcomes[0] == outcomes[1]


def test_the_whole_of_its_life(setting: Setting) -> None:
    world, ident = setting.world, setting.new()
    world.ctr(
        *words(
            setting,
            RUNTIME,
            ident,
            "sh",
            "-c",
            "trap 'exit 9' TERM; while :; do sleep 0.1; done",
            flags=("-d", "--null-io"),
        )
    )
    assert world.status(ident) == "RUNNING"
    for word in ("one", "two"):
        assert world.ctr("tasks", "exec", "--exec-id", word, ident, "echo", word).stdout == f"{word}\n"
    assert world.ctr("tasks", "exec", "--exec-id", "three", ident, "sh", "-c", "exit 5", check=False).returncode == 5
    world.ctr("tasks", "pause", ident)
    assert world.status(ident) == "PAUSED"
    world.ctr("tasks", "resume", ident)
    world.update(ident, memory={"limit": 64 << 20})
    assert world.memory_limit(ident) == 64 << 20
    assert len(world.ctr("tasks", "ps", ident).stdout.splitlines()) >= 2
    assert "memory" in world.ctr("tasks", "metrics", ident).stdout
    world.ctr("tasks", "kill", ident)
    ended = world.api(lambda containerd: containerd.tasks.wait(ident, timeout=PATIENCE))
    assert ended.status == 9
    assert world.delete(ident) == 9
    world.ctr("containers", "rm", ident)


def test_a_terminal_is_resized(setting: Setting) -> None:
    world, ident = setting.world, setting.new()
    run_at_terminal(world, words(setting, RUNTIME, ident, "sleep", "1000", flags=("-d", "-t")))
    world.api(lambda containerd: containerd.tasks.resize(ident, 101, 37))
    # The terminal is the container's own console: another process there sees its size.
    until(
        lambda: (
            "37 101"
            in world.ctr(
                "tasks", "exec", "--exec-id", setting.new("x"), ident, "sh", "-c", "stty size < /proc/1/fd/0"
            ).stdout
        ),
        "its size",
    )
    world.remove(ident)


def test_it_is_none_of_our_business(setting: Setting) -> None:
    """No monitor, no directory of ours, and it lives without our daemon."""
    world, ident = setting.world, setting.new()
    before = world.monitors()
    world.ctr(*words(setting, RUNTIME, ident, "sleep", "1000", flags=("-d", "--null-io")))
    assert world.monitors() == before
    assert ident not in world.unikeel("ps").stdout
    world.kill_daemon()
    assert world.ctr("tasks", "exec", "--exec-id", "e", ident, "echo", "here").stdout == "here\n"
    world.remove(ident)
