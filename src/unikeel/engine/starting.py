"""Starting a container: boot files, disk, plan, sandbox, monitor; each step timed, and undone when a later one fails.

The order is that of design.md: the record first, everything ready before the sandbox is made (:mod:`.preparing`), the monitor's pid recorded
before the monitor may run (:mod:`.launching`). A start has succeeded when the monitor has exec'ed and QEMU says that its vCPU runs.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from unikeel.boot.contract import Choice
from unikeel.engine.containers import Container
from unikeel.engine.launching import await_exec, await_ports, await_vcpu, launch, pipe
from unikeel.engine.preparing import prepare
from unikeel.engine.services import Services
from unikeel.engine.settings import Settings
from unikeel.engine.timeline import Timeline
from unikeel.errors import DeadlineExceeded, UnikeelError
from unikeel.kernel.moves import expect_moves
from unikeel.model.states import ContainerState
from unikeel.records.failpoint import failpoint
from unikeel.records.owners import boot_id, start_time


def claim(services: Services, container: Container, timeline: Timeline) -> Container:
    """Make a start ours: whatever fails before this returns is no failure of the container, which somebody else may be running.

    :raise FailedPrecondition: it is not in a state to be started. :raise Unavailable: as :meth:`unikeel.boot.service.BootFiles.prepare`.
    """
    settings = Settings.from_json(dict(container.settings))
    services.keeper.start_early()
    if settings.sandbox:
        expect_moves()
    with timeline.span("boot-files.prepare"):
        services.boot.prepare(Choice(settings.boot_files))
    with timeline.span("start.record"):
        container = services.containers.move(
            container, ContainerState.STARTING, owner=services.owner.token, reason="", pid=0
        )
    failpoint("start.recorded")
    return container


def start(services: Services, container: Container, timeline: Timeline, seconds: float) -> Container:
    """Start a container that was claimed; it is ``running`` when this returns, and as it was before if it raises.

    :param seconds: how long the monitor may take to run.
    :raise FailedPrecondition: its monitor failed (the message has its last line). :raise DeadlineExceeded: not in time.
    :raise BadContent, Unavailable: as :meth:`unikeel.boot.service.BootFiles.acquire`. :raise AlreadyExists: a port is in use.
    """
    settings = Settings.from_json(dict(container.settings))
    try:
        return _start(services, container, settings, timeline, seconds)
    except BaseException as error:
        try:
            undo_start(services, container, _first_line(error))
        except UnikeelError as another:
            services.notice(f"the start of {container.name} is not undone yet, the next command will: {another}")
        raise


def _first_line(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return "the start failed: " + text.splitlines()[0][:400]


def undo_start(services: Services, container: Container, reason: str) -> None:
    """Take a half-done start back, however far it had come; the snapshot and the boot files' user stay for the next start."""
    from unikeel.engine.clearing import remove_sandbox

    remove_sandbox(services, container, thorough=True)
    container = services.containers.get(container.id)
    state = ContainerState.EXITED if container.started_ns else ContainerState.CREATED
    services.containers.move(container, state, owner="", pid=0, reason=reason)


def _too_long(container: Container, seconds: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"the start of {container.name} took longer than {seconds:g} s", "give it longer with --timeout"
    )


def _start(
    services: Services, container: Container, settings: Settings, timeline: Timeline, seconds: float
) -> Container:
    deadline = time.monotonic() + seconds
    with ExitStack() as stack:
        prepared = prepare(services, container, settings, timeline, stack)
        done_read, done_write = pipe(stack)
        # Recorded before a guest can run: from then on it may have written to the snapshot, whatever becomes of us.
        runs = container.runs + 1
        if not settings.sandbox:
            services.containers.update(container.id, runs=runs)
        pid = launch(services, container, settings, prepared, done_write, timeline)
        services.containers.update(container.id, pid=pid, start_time=start_time(pid), boot_id=boot_id(), runs=runs)
        container = services.containers.get(container.id)
        failpoint("start.pid-recorded")
        done_write.close()
        with timeline.span("exec"):
            if settings.sandbox:
                services.sandboxes.start(container.id)
            failpoint("start.sandbox-started")
            if not await_exec(done_read, deadline):
                raise _too_long(container, seconds)
        strategy = prepared.boot.strategy
    with timeline.span("vcpu"):
        await_vcpu(services, container, prepared.plan.control, deadline)
    if settings.ports and settings.network == "user":
        with timeline.span("network"):
            await_ports(services, container, settings, deadline)
    if time.monotonic() > deadline:
        raise _too_long(container, seconds)
    container = services.containers.move(
        container, ContainerState.RUNNING, started_ns=time.time_ns(), strategy=strategy, exit_code=None
    )
    failpoint("start.running")
    return container
