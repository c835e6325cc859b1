"""The states of a task, which is containerd's word for a running container, and which may follow which."""

from __future__ import annotations

from enum import Enum

from unikeel.errors import FailedPrecondition
from unikeel.lean import Final


class TaskState(Enum):
    """Where a task is in its life. Its record is gone once it is deleted."""

    #: Being made by Create; if the daemon dies over it, the task is taken away, and made anew if the request comes again.
    CREATING = "creating"
    #: Its monitor waits in its sandbox.
    CREATED = "created"
    #: Its monitor is let go by Start; if the daemon dies over it, the next one finishes that.
    STARTING = "starting"
    #: Its guest runs.
    RUNNING = "running"
    #: Its processors stand still and its cgroup is frozen.
    PAUSED = "paused"
    #: Its monitor has ended.
    STOPPED = "stopped"
    #: Being taken away; whoever comes next finishes that.
    DELETING = "deleting"


_S = TaskState
TRANSITIONS: Final[dict[TaskState, frozenset[TaskState]]] = {
    _S.CREATING: frozenset({_S.CREATED, _S.DELETING}),
    _S.CREATED: frozenset({_S.STARTING, _S.RUNNING, _S.STOPPED, _S.DELETING}),
    _S.STARTING: frozenset({_S.RUNNING, _S.STOPPED, _S.DELETING}),
    _S.RUNNING: frozenset({_S.PAUSED, _S.STOPPED, _S.DELETING}),
    _S.PAUSED: frozenset({_S.RUNNING, _S.STOPPED, _S.DELETING}),
    _S.STOPPED: frozenset({_S.DELETING}),
    _S.DELETING: frozenset(),
}

_WANTED: Final = {
    _S.STARTING: "be started",
    _S.PAUSED: "be paused",
    _S.RUNNING: "go on",
    _S.DELETING: "be deleted",
}


def check(task: str, before: TaskState, after: TaskState) -> None:
    """See that a task may go from one state to another. :raise FailedPrecondition: it may not; the message names both."""
    if after not in TRANSITIONS[before]:
        raise FailedPrecondition(
            f"task {task} is {before.value} and cannot {_WANTED.get(after, f'become {after.value}')}"
        )
