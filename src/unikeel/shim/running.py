"""Start, Kill, Pause, Resume and Update: what is done with a task between Create and its end."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any, Final

from google.protobuf.empty_pb2 import Empty

from unikeel.containerd.wire import events_pb2, task_pb2
from unikeel.engine.ending import open_process, read_report
from unikeel.engine.services import read_text
from unikeel.engine.tasks import Task
from unikeel.engine.timeline import Timeline
from unikeel.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
    UnikeelError,
    Unimplemented,
)
from unikeel.kernel import pidfd
from unikeel.model.task_states import TaskState, check
from unikeel.records.failpoint import failpoint
from unikeel.sandbox import cgroups, monitor_line
from unikeel.shim import clearing
from unikeel.shim.creating import TIMELINE, said, write_json, write_timeline
from unikeel.shim.deciding import resources_of
from unikeel.shim.desk import Answer, Changed, Desk
from unikeel.shim.ending import Ending
from unikeel.shim.live import Live
from unikeel.shim.outcomes import Asked

_ENDING: Final = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM})
_POLITE: Final = frozenset({signal.SIGINT, signal.SIGTERM})
_SIGNALS: Final = range(1, signal.NSIG)
_RUNNING: Final = frozenset({"running", "shutdown", "guest-panicked"})
_QMP_SECONDS: Final = 5.0
_SETTLE_SECONDS: Final = 10.0
_RESOURCES_LIMIT: Final = 256 << 10


def _nothing(_task: Task) -> Empty:
    return Empty()


def _pid(task: Task) -> task_pb2.StartResponse:
    return task_pb2.StartResponse(pid=task.pid)


def _on_top(task: Task, allowance: int) -> int:
    """What its cgroup's limit has beyond the caller's, in bytes; tasks of earlier versions had the whole allowance there."""
    found = task.settings.get("on_top", allowance)
    return found if isinstance(found, int) else allowance


def _thaw_if_frozen(task: Task) -> None:
    """Whatever the record says: a daemon may have died between the freezing and the record."""
    if cgroups.is_frozen(task.cgroups):
        cgroups.thaw(task.cgroups)


class Running:
    """Starts tasks, and does what can be done with those that run."""

    def __init__(self, desk: Desk, ending: Ending) -> None:
        self._desk = desk
        self._node = desk.node
        self._ending = ending

    def _qmp(self, task: Task) -> str:
        return os.path.join(self._node.layout.container(task.ident), "qmp.sock")

    # -- Start -----------------------------------------------------------------------------------------------------

    async def start(self, live: Live, asked: Asked, *, again: bool) -> Task:
        """Let a created task's monitor go, and wait until its guest's processor runs.

        :param again: an earlier daemon may have begun with this request. :raise FailedPrecondition: it is not created, or its monitor failed.
        """
        begun = time.monotonic()
        try:
            async with live.lock:
                if again and live.task.state in (TaskState.RUNNING, TaskState.PAUSED):
                    return live.task
                task = await self._let_go(live, Answer(asked, _pid), resumed=again)
        except UnikeelError as error:
            self._node.metrics.failed("start", type(error).__name__)
            await self._desk.refuse(asked, error)
            raise
        self._node.metrics.took("start", time.monotonic() - begun)
        return task

    async def resume_start(self, live: Live) -> None:
        """An earlier daemon died over a Start: finish it, whether or not the request comes again."""
        async with live.lock:
            task = live.task
            if task.state is TaskState.CREATED and task.is_early:
                state = await monitor_line.status(self._qmp(task), _QMP_SECONDS)
                if state not in _RUNNING:
                    return  # nobody has asked yet
            if task.state in (TaskState.CREATED, TaskState.STARTING):
                await self._let_go(live, None, resumed=True)

    async def _let_go(self, live: Live, answer: Answer | None, *, resumed: bool) -> Task:
        node = self._node
        timeline = live.timeline
        if timeline is None:
            timeline = await node.work(self._timeline, live.task)
        if live.task.state is TaskState.STOPPED and not live.task.started_ns:
            raise FailedPrecondition(f"the monitor of {live.task.id} failed: {said(node, live.task)}")
        try:
            if not live.task.is_early:
                with timeline.span("let-go"):
                    self._desk.changed(live, await node.work(self._begin, live, resumed=resumed))
            elif live.task.state is not TaskState.CREATED:
                check(live.task.id, live.task.state, TaskState.STARTING)
            with timeline.span("vcpu"):
                await self._run_guest(live)
        except UnikeelError:
            if live.task.state is TaskState.STARTING or (live.task.is_early and live.task.state is TaskState.CREATED):
                await node.work(clearing.kill, live.task)
                await self._ending.await_end(live, _SETTLE_SECONDS)
            await node.work(write_timeline, node, live.task, timeline)
            raise
        self._desk.changed(live, await node.work(self._record, live.task, answer, timeline))
        live.timeline = None
        return live.task

    def _begin(self, live: Live, *, resumed: bool) -> Changed:
        """Record that the monitor is about to be let go, and let it go. :raise FailedPrecondition: it is not waiting for that."""
        sandboxes, task = self._node.services.sandboxes, live.task
        changed = Changed(task, ())
        waits = True
        if resumed and task.state is TaskState.STARTING:
            waits = sandboxes.waits(task.ident)
        else:
            changed = self._desk.write(task, TaskState.STARTING)
            live.task = changed.task
        failpoint("task.start.recorded")
        if waits:
            sandboxes.start(task.ident, same=False)
        failpoint("task.start.let-go")
        return changed

    def _record(self, task: Task, answer: Answer | None, timeline: Timeline) -> Changed:
        failpoint("task.start.runs")
        changed = self._desk.write(
            task,
            TaskState.RUNNING,
            lambda now: [("/tasks/start", events_pb2.TaskStart(container_id=now.id, pid=now.pid))],
            answer,
            started_ns=time.time_ns(),
        )
        failpoint("task.start.running")
        write_timeline(self._node, task, timeline)
        return changed

    def _timeline(self, task: Task) -> Timeline:
        """The steps of Create, which those of Start follow."""
        text = read_text(os.path.join(self._node.layout.container(task.ident), TIMELINE))
        return Timeline.from_json(json.loads(text)) if text else Timeline()

    async def _run_guest(self, live: Live) -> None:
        """Have QEMU run its guest's processors; an end before it says so is a failed start, or a guest that was very quick.

        The question waits for a QEMU that is not up yet; to repeat it does no harm.
        """
        task = live.task
        if not task.halts:
            return  # it has been let go, and there is nobody to ask
        if task.is_early:
            failpoint("task.start.recorded")
        try:
            await monitor_line.go(self._qmp(task), self._node.config.start_timeout)
        except DeadlineExceeded:
            raise
        except UnikeelError as error:
            if not await self._ending.await_end(live, _SETTLE_SECONDS):
                raise FailedPrecondition(
                    f"the monitor of {task.id} does not answer: {error.message}; it said: {said(self._node, task)}"
                ) from error
            directory = self._node.layout.container(task.ident)
            report = await self._node.work(read_report, directory, str(task.settings.get("monitor")), task.ended_by)
            if report is None or (report.monitor_failed and not task.ended_by):
                raise FailedPrecondition(f"the monitor of {task.id} failed: {said(self._node, task)}") from error
            return
        if task.is_early:
            failpoint("task.start.let-go")

    # -- Kill ------------------------------------------------------------------------------------------------------

    async def kill(self, live: Live, asked: Asked, number: int, *, again: bool) -> None:
        """Send a signal: the power button where the guest heeds it, else to the monitor. Waits for nobody.

        :raise NotFound: it has ended. :raise InvalidArgument: no such signal.
        """
        if number not in _SIGNALS:
            raise InvalidArgument(f"there is no signal {number}")
        task = live.task
        if task.state is TaskState.STOPPED:
            if again and task.ended_by == number:
                return
            raise NotFound(f"task {task.id} has ended")
        failpoint("task.kill.begin")
        if number not in _POLITE or task.state is not TaskState.RUNNING or not await self._press_button(task):
            try:
                await self._signal(live, number)
            except NotFound:
                if not (again and task.ended_by == number):
                    raise
        failpoint("task.kill.sent")
        if number in _ENDING or number == signal.SIGKILL:  # asked again, it finds its signal noted
            self._node.later(lambda cursor: self._node.outcomes.store(cursor, asked, b""))
        else:
            await self._node.work(
                self._node.writer.write, lambda cursor: self._node.outcomes.store(cursor, asked, b""), flush=False
            )
        failpoint("task.kill.recorded")

    async def _press_button(self, task: Task) -> bool:
        """Whether the power button was pressed."""
        if not clearing.heeds_power_button(self._node, task):
            return False
        try:
            if task.halts:
                await monitor_line.execute(self._qmp(task), _QMP_SECONDS, "system_powerdown")
            else:
                await self._node.work(clearing.press_button, self._node, task, _QMP_SECONDS)
        except (Unavailable, Unimplemented):
            return False
        return True

    async def _signal(self, live: Live, number: int) -> None:
        """A signal on which QEMU ends is noted first, since its status will not tell."""
        if number in _ENDING or number == signal.SIGKILL:
            live.changed(live.task._replace(ended_by=number))
            await self._node.work(
                self._node.writer.write,
                lambda cursor: self._node.tasks.note_signal(cursor, live.task, number),
                flush=False,
            )
        failpoint("task.kill.noted")
        process = open_process(live.task)
        if process is None:
            raise NotFound(f"task {live.task.id} has ended")
        with process:
            sent = pidfd.send(process, number)
        if not sent:
            raise NotFound(f"task {live.task.id} has ended")
        if number == signal.SIGKILL:
            await self._node.work(_thaw_if_frozen, live.task)  # what is frozen does not die

    # -- Pause, Resume ---------------------------------------------------------------------------------------------

    async def pause(self, live: Live, asked: Asked, *, again: bool) -> None:
        """Stop the guest's processors, then freeze its cgroup. :raise FailedPrecondition: it does not run."""
        async with live.lock:
            if again and live.task.state is TaskState.PAUSED:
                return
            if live.task.state is not TaskState.RUNNING:
                raise FailedPrecondition(f"task {live.task.id} is {live.task.state.value}, not running")
            if again:
                await self._node.work(_thaw_if_frozen, live.task)  # an earlier daemon died over it
            if live.task.halts:
                await monitor_line.execute(self._qmp(live.task), _QMP_SECONDS, "stop")
            await self._node.work(cgroups.freeze, live.task.cgroups)
            failpoint("task.pause.frozen")
            body = events_pb2.TaskPaused(container_id=live.task.id)
            await self._desk.change(
                live,
                TaskState.PAUSED,
                happened=lambda _task: [("/tasks/paused", body)],
                answer=Answer(asked, _nothing),
            )

    async def resume(self, live: Live, asked: Asked, *, again: bool) -> None:
        """Have a paused guest go on. :raise FailedPrecondition: it is not paused."""
        async with live.lock:
            if again and live.task.state is TaskState.RUNNING:
                return
            if live.task.state is not TaskState.PAUSED:
                raise FailedPrecondition(f"task {live.task.id} is {live.task.state.value}, not paused")
            await self._node.work(cgroups.thaw, live.task.cgroups)
            if live.task.halts:
                await monitor_line.execute(self._qmp(live.task), _QMP_SECONDS, "cont")
            failpoint("task.resume.thawed")
            body = events_pb2.TaskResumed(container_id=live.task.id)
            await self._desk.change(
                live,
                TaskState.RUNNING,
                happened=lambda _task: [("/tasks/resumed", body)],
                answer=Answer(asked, _nothing),
            )

    # -- Update ----------------------------------------------------------------------------------------------------

    async def update(self, live: Live, resources: bytes) -> None:
        """Change the limits of the sandbox's cgroup. :raise InvalidArgument: they are no ``LinuxResources``."""
        if len(resources) > _RESOURCES_LIMIT:
            raise InvalidArgument(f"the resources have {len(resources)} bytes, more than {_RESOURCES_LIMIT}")
        try:
            document = json.loads(resources)
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(f"the resources are not JSON: {str(error)[:200]}") from None
        if not isinstance(document, dict):
            raise InvalidArgument("the resources are not an object")
        async with live.lock:
            wanted = resources_of(document, _on_top(live.task, self._node.config.sandbox_monitor_allowance))
            if live.task.state not in (TaskState.CREATED, TaskState.RUNNING, TaskState.PAUSED):
                raise FailedPrecondition(f"task {live.task.id} is {live.task.state.value}: its limits cannot change")
            await self._node.work(self._update, live.task, wanted)

    def _update(self, task: Task, wanted: dict[str, Any]) -> None:
        path = os.path.join(self._node.layout.bundle(task.ident), "resources.json")
        write_json(path, wanted)
        self._node.services.sandboxes.update(task.ident, path)
