"""Tasks that containerd has given up while nobody of ours was there: they do not run on for ever."""

from __future__ import annotations

import os
import signal

from lab_support.processes import kill_and_wait
from lab_support.stage import Setting, nothing_left, settings
from lab_support.waiting import until
from lab_support.world import LONG, ROOTS

__all__ = ["nothing_left"]
setting = settings(ROOTS if LONG else ROOTS[:1])


def test_a_task_that_containerd_gave_up_while_nobody_heard_it(setting: Setting) -> None:
    """containerd starts again, finds nobody behind its tasks, and its ``delete`` is heard by nobody: the next daemon ends the guest, and no other."""
    world, given_up, stays = setting.world, setting.new("given-up"), setting.new("stays")
    setting.detached(given_up, "wait")
    monitor = world.monitor_of(given_up)
    with world.halted_daemon() as daemon:
        world.lab.restart_containerd(kill=signal.SIGKILL)
        until(lambda: given_up not in world.tasks(), "containerd has given the task up")
        kill_and_wait(daemon.pid)
    setting.detached(stays, "wait")
    assert os.path.exists(f"/proc/{monitor}/exe"), "the guest is adopted at first"
    world.kill_daemon()
    until(lambda: not os.path.exists(f"/proc/{monitor}/exe"), "the guest has ended")
    world.ctr("containers", "rm", given_up)
    assert world.status(stays) == "RUNNING"
    world.remove(stays)
