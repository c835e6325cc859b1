"""What follows a run, and the removal of a container: both can be repeated by whoever comes next, from any point."""

from __future__ import annotations

import os
import time

from unikeel.engine.clearing import remove_sandbox
from unikeel.engine.containers import Container
from unikeel.engine.creating import discard
from unikeel.engine.ending import UNKNOWN_EXIT, ExitReport, exit_report
from unikeel.engine.services import Services
from unikeel.errors import NotFound
from unikeel.kernel.locks import locked
from unikeel.lean import Final
from unikeel.model.states import ContainerState
from unikeel.records.failpoint import failpoint

_LOOK_SECONDS: Final = 0.01


def collect(services: Services, container: Container, lost: str = "") -> Container:
    """A running container's monitor has ended: take its sandbox away and record how it ended; the record as it is then.

    Several may do this at once: the first does it, the others wait. What has been started again meanwhile is not touched.

    :param lost: why there is no exit report, if there is none. :raise NotFound: it is removed meanwhile.
    """
    try:
        with locked(os.path.join(services.layout.container(container.id), "collect.lock")):
            now = services.containers.get(container.id)
            if now.state is not ContainerState.RUNNING or now.runs != container.runs:
                return now
            return _collect(services, now, lost)
    except FileNotFoundError:
        raise NotFound(f"container {container.name} is gone: another command removed it") from None


def _collect(services: Services, container: Container, lost: str) -> Container:
    failpoint("exit.begin")
    report = exit_report(services, container)
    if report is None:
        reason = lost or "the exit status is unknown: the keeper had been killed"
        report = ExitReport(UNKNOWN_EXIT, reason, time.time_ns(), monitor_failed=True)
    remove_sandbox(services, container)
    failpoint("exit.sandbox-removed")
    moved = services.containers.move(
        container,
        ContainerState.EXITED,
        exit_code=report.code,
        reason=report.reason,
        finished_ns=report.when_ns,
        pid=0,
    )
    failpoint("exit.recorded")
    return moved


def remove(services: Services, container: Container) -> None:
    """Remove a container that does not run, with its snapshot, boot files and logs.

    :raise FailedPrecondition: it runs, or another command works on it.
    """
    container = services.containers.move(container, ContainerState.REMOVING, owner=services.owner.token)
    failpoint("remove.recorded")
    finish_removal(services, container)


def wait_until_gone(services: Services, ident: str, seconds: float) -> bool:
    """Wait for the end of a removal by another command; false: there is none, or not in that time."""
    deadline = time.monotonic() + seconds
    try:
        while services.containers.get(ident).state is ContainerState.REMOVING and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
    except NotFound:
        return True
    return False


def finish_removal(services: Services, container: Container) -> None:
    """The work of :func:`remove`, from wherever it was left."""
    remove_sandbox(services, container)
    failpoint("remove.sandbox")
    try:
        discard(services, container)
    except NotFound:
        return
    failpoint("remove.done")
