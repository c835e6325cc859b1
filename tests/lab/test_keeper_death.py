"""``kill -9`` of the keeper where no service manager keeps its connections: containerd takes its tasks for dead, and they are taken away properly."""

from __future__ import annotations

from lab_support.processes import kill_and_wait
from lab_support.stage import Setting, nothing_left, settings
from lab_support.waiting import until
from lab_support.world import ROOTS

__all__ = ["nothing_left"]
setting = settings(ROOTS)


def test_tasks_of_a_dead_keeper_are_taken_away(setting: Setting) -> None:
    world = setting.world
    idents = [setting.new() for _ in range(3)]
    for ident in idents:
        setting.detached(ident, "wait")
    with world.events() as events:
        (keeper,) = world.keepers()
        kill_and_wait(keeper.pid)
        # containerd executes the launcher with `delete`, which starts the next keeper and daemon.
        until(lambda: all(world.status(ident) in ("", "STOPPED", "UNKNOWN") for ident in idents), "containerd knows")
        until(lambda: world.monitors() == [], "no guest is left")
        for ident in idents:
            events.await_topic(ident, "delete")
    for ident in idents:
        world.ctr("containers", "rm", ident)
    assert world.settled() == []
    assert setting.run(setting.new(), "exit=3", check=False, flags=["--rm"]).returncode == 3
