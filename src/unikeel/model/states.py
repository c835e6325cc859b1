"""The states of a container, and which may follow which."""

from __future__ import annotations

from enum import Enum

from unikeel.errors import FailedPrecondition
from unikeel.lean import Final


class ContainerState(Enum):
    """Where a container is in its life."""

    #: Being made by a command; if that dies, the container is taken away.
    CREATING = "creating"
    #: Has its snapshot; no guest of it ever ran, or its last start failed.
    CREATED = "created"
    #: A command is starting its monitor; if that dies, the start is undone.
    STARTING = "starting"
    #: Its monitor runs.
    RUNNING = "running"
    #: Its guest ran and ended; can be started again.
    EXITED = "exited"
    #: Being removed; whoever comes next finishes that.
    REMOVING = "removing"


_S = ContainerState
TRANSITIONS: Final[dict[ContainerState, frozenset[ContainerState]]] = {
    _S.CREATING: frozenset({_S.CREATED, _S.REMOVING}),
    _S.CREATED: frozenset({_S.STARTING, _S.REMOVING}),
    _S.STARTING: frozenset({_S.RUNNING, _S.CREATED, _S.EXITED, _S.REMOVING}),
    _S.RUNNING: frozenset({_S.EXITED}),
    _S.EXITED: frozenset({_S.STARTING, _S.REMOVING}),
    _S.REMOVING: frozenset(),
}

_NEXT_STEP: Final = {
    _S.CREATING: "another command is still making it",
    _S.STARTING: "another command is starting it",
    _S.RUNNING: "stop it first",
    _S.REMOVING: "it is being removed",
    _S.CREATED: "start it first",
    _S.EXITED: "start it again first",
}
_WANTED: Final = {_S.STARTING: "be started", _S.REMOVING: "be removed"}


def check(name: str, before: ContainerState, after: ContainerState) -> None:
    """See that a container may go from one state to another.

    :raise FailedPrecondition: it may not; the message names both states, the hint the next step.
    """
    if after not in TRANSITIONS[before]:
        raise FailedPrecondition(
            f"container {name} is {before.value} and cannot {_WANTED.get(after, f'become {after.value}')}",
            _NEXT_STEP[before],
        )
