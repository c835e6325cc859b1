"""The classic workflow in Python: the example in docs/ does in the lab what it says, with each snapshotter."""

from __future__ import annotations

from lab_support.stage import Setting, nothing_left, settings
from lab_support.world import COMBINATIONS

__all__ = ["nothing_left"]
setting = settings(COMBINATIONS)


def test_the_example_runs_and_leaves_nothing(setting: Setting) -> None:
    lab, world = setting.world.lab, setting.world
    before = world.api(lambda containerd: containerd.snapshots(setting.snapshotter).list())
    leases = world.api(lambda containerd: containerd.leases.list())
    arguments = [world.archive_of_hello(), "exit=3", "--snapshotter", setting.snapshotter]
    words = ["/opt/unikeel/bin/python", "/unikeel/docs/containerd_example.py", *arguments]
    done = lab.run(words, check=False)
    assert done.returncode == 3, done.stderr
    assert "hello from a unikernel" in done.stdout
    assert "exit code 3" in done.stdout
    after = world.api(lambda containerd: containerd.snapshots(setting.snapshotter).list())
    assert {snapshot.name for snapshot in after if snapshot.kind != "committed"} == {
        snapshot.name for snapshot in before if snapshot.kind != "committed"
    }
    assert world.api(lambda containerd: containerd.leases.list()) == leases
