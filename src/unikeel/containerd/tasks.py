"""Tasks, as clients of containerd see them, and the events about them and everything else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Final, Unpack

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message

from unikeel.containerd import messages
from unikeel.containerd.calling import Caller, Options, with_timeout
from unikeel.containerd.records import (
    CREATED,
    NOWHERE,
    PAUSED,
    PAUSING,
    RUNNING,
    STOPPED,
    UNKNOWN,
    Event,
    Exit,
    Metric,
    Mount,
    Packed,
    Stdio,
    TaskRecord,
)
from unikeel.containerd.wire import event_service_pb2, events_pb2, images_pb2, task_types_pb2, tasks_pb2, types_pb2
from unikeel.errors import BadContent

_SERVICE: Final = "containerd.services.tasks.v1.Tasks"
_EVENTS: Final = "containerd.services.events.v1.Events"
_STATES: Final[Mapping[int, str]] = {
    task_types_pb2.CREATED: CREATED,
    task_types_pb2.RUNNING: RUNNING,
    task_types_pb2.STOPPED: STOPPED,
    task_types_pb2.PAUSED: PAUSED,
    task_types_pb2.PAUSING: PAUSING,
}
#: Making, starting or deleting a task waits for the shim.
_SHIM: Final = 60.0


class Tasks:
    """The tasks of the namespace. ``exec_id`` empty means the task's own process."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def create(
        self,
        container: str,
        rootfs: Sequence[Mount] = (),
        stdio: Stdio = NOWHERE,
        task_options: Packed | None = None,
        runtime_path: str = "",
        **options: Unpack[Options],
    ) -> int:
        """Make the task of a container, not started; returns its pid.

        :raise NotFound: no such container. :raise AlreadyExists: it has a task.
        """
        request = tasks_pb2.CreateTaskRequest(
            container_id=container,
            rootfs=messages.mount_messages(rootfs),
            stdin=stdio.stdin,
            stdout=stdio.stdout,
            stderr=stdio.stderr,
            terminal=stdio.terminal,
            options=messages.unpacked(task_options),
            runtime_path=runtime_path,
        )
        kind = tasks_pb2.CreateTaskResponse
        answer = await self._caller.unary(_SERVICE, "Create", request, kind, with_timeout(options, _SHIM))
        return answer.pid

    async def start(self, container: str, exec_id: str = "", **options: Unpack[Options]) -> int:
        """Start a process; returns its pid."""
        request = tasks_pb2.StartRequest(container_id=container, exec_id=exec_id)
        kind = tasks_pb2.StartResponse
        answer = await self._caller.unary(_SERVICE, "Start", request, kind, with_timeout(options, _SHIM))
        return answer.pid

    async def get(self, container: str, exec_id: str = "", **options: Unpack[Options]) -> TaskRecord:
        """A process. :raise NotFound: there is none."""
        request = tasks_pb2.GetRequest(container_id=container, exec_id=exec_id)
        answer = await self._caller.unary(_SERVICE, "Get", request, tasks_pb2.GetResponse, options)
        return _task(answer.process, container)

    async def kill(
        self, container: str, signal: int, exec_id: str = "", *, everyone: bool = False, **options: Unpack[Options]
    ) -> None:
        """Send a signal. :param everyone: to all processes of the container. :raise NotFound: it has ended, or never was."""
        request = tasks_pb2.KillRequest(container_id=container, exec_id=exec_id, signal=signal, all=everyone)
        await self._caller.unary(_SERVICE, "Kill", request, Empty, options)

    async def wait(self, container: str, exec_id: str = "", **options: Unpack[Options]) -> Exit:
        """Wait for a process's end, without a limit unless ``timeout`` is given."""
        request = tasks_pb2.WaitRequest(container_id=container, exec_id=exec_id)
        answer = await self._caller.unary(
            _SERVICE, "Wait", request, tasks_pb2.WaitResponse, with_timeout(options, None)
        )
        return Exit(answer.exit_status, messages.ns(answer.exited_at))

    async def delete(self, container: str, exec_id: str = "", **options: Unpack[Options]) -> Exit:
        """Delete a task that has ended, or another process of it. :raise FailedPrecondition: it still runs."""
        limited = with_timeout(options, _SHIM)
        if exec_id:
            process = tasks_pb2.DeleteProcessRequest(container_id=container, exec_id=exec_id)
            answer = await self._caller.unary(_SERVICE, "DeleteProcess", process, tasks_pb2.DeleteResponse, limited)
        else:
            request = tasks_pb2.DeleteTaskRequest(container_id=container)
            answer = await self._caller.unary(_SERVICE, "Delete", request, tasks_pb2.DeleteResponse, limited)
        return Exit(answer.exit_status, messages.ns(answer.exited_at), answer.pid)

    async def pause(self, container: str, **options: Unpack[Options]) -> None:
        """Halt a task."""
        await self._caller.unary(_SERVICE, "Pause", tasks_pb2.PauseTaskRequest(container_id=container), Empty, options)

    async def resume(self, container: str, **options: Unpack[Options]) -> None:
        """Let a halted task go on."""
        await self._caller.unary(
            _SERVICE, "Resume", tasks_pb2.ResumeTaskRequest(container_id=container), Empty, options
        )

    async def exec(
        self, container: str, exec_id: str, spec: Packed, stdio: Stdio = NOWHERE, **options: Unpack[Options]
    ) -> None:
        """Add a process to a running task; :meth:`start` starts it. :raise Unimplemented: the runtime has no such thing."""
        request = tasks_pb2.ExecProcessRequest(
            container_id=container,
            exec_id=exec_id,
            spec=messages.unpacked(spec),
            stdin=stdio.stdin,
            stdout=stdio.stdout,
            stderr=stdio.stderr,
            terminal=stdio.terminal,
        )
        await self._caller.unary(_SERVICE, "Exec", request, Empty, options)

    async def close_io(self, container: str, exec_id: str = "", **options: Unpack[Options]) -> None:
        """End a process's input."""
        request = tasks_pb2.CloseIORequest(container_id=container, exec_id=exec_id, stdin=True)
        await self._caller.unary(_SERVICE, "CloseIO", request, Empty, options)

    async def resize(
        self, container: str, width: int, height: int, exec_id: str = "", **options: Unpack[Options]
    ) -> None:
        """Say how large a process's terminal is."""
        request = tasks_pb2.ResizePtyRequest(container_id=container, exec_id=exec_id, width=width, height=height)
        await self._caller.unary(_SERVICE, "ResizePty", request, Empty, options)

    async def pids(self, container: str, **options: Unpack[Options]) -> list[int]:
        """The processes of a task."""
        request = tasks_pb2.ListPidsRequest(container_id=container)
        answer = await self._caller.unary(_SERVICE, "ListPids", request, tasks_pb2.ListPidsResponse, options)
        return [one.pid for one in answer.processes]

    async def metrics(self, filters: Sequence[str] = (), **options: Unpack[Options]) -> list[Metric]:
        """Statistics of the tasks that one of the filters fits (``id==…``), of all without filters."""
        request = tasks_pb2.MetricsRequest(filters=filters)
        answer = await self._caller.unary(_SERVICE, "Metrics", request, tasks_pb2.MetricsResponse, options)
        return [
            Metric(one.id, messages.ns(one.timestamp), Packed(one.data.type_url, one.data.value))
            for one in answer.metrics
        ]

    async def update(
        self,
        container: str,
        resources: Packed,
        annotations: Mapping[str, str] | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Change a task's limits; ``resources`` is LinuxResources of the OCI specification, in JSON."""
        request = tasks_pb2.UpdateTaskRequest(
            container_id=container, resources=messages.unpacked(resources), annotations=annotations
        )
        await self._caller.unary(_SERVICE, "Update", request, Empty, options)

    async def checkpoint(self, container: str, **options: Unpack[Options]) -> None:
        """Write a task's state down. :raise Unimplemented: the runtime has no such thing."""
        request = tasks_pb2.CheckpointTaskRequest(container_id=container)
        kind = tasks_pb2.CheckpointTaskResponse
        await self._caller.unary(_SERVICE, "Checkpoint", request, kind, with_timeout(options, _SHIM))

    async def list(self, **options: Unpack[Options]) -> list[TaskRecord]:
        """All tasks."""
        request = tasks_pb2.ListTasksRequest()
        answer = await self._caller.unary(_SERVICE, "List", request, tasks_pb2.ListTasksResponse, options)
        return [_task(one) for one in answer.tasks]


class Events:
    """What happens in containerd."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def subscribe(self, filters: Sequence[str] = (), **options: Unpack[Options]) -> AsyncGenerator[Event, None]:
        """Events from now on, of every namespace, that one of the filters fits (``topic=="/tasks/exit"``, ``namespace==…``).

        It begins with the first step of the iteration and ends with ``aclose()`` (:class:`contextlib.aclosing`).

        :raise Unavailable: containerd went away; subscribe again.
        """
        request = event_service_pb2.SubscribeRequest(filters=filters)
        limited = with_timeout(options, None)
        async with aclosing(self._caller.stream(_EVENTS, "Subscribe", request, types_pb2.Envelope, limited)) as found:
            async for one in found:
                what = Packed(one.event.type_url, one.event.value)
                yield Event(messages.ns(one.timestamp), one.namespace, one.topic, what)


def body(event: Event) -> Message | None:
    """The body of an event as its message; ``None`` if it is of a kind that we have no definition of.

    :raise BadContent: it is not what its type says.
    """
    name = event.body.type_url.rpartition("/")[2]
    module = images_pb2 if name.startswith("containerd.services.images.") else events_pb2
    kind = getattr(module, name.rpartition(".")[2], None)
    if kind is None or kind.DESCRIPTOR.full_name != name:
        return None
    try:
        found: Message = kind.FromString(event.body.value)
    except DecodeError:
        raise BadContent(f"the body of an event of containerd, {name}, is malformed") from None
    return found


def _task(found: task_types_pb2.Process, container: str = "") -> TaskRecord:
    """A process as containerd tells it, which leaves the container's name out: of a task, it is the process's own."""
    return TaskRecord(
        container=found.container_id or container or found.id,
        id=found.id,
        pid=found.pid,
        status=_STATES.get(found.status, UNKNOWN),
        stdin=found.stdin,
        stdout=found.stdout,
        stderr=found.stderr,
        terminal=found.terminal,
        exit_status=found.exit_status,
        exited_ns=messages.ns(found.exited_at),
    )
