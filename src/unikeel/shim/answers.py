"""Records as containerd's messages have them."""

from __future__ import annotations

from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from unikeel.containerd.wire import events_pb2, task_pb2, task_types_pb2, types_pb2
from unikeel.engine.tasks import Task
from unikeel.model.task_states import TaskState

_S = TaskState
_STATUS: Final = {
    _S.CREATING: task_types_pb2.UNKNOWN,
    _S.CREATED: task_types_pb2.CREATED,
    _S.STARTING: task_types_pb2.CREATED,
    _S.RUNNING: task_types_pb2.RUNNING,
    _S.PAUSED: task_types_pb2.PAUSED,
    _S.STOPPED: task_types_pb2.STOPPED,
    _S.DELETING: task_types_pb2.STOPPED,
}


def timestamp(when_ns: int) -> Timestamp | None:
    """A time; None for none."""
    if not when_ns:
        return None
    seconds, nanoseconds = divmod(when_ns, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanoseconds)


def state(task: Task) -> task_pb2.StateResponse:
    """What State answers."""
    return task_pb2.StateResponse(
        id=task.id,
        bundle=task.asked("bundle"),
        pid=task.pid,
        status=_STATUS[task.state],
        stdin=task.asked("stdin"),
        stdout=task.asked("stdout"),
        stderr=task.asked("stderr"),
        terminal=task.terminal,
        exit_status=task.exit_code,
        exited_at=timestamp(task.finished_ns),
    )


def deleted(task: Task) -> task_pb2.DeleteResponse:
    """What Delete answers."""
    return task_pb2.DeleteResponse(pid=task.pid, exit_status=task.exit_code, exited_at=timestamp(task.finished_ns))


def ended(task: Task) -> task_pb2.WaitResponse:
    """What Wait answers."""
    return task_pb2.WaitResponse(exit_status=task.exit_code, exited_at=timestamp(task.finished_ns))


def created_event(task: Task) -> events_pb2.TaskCreate:
    """The event of a Create."""
    rootfs = task.request.get("rootfs")
    return events_pb2.TaskCreate(
        container_id=task.id,
        bundle=task.asked("bundle"),
        rootfs=[
            types_pb2.Mount(type=kind, source=source, options=options)
            for kind, source, options in (rootfs if isinstance(rootfs, list) else [])
        ],
        io=events_pb2.TaskIO(
            stdin=task.asked("stdin"),
            stdout=task.asked("stdout"),
            stderr=task.asked("stderr"),
            terminal=task.terminal,
        ),
        pid=task.pid,
    )


def exit_event(task: Task) -> events_pb2.TaskExit:
    """The event of an end."""
    return events_pb2.TaskExit(
        container_id=task.id,
        id=task.id,
        pid=task.pid,
        exit_status=task.exit_code,
        exited_at=timestamp(task.finished_ns),
    )


def deleted_event(task: Task) -> events_pb2.TaskDelete:
    """The event of a Delete. Its ``id`` is empty: that is an exec's."""
    return events_pb2.TaskDelete(
        container_id=task.id,
        pid=task.pid,
        exit_status=task.exit_code,
        exited_at=timestamp(task.finished_ns),
    )
