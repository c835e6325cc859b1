"""A task's life by ``ctr``: what ends how, what is told about it, and what stays (nothing)."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from lab_support import oom
from lab_support.stage import Setting, nothing_left, settings
from lab_support.waiting import PATIENCE, until
from lab_support.world import ANNOTATED, BROKEN, COMBINATIONS, DISK, HELLO, LABELLED, MONITOR

__all__ = ["nothing_left"]
setting = settings(COMBINATIONS)


@pytest.mark.parametrize("code", [0, 1, 42, 127])
def test_the_exit_code_is_the_guest_s(setting: Setting, code: int) -> None:
    ident = setting.new()
    done = setting.run(ident, f"exit={code}", check=False, flags=["--rm"])
    assert done.returncode == code, done.stderr
    assert "hello from a unikernel" in done.stdout
    assert f"command line: exit={code}" in done.stdout


def test_without_arguments_the_image_s_command_is_run(setting: Setting) -> None:
    done = setting.run(setting.new(), flags=["--rm"])
    assert "command line: exit=0" in done.stdout


@pytest.mark.parametrize("image", [HELLO, LABELLED, ANNOTATED])
def test_wherever_the_image_says_what_it_is(setting: Setting, image: str) -> None:
    assert setting.run(setting.new(), "exit=5", image=image, check=False, flags=["--rm"]).returncode == 5


def test_a_life_that_lasts(setting: Setting) -> None:
    world, ident = setting.world, setting.new()
    with world.events() as events:
        setting.detached(ident, "wait")
        world.await_output(ident, "command line: wait")
        pid, status = world.tasks()[ident]
        assert status == "RUNNING"
        assert world.host_pid(pid) in [monitor.pid for monitor in world.monitors()]
        assert str(pid) in world.ctr("tasks", "ps", ident).stdout.split()
        world.ctr("tasks", "kill", "-s", "SIGKILL", ident)
        world.await_status(ident, "STOPPED")
        assert world.delete(ident) == 128 + signal.SIGKILL
        world.ctr("containers", "rm", ident)
        assert events.await_topic(ident, "delete") == ["create", "start", "exit", "delete"]
        create, start, end, delete = events.of(ident)
        assert {create.body["pid"], start.body["pid"], end.body["pid"], delete.body["pid"]} == {pid}
        assert end.body["exit_status"] == delete.body["exit_status"] == 128 + signal.SIGKILL
        assert end.body["id"] == ident


def test_a_guest_that_ends_at_once_is_told_in_order(setting: Setting) -> None:
    world, ident = setting.world, setting.new()
    with world.events() as events:
        assert setting.run(ident, "exit=9", check=False, flags=["--rm"]).returncode == 9
        assert events.await_topic(ident, "delete") == ["create", "start", "exit", "delete"]
        assert events.of(ident)[2].body["exit_status"] == 9


def test_waiting_for_a_task(setting: Setting) -> None:
    """A client that waits gets the exit code; ``ctr tasks wait`` is not in every ctr, the interface is."""
    world, ident = setting.world, setting.new()
    setting.detached(ident, "wait")
    world.ctr("tasks", "kill", "-s", "SIGTERM", ident)
    ended = world.api(lambda containerd: containerd.tasks.wait(ident, timeout=PATIENCE))
    assert ended.status == 128 + signal.SIGTERM
    again = world.api(lambda containerd: containerd.tasks.wait(ident, timeout=PATIENCE))
    assert again == ended
    world.remove(ident)


def test_pausing(setting: Setting) -> None:
    world, ident = setting.world, setting.new()
    with world.events() as events:
        setting.detached(ident, "wait")
        for _ in range(2):
            world.ctr("tasks", "pause", ident)
            assert world.status(ident) == "PAUSED"
            world.ctr("tasks", "resume", ident)
            assert world.status(ident) == "RUNNING"
        world.ctr("tasks", "pause", ident)
        world.remove(ident)  # a frozen one can be killed
        assert events.await_topic(ident, "delete") == [
            "create",
            "start",
            *["paused", "resumed"] * 2,
            "paused",
            "exit",
            "delete",
        ]


def test_metrics(setting: Setting) -> None:
    world, ident = setting.world, setting.new()
    setting.detached(ident, "wait")
    world.await_output(ident, "command line")
    metrics = world.ctr("tasks", "metrics", "--format", "json", ident).stdout
    assert "memory" in metrics.lower(), metrics
    usage = json.loads(metrics)
    memory = usage["memory"]
    used = memory.get("usage", 0)
    assert (used if isinstance(used, int) else int(used["usage"])) > 1 << 20, metrics
    world.remove(ident)


@pytest.mark.parametrize("words", [("exec", "--exec-id", "e", "{}", "sh"), ("checkpoint", "{}")])
def test_what_a_guest_cannot_do_is_a_sentence(setting: Setting, words: tuple[str, ...]) -> None:
    world, ident = setting.world, setting.new()
    setting.detached(ident, "wait")
    done = world.ctr("tasks", *(word.format(ident) for word in words), check=False)
    assert done.returncode != 0
    assert ident in done.stderr, done.stderr
    assert "traceback" not in done.stderr.lower()
    assert "guest" in done.stderr or "unikeel" in done.stderr, done.stderr
    assert world.status(ident) == "RUNNING"
    world.remove(ident)


def test_updating_changes_the_cgroup(setting: Setting) -> None:
    world, ident = setting.world, setting.new()
    setting.detached(ident, "wait", flags=["--memory-limit", str(1 << 30)])
    assert world.memory_limit(ident) == (1 << 30) + MONITOR
    world.update(ident, memory={"limit": 900 << 20})
    until(lambda: world.memory_limit(ident) == (900 << 20) + MONITOR, "the limit is the new one")
    world.remove(ident)


def test_a_guest_that_its_limit_kills(setting: Setting, tmp_path: Path) -> None:
    """containerd is told of the limit before it is told of the end, whichever version of cgroups the host has."""
    setting.world.import_archive(oom.write(str(tmp_path / "glutton.tar")), setting.snapshotter)
    oom.die(setting.world.lab, setting.snapshotter, setting.new())


def test_a_name_twice(setting: Setting) -> None:
    world, ident = setting.world, setting.new()
    setting.detached(ident, "wait")
    done = setting.detached(ident, "wait", check=False)
    assert done.returncode != 0
    assert "already exists" in done.stderr
    assert world.status(ident) == "RUNNING"
    world.remove(ident)


def test_a_task_that_runs_cannot_be_deleted(setting: Setting) -> None:
    world, ident = setting.world, setting.new()
    setting.detached(ident, "wait")
    assert world.ctr("tasks", "delete", ident, check=False).returncode != 0
    assert world.status(ident) == "RUNNING"
    world.ctr("tasks", "delete", "--force", ident, check=False)
    world.remove(ident)


def test_a_container_is_started_again(setting: Setting) -> None:
    """A new task of the same container boots the same files again."""
    world, ident = setting.world, setting.new()
    assert setting.run(ident, "exit=3", check=False).returncode == 3
    for _ in range(2):
        assert world.ctr("tasks", "start", ident, check=False).returncode == 3
    world.remove(ident)


def test_two_namespaces_have_the_same_name(setting: Setting) -> None:
    world, ident, other = setting.world, setting.new(), "second"
    world.provide(setting.snapshotter, other)
    setting.detached(ident, "wait")
    done = world.ctr(
        *world.run_words(ident, "exit=6", snapshotter=setting.snapshotter, flags=["--rm"]), namespace=other, check=False
    )
    assert done.returncode == 6, done.stderr
    assert world.status(ident) == "RUNNING"
    world.remove(ident)


def test_the_guest_has_a_disk(setting: Setting) -> None:
    """The container's snapshot, where that is a device or a file; elsewhere one that was made from its parent."""
    world, ident = setting.world, setting.new()
    setting.detached(ident, "wait", image=DISK)
    assert "disk: virtio" in world.await_output(ident, ", ext4")
    disk = next(line for line in world.unikeel("timeline", ident).stdout.splitlines() if line.startswith("disk "))
    assert ("made=yes" in disk) != setting.combination.has_disks, disk
    world.remove(ident)


def test_a_kernel_that_is_none(setting: Setting) -> None:
    """The monitor ends before the guest ran: the start says so in a sentence, and nothing stays."""
    ident = setting.new()
    done = setting.run(ident, "exit=0", image=BROKEN, check=False)
    assert done.returncode != 0
    assert "traceback" not in done.stderr.lower()
    assert "kernel" in done.stderr, done.stderr
    setting.world.remove(ident)


def test_our_commands_know_tasks(setting: Setting) -> None:
    world, ident = setting.world, setting.new()
    setting.detached(ident, "wait")
    world.await_output(ident, "command line")
    assert ident in world.unikeel("ps").stdout
    timeline = world.unikeel("timeline", ident).stdout
    assert "identify" in timeline, timeline
    assert "boot-files" in timeline, timeline
    listed = world.unikeel("boot", "ls").stdout
    assert setting.snapshotter in listed, listed
    world.remove(ident)
    assert ident not in world.unikeel("ps").stdout
