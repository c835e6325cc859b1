"""The monitor's process: made in its sandbox by the keeper, and watched until its guest's processor runs and its ports are served."""

from __future__ import annotations

import os
import select
import time
from contextlib import ExitStack

from unikeel.engine.containers import Container
from unikeel.engine.ending import exit_report, holds, wait_for_exit
from unikeel.engine.preparing import Prepared
from unikeel.engine.services import Services
from unikeel.engine.settings import Settings
from unikeel.engine.timeline import Timeline
from unikeel.errors import DeadlineExceeded, FailedPrecondition, Unavailable, UnikeelError
from unikeel.kernel.fd import OwnedFd
from unikeel.lean import TYPE_CHECKING, Final
from unikeel.model.plan import Control
from unikeel.records.failpoint import failpoint
from unikeel.sandbox.sockets import console_path
from unikeel.values import NamedTuple

if TYPE_CHECKING:
    from unikeel.keeper.wire import Json

LAUNCH_SECONDS: Final = 60.0
_SETTLE_SECONDS = 10.0
_LOOK_SECONDS = 0.005


class Order(NamedTuple):
    """What the keeper is asked to launch: see ``launch`` of :mod:`unikeel.keeper.monitors`."""

    ident: str
    directory: str
    argv: tuple[str, ...]
    #: Empty: ``argv`` is the monitor itself, else a command that makes it and writes its number there.
    pid_file: str
    log_limit: int
    reaper: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    helper: tuple[str, ...] = ()
    #: How many descriptors the helper gets: its socket, and perhaps the network namespace that it enters.
    helper_fds: int = 1
    stdio: tuple[str, ...] = ()
    #: The last two descriptors are the monitor's standard input and output.
    streams: bool = False

    def message(self) -> dict[str, Json]:
        """As it is sent."""
        return {
            "op": "launch",
            "id": self.ident,
            "directory": self.directory,
            "argv": list(self.argv),
            "helper": list(self.helper) or None,
            "helper_fds": self.helper_fds,
            "console": console_path(self.directory),
            "pid_file": self.pid_file,
            "log_limit": self.log_limit,
            "reaper": list(self.reaper),
            "holds": list(self.holds),
            "stdio": list(self.stdio),
            **({"streams": True} if self.streams else {}),
        }


def pipe(stack: ExitStack) -> tuple[OwnedFd, OwnedFd]:
    """A pipe whose writing end the monitor's exec closes: its end of file says that the exec happened (or the process died)."""
    read, write = os.pipe2(os.O_CLOEXEC)
    return stack.enter_context(OwnedFd(read)), stack.enter_context(OwnedFd(write))


def launch(
    services: Services,
    container: Container,
    settings: Settings,
    prepared: Prepared,
    done: OwnedFd,
    timeline: Timeline,
) -> int:
    """Have the keeper make the sandbox; the pid of the monitor that waits in it."""
    with timeline.span("keeper"):
        connection = services.keeper.connection()
    directory = services.layout.container(container.id)
    bundle = services.layout.bundle(container.id)
    pid_file = os.path.join(bundle, "pid") if settings.sandbox else ""
    fds = list(prepared.fds)
    argv = list(prepared.plan.argv)
    if settings.sandbox:
        argv = services.sandboxes.create_argv(container.id, bundle, pid_file, len(fds))
        if services.sandboxes.runtime.closes_extra_descriptors:
            fds.append(done.fileno())
    if prepared.helper:
        fds.append(prepared.helper_fd)
    fds += prepared.streams
    failpoint("start.launching")
    order = Order(
        container.id,
        directory,
        tuple(argv),
        pid_file,
        services.config.console_log_size,
        reaper=services.reaper,
        holds=tuple(str(name) for name in holds(services, container)),
        helper=prepared.helper,
        streams=bool(prepared.streams),
    )
    with timeline.span("sandbox"):
        answer = connection.call(order.message(), fds, seconds=LAUNCH_SECONDS)
    failpoint("start.launched")
    pid = answer.get("pid")
    if not isinstance(pid, int) or pid <= 1:
        raise FailedPrecondition(
            f"the sandbox of {container.name} could not be made: {monitor_said(services, container)}"
        )
    return pid


def await_exec(done: OwnedFd, deadline: float) -> bool:
    """Wait until the monitor has exec'ed, or has died; false: neither in time."""
    left = max(0.0, deadline - time.monotonic())
    return bool(select.select([done.fileno()], [], [], left)[0])


def await_vcpu(services: Services, container: Container, control: Control, deadline: float) -> None:
    """Ask the monitor until it says that its guest's processor runs; one that cannot be asked runs when it has exec'ed.

    An exit before that is a failed start, or a guest that was very quick.
    """
    from unikeel.sandbox import controlling

    try:
        state = controlling.status(
            control, services.layout.container(container.id), max(1.0, deadline - time.monotonic())
        )
    except UnikeelError as error:
        if not _has_exited(services, container):
            raise FailedPrecondition(
                f"the monitor of {container.name} does not answer: {error.message}; it said: {monitor_said(services, container)}"
            ) from error
        if exit_report(services, container) is None:
            raise Unavailable(
                f"the monitor of {container.name} has ended, and the keeper that knew how was killed", "start it again"
            ) from error
        if monitor_failed(services, container):
            raise FailedPrecondition(
                f"the monitor of {container.name} failed: {monitor_said(services, container)}"
            ) from error
        return
    if state not in ("running", "shutdown", "guest-panicked"):
        raise FailedPrecondition(f"the monitor of {container.name} is {state}, not running")


def await_ports(services: Services, container: Container, settings: Settings, deadline: float) -> None:
    """See that the network helper listens: a port that was free when we looked may have been taken by another since."""
    from unikeel.network import user

    while True:
        helper = services.keeper.ask({"op": "helper", "id": container.id})
        if helper.get("failed") is True:
            raise Unavailable(f"the network of {container.name} failed: {monitor_said(services, container)}")
        pid = helper.get("pid")
        if isinstance(pid, int) and pid > 1 and user.serves(settings.ports, pid):
            return
        if exit_report(services, container) is not None:
            return  # a guest that was very quick takes its network along
        if time.monotonic() >= deadline:
            raise DeadlineExceeded(f"the network of {container.name} did not serve its ports in time")
        select.select((), (), (), _LOOK_SECONDS)


def _has_exited(services: Services, container: Container) -> bool:
    """Whether the monitor is gone, giving its exit report a moment to be written."""
    return exit_report(services, container) is not None or wait_for_exit(services, container, _SETTLE_SECONDS)


def monitor_failed(services: Services, container: Container) -> bool:
    """Whether a monitor that has exited did so on its own account: it complained, or died by a signal."""
    report = exit_report(services, container)
    return report is None or report.monitor_failed


def monitor_said(services: Services, container: Container) -> str:
    """The line of the monitor's standard error (or the OCI runtime's) that tells why it failed."""
    from unikeel.engine.services import read_text
    from unikeel.monitors import monitor
    from unikeel.sandbox.runtime import last_line

    text = read_text(os.path.join(services.layout.container(container.id), "monitor.log"))
    settings = Settings.from_json(dict(container.settings))
    complaint = monitor(settings.guest.monitor).complaint(text.encode())
    return last_line(complaint or text)
