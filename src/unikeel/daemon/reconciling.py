"""What an earlier daemon left, or an earlier keeper: adopted, finished or taken back before any request is answered."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack

from unikeel.engine import tasks
from unikeel.engine.ending import process_lives
from unikeel.engine.tasks import Place, Task
from unikeel.errors import Internal, UnikeelError
from unikeel.model.task_states import TaskState
from unikeel.records import owners
from unikeel.records.failpoint import failpoint
from unikeel.sandbox import cgroups
from unikeel.sandbox.sockets import console_path
from unikeel.shim import clearing
from unikeel.shim.ending import Ending
from unikeel.shim.live import TASKS, Live, Registry
from unikeel.shim.node import Node
from unikeel.shim.oom import OomWatch
from unikeel.shim.running import Running
from unikeel.shim.stdio import Streams, open_streams

_LOG = logging.getLogger("unikeel.daemon")
_HALF_DONE = frozenset({TaskState.CREATING, TaskState.DELETING})


def recover(node: Node, registry: Registry) -> None:
    """Take back half-made tasks, know the others, and have the keeper keep their monitors and listen for their containerds. Blocks."""
    for place, ttrpc in node.tasks.places().items():
        registry.know(place, ttrpc)
    kept = frozenset(node.keeper.monitors())
    for task in node.tasks.all():
        if task.state in _HALF_DONE:
            if not _take_back(node, task):
                registry.put(task._replace(state=TaskState.DELETING))
            continue
        registry.put(task)
        if task.ident not in kept and process_lives(task):
            _adopt(node, task)
    for place in {Place(live.task.containerd, live.task.namespace) for live in registry}:
        node.keeper.listen(f"{TASKS}{place.short}", node.layout.task_socket(place.short))
    failpoint("daemon.recovered")
    _boot_files(node)
    node.writer.write(node.outcomes.prune)


def _take_back(node: Node, task: Task) -> bool:
    """A daemon died while it made a task, or took one away: containerd asks again, or has given it up. False: the sweep has to do it."""
    try:
        clearing.clear(node, task, thorough=True)
    except UnikeelError as error:
        _LOG.error("task %s is not taken back yet: %s", task.id, error)
        return False
    node.writer.write(lambda cursor: node.tasks.delete(cursor, task))
    _LOG.info("took back task %s, which was %s", task.id, task.state.value)
    return True


def _adopt(node: Node, task: Task) -> None:
    """A keeper was killed: have the new one keep a monitor that still runs, with its streams."""
    with ExitStack() as stack:
        streams = Streams((), ())
        try:
            if node.keeper.ask({"op": "restored", "id": task.ident}).get("streams") is not True:
                streams = open_streams(task, node.keeper, stack)
        except UnikeelError as error:
            _LOG.warning("the streams of task %s are lost: %s", task.id, error)
        directory = node.layout.container(task.ident)
        try:
            node.keeper.connection().call(
                {
                    "op": "adopt",
                    "id": task.ident,
                    "directory": directory,
                    "console": console_path(directory),
                    "pid": task.pid,
                    "start_time": task.start_time,
                    "log_limit": node.config.console_log_size,
                    "reaper": [],
                    "holds": [f"view:{task.settings.get('parent', '')}"],
                    "stdio": list(streams.names),
                },
                streams.fds,
            )
        except Internal as error:
            if process_lives(task):
                _LOG.error("the monitor of task %s is not adopted: %s", task.id, error)
        else:
            _LOG.info("adopted the monitor of task %s: its keeper had been killed", task.id)


def _boot_files(node: Node) -> None:
    """Boot files that dead processes left half made, or that belong to nobody any more."""
    services = node.services
    known = tasks.idents(services.database) | {container.id for container in services.containers.list()}
    for freed in services.boot.reconcile(lambda container: container in known):
        _LOG.info("took back a half-made %s: %s", freed.kind, freed.name)
    try:
        for freed in services.made.reconcile(services.owner.is_dead, lambda task: task in known):
            _LOG.info("took back a half-made %s: %s", freed.kind, freed.name)
    except UnikeelError as error:
        _LOG.error("the made disks are not in order: %s", error)
    if not services.containers.list():
        owners.sweep(services.layout.owners)  # else the engine's next command does, which knows what they own


async def resume(node: Node, registry: Registry, ending: Ending, running: Running, oom: OomWatch) -> None:
    """Record the ends that nobody took note of, and finish the starts that were under way. Those go on after this returns."""

    async def ended(live: Live) -> None:
        await ending.take_note(live)

    async def started(live: Live) -> None:
        try:
            await running.resume_start(live)
        except UnikeelError as error:
            _LOG.error("the start of task %s cannot be finished: %s", live.task.id, error)
        await ending.take_note(live)

    waits = []
    for live in registry:
        if live.task.state in (TaskState.STOPPED, TaskState.DELETING):
            continue
        live.oom_told = cgroups.oom_kills(live.task.cgroups)
        oom.add(live.task)
        if live.task.state is TaskState.STARTING or (live.task.state is TaskState.CREATED and live.task.is_early):
            node.begin(started(live))
        else:
            waits.append(ended(live))
    await asyncio.gather(*waits)
