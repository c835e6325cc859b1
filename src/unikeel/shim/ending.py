"""How a task ends and how that becomes known: the keeper tells it, ``exit.json`` says how, the record and the event follow."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence

from google.protobuf.message import Message

from unikeel.containerd.wire import events_pb2
from unikeel.engine.ending import UNKNOWN_EXIT, ExitReport, process_lives, read_report
from unikeel.engine.tasks import Task
from unikeel.errors import UnikeelError
from unikeel.model.task_states import TaskState
from unikeel.records.failpoint import failpoint
from unikeel.sandbox.cgroups import oom_kills
from unikeel.shim import answers
from unikeel.shim.desk import Desk
from unikeel.shim.live import Live

_LOG = logging.getLogger("unikeel.tasks")
_LIVES = frozenset({TaskState.CREATED, TaskState.STARTING, TaskState.RUNNING, TaskState.PAUSED})
_LOOK_SECONDS = 0.2
_LOST = "the exit status is unknown: nobody was there to see it"


class Ending:
    """Takes note of ends."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._node = desk.node

    def told(self, ident: str) -> None:
        """The keeper tells that a monitor has ended."""
        live = self._desk.registry.by_name(ident)
        if live is not None:
            live.reported.set()
            self._node.begin(self.take_note(live))

    async def take_note(self, live: Live) -> None:
        """Record the end of a monitor, in its turn: a Start that is under way comes first."""
        try:
            async with live.lock:
                await self.settle(live)
        except UnikeelError as error:
            _LOG.error("the end of task %s is not recorded: %s", live.task.id, error)

    async def await_end(self, live: Live, seconds: float) -> bool:
        """Wait until the keeper has told the end of a monitor that is about to end; False: not in time."""
        end = asyncio.get_running_loop().time() + seconds
        while not live.reported.is_set():
            # It may have been told to an earlier daemon.
            if await self._node.work(self._report, live.task) is not None:
                return True
            left = end - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(live.reported.wait(), min(left, _LOOK_SECONDS))
        return True

    async def settle(self, live: Live) -> None:
        """Record the end of a task whose monitor has ended, if that is not done. Its lock is held."""
        task = live.task
        if task.state not in _LIVES:
            return
        report = await self._node.work(self._report, task)
        if report is None:
            return
        kills = await self._node.work(oom_kills, task.cgroups)
        failpoint("task.exit.read")

        def happened(ended: Task) -> Sequence[tuple[str, Message]]:
            told: list[tuple[str, Message]] = []
            if kills > live.oom_told:
                live.oom_told = kills
                told.append(("/tasks/oom", events_pb2.TaskOOM(container_id=task.id)))
            told.append(("/tasks/exit", answers.exit_event(ended)))
            return told

        await self._desk.change(
            live,
            TaskState.STOPPED,
            happened=happened,
            exit_code=report.code,
            finished_ns=report.when_ns,
            reason=report.reason,
        )
        self._desk.oom.remove(task.ident)
        failpoint("task.exit.recorded")
        self._node.metrics.ended()

    def _report(self, task: Task) -> ExitReport | None:
        """How the monitor ended; None: it has not."""
        directory = self._node.layout.container(task.ident)
        report = read_report(directory, str(task.settings.get("monitor", "qemu")), task.ended_by)
        if report is None and not process_lives(task):
            report = read_report(directory, str(task.settings.get("monitor", "qemu")), task.ended_by)
            if report is None and task.ident not in self._node.keeper.monitors():
                report = read_report(directory, str(task.settings.get("monitor", "qemu")), task.ended_by)
                return report or ExitReport(UNKNOWN_EXIT, _LOST, time.time_ns(), monitor_failed=True)
        return report

    def limit_hit(self, ident: str) -> None:
        """The memory limit of a task may have killed something."""
        live = self._desk.registry.by_name(ident)
        if live is not None and live.task.state in _LIVES:
            self._node.begin(self._tell_kill(live))

    async def _tell_kill(self, live: Live) -> None:
        async with live.lock:  # else the end might be told first, and forgotten again
            if live.task.state not in _LIVES:
                return
            kills = await self._node.work(oom_kills, live.task.cgroups)
            if kills > live.oom_told:
                live.oom_told = kills
                body = events_pb2.TaskOOM(container_id=live.task.id)
                await self._desk.change(live, happened=lambda _task: [("/tasks/oom", body)])
