"""Taking away what a task has on the host: its monitor, sandbox, cgroup, bundle, sockets, boot files' use, directory. What is not there is fine."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from unikeel.engine import sharing
from unikeel.engine.clearing import kill as kill_monitor
from unikeel.engine.tasks import Task
from unikeel.errors import Unavailable
from unikeel.kernel.paths import remove_tree
from unikeel.records.failpoint import failpoint
from unikeel.sandbox import cgroups, remains, sockets
from unikeel.shim.connecting import disconnect

if TYPE_CHECKING:
    from unikeel.shim.node import Node


def kill(task: Task) -> bool:
    """Kill a task's monitor if it lives, and wait until it is gone; whether it is."""
    return kill_monitor(task)


def remove_sandbox(node: Node, task: Task, *, thorough: bool = False) -> None:
    """Kill what runs of a task and take its sandbox away. Its directory, with logs and exit, stays.

    :param thorough: nobody can say how far Create had come: look for processes of it by their mark, too.
    :raise Unavailable: something does not die.
    """
    if task.pid > 1 and cgroups.is_frozen(task.cgroups):
        cgroups.thaw(task.cgroups)
    if not kill(task):
        raise Unavailable(f"the monitor of {task.id} does not die", "see what it waits for: /proc/PID/stack")
    if thorough:
        remains.kill_marked(task.ident)
    failpoint("task.clear.killed")
    disconnect(task)
    failpoint("task.clear.network")
    state = os.path.join(node.layout.runtime_state, task.ident)
    if os.path.isdir(state):
        node.services.sandboxes.delete(task.ident)
    failpoint("task.clear.sandbox")
    remove_tree(state)
    cgroups.remove_empty(task.cgroups)
    if thorough:
        remains.remove_cgroups(task.ident)
    sharing.remove(node.services, node.layout, task.ident)
    remove_tree(node.layout.bundle(task.ident))
    for name in sockets.NAMES:
        path = os.path.join(node.layout.container(task.ident), name)
        if os.path.lexists(path):
            os.unlink(path)


def clear(node: Node, task: Task, *, thorough: bool = False) -> None:
    """Take everything of a task away but its record. Raises as :func:`remove_sandbox`."""
    remove_sandbox(node, task, thorough=thorough)
    node.keeper.close_io(task.ident)
    failpoint("task.clear.streams")
    node.services.boot.release(task.ident)
    failpoint("task.clear.boot-files")
    if task.settings.get("made"):
        node.services.made.release(task.ident)
    failpoint("task.clear.disk")
    remove_tree(node.layout.container(task.ident))


def press_button(node: Node, task: Task, seconds: float) -> None:
    """Press the power button of a guest whose monitor is asked otherwise than by QMP. Raises as :func:`unikeel.sandbox.controlling.power_down`."""
    from unikeel.model.plan import Control
    from unikeel.sandbox import controlling
    from unikeel.sandbox.lines import Line

    directory = node.layout.container(task.ident)
    with open(os.path.join(directory, "plan.json"), "rb") as file:
        control = Control(json.loads(file.read()).get("control", Control.QMP.value))
    controlling.power_down(Line(control, directory, task.pid, task.start_time), seconds)


def heeds_power_button(node: Node, task: Task) -> bool:
    """Whether the task's guest obeys QMP's ``system_powerdown``, as its plan says."""
    try:
        with open(os.path.join(node.layout.container(task.ident), "plan.json"), "rb") as file:
            return json.loads(file.read()).get("powerdown") is True
    except (OSError, ValueError):
        return False
