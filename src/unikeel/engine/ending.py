"""How a run ends and how that becomes known: the keeper's report, waiting for it, and a keeper that was killed meanwhile.

The keeper is the monitor's parent and writes ``exit.json``. Should it be killed, whoever waits starts another one, which adopts the monitor; if the
monitor ends while there is none, whoever waited has a pidfd, by which the kernel (Linux 6.15) still tells the status.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack

from unikeel.engine.services import Services, read_text
from unikeel.engine.settings import Settings
from unikeel.errors import Internal, NotFound, Unavailable, UnikeelError
from unikeel.keeper.wire import UNSERVED
from unikeel.kernel import pidfd
from unikeel.kernel.fd import OwnedFd
from unikeel.lean import TYPE_CHECKING, Final, Protocol
from unikeel.model.plan import ExitRule, decode_exit
from unikeel.records.owners import boot_id, start_time
from unikeel.sandbox.sockets import console_path
from unikeel.values import NamedTuple

if TYPE_CHECKING:
    from unikeel.engine.containers import Container
    from unikeel.keeper.client import Connection
    from unikeel.keeper.wire import Json

#: The exit code of a container whose status nobody could know: the keeper had been killed and the kernel does not tell.
UNKNOWN_EXIT: Final = 255
#: What the record says of a run that we ended, before the signal that it counts as: its exit code is 128 and that signal's number.
ENDED: Final = "ended by signal "
_UNKNOWN: Final = "the exit status is unknown: the keeper had been killed"
_REAP_SECONDS: Final = 5.0


class ExitReport(NamedTuple):
    """How a run ended: the guest's exit code, why if there is more to say, when (ns since the epoch)."""

    code: int
    reason: str
    when_ns: int
    monitor_failed: bool


class Monitored(Protocol):
    """What has a monitor: a container's record, or a task's."""

    @property
    def pid(self) -> int: ...

    @property
    def start_time(self) -> int: ...

    @property
    def boot_id(self) -> str: ...


def exit_report(services: Services, container: Container) -> ExitReport | None:
    """What the keeper wrote about the end of the present run; ``None`` while there is nothing."""
    directory = services.layout.container(container.id)
    if not os.path.exists(os.path.join(directory, "exit.json")):
        return None
    settings = Settings.from_json(dict(container.settings))
    ended = services.containers.get(container.id).reason
    by = int(ended.removeprefix(ENDED)) if ended.startswith(ENDED) else 0
    return read_report(directory, settings.guest.monitor, by)


def read_report(directory: str, monitor: str, ended_by: int) -> ExitReport | None:
    """What the keeper wrote into a monitor's directory about its end; ``None`` while there is nothing.

    :param ended_by: the signal that we sent to end it, or 0.
    """
    text = read_text(os.path.join(directory, "exit.json"))
    if not text:
        return None
    report = json.loads(text)
    if report["status"] is None and ended_by:
        # Nobody saw how, but it lived when it was sent a signal that ends it.
        return ExitReport(128 + ended_by, f"{ENDED}{ended_by}", report["when"], monitor_failed=False)
    if report["status"] is None:
        return ExitReport(UNKNOWN_EXIT, _UNKNOWN, report["when"], monitor_failed=True)
    said = complaint(directory, monitor)
    status = os.waitstatus_to_exitcode(report["status"])
    plan = json.loads(read_text(os.path.join(directory, "plan.json")) or "{}")
    rule = ExitRule(plan.get("exit", ExitRule.SAME.value))
    code = decode_exit(rule, status, stderr_empty=not said)
    if ended_by and status <= 0:
        # QEMU ends with status 0 when it is asked to; another status means that the guest or QEMU came first.
        return ExitReport(128 + ended_by, f"{ENDED}{ended_by}", report["when"], monitor_failed=False)
    failed = status < 0 or (bool(said) and status != 0)
    reason = ""
    if failed:
        reason = f"the monitor failed: {said}"
        if status < 0:
            reason = UNSERVED if said == UNSERVED else f"killed by signal {-status}"
    return ExitReport(code, reason, report["when"], failed)


def complaint(directory: str, monitor: str) -> str:
    """The line of a monitor's standard error that tells why it failed; empty if it holds only remarks."""
    from unikeel.monitors import monitor as find

    return find(monitor).complaint(read_text(os.path.join(directory, "monitor.log")).encode())


# -- the process ---------------------------------------------------------------------------------------------------------


def process_lives(container: Monitored) -> bool:
    """Whether the recorded monitor process is there, and is that one and no later one with its number."""
    return (
        container.pid > 1 and container.boot_id == boot_id() and start_time(container.pid) == container.start_time != 0
    )


def open_process(container: Monitored) -> OwnedFd | None:
    """A pidfd of the recorded monitor; ``None`` if it is gone. The start time is checked after the pidfd is open."""
    if container.pid <= 1:
        return None
    try:
        process = pidfd.open_pid(container.pid)
    except (OSError, UnikeelError):
        return None
    if process_lives(container):
        return process
    process.close()
    return None


def adopt(services: Services, container: Container) -> bool:
    """Have the keeper take over a running monitor that no keeper keeps; False if it has just ended. One that is kept already is fine."""
    directory = services.layout.container(container.id)
    try:
        services.keeper.ask(
            {
                "op": "adopt",
                "id": container.id,
                "directory": directory,
                "console": console_path(directory),
                "pid": container.pid,
                "start_time": container.start_time,
                "log_limit": services.config.console_log_size,
                "reaper": list(services.reaper),
                "holds": holds(services, container),
            }
        )
    except Internal:
        if process_lives(container):
            raise
        return False
    return True


def holds(services: Services, container: Container) -> list[Json]:
    """The names of what the keeper must hold for as long as the container runs."""
    try:
        return [f"view:{services.parent(container.parent).key}"]
    except NotFound:  # the image was removed by force, with its snapshot
        return []


# -- waiting -------------------------------------------------------------------------------------------------------------


def wait_for_exit(services: Services, container: Container, seconds: float | None) -> bool:
    """Wait until the monitor is gone and it is written how; False when the time is up first.

    True without a report (:func:`exit_report`) means that nobody can know any more how it ended.
    """
    if exit_report(services, container) is not None:
        return True
    deadline = None if seconds is None else time.monotonic() + seconds
    container = services.containers.get(container.id)
    with ExitStack() as stack:
        process = open_process(container)
        if process is not None:
            stack.enter_context(process)
        while exit_report(services, container) is None:
            if deadline is not None and time.monotonic() >= deadline:
                return False
            if not _await_news(services, container, deadline):
                return _tell_end(services, container, process)
    return True


def _await_news(services: Services, container: Container, deadline: float | None) -> bool:
    """Wait until something has changed; False if the monitor is gone and no keeper knows how it ended."""
    connection, running = services.keeper.watch(container.id)
    with connection:
        if running:
            _await_event(connection, deadline)
            return True
    if exit_report(services, container) is not None:
        return True
    if container.pid <= 1:  # not known yet, or made by a keeper that is gone: whoever starts it sees to that
        return False
    return adopt(services, container)


def _await_event(connection: Connection, deadline: float | None) -> None:
    """Events until the exit, the deadline, or the loss of the keeper."""
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            message = connection.event(left)
        except Unavailable:
            return
        if message is None or message.get("event") == "exit":
            return


def _tell_end(services: Services, container: Container, process: OwnedFd | None) -> bool:
    """A monitor ended while no keeper kept it: write what the kernel tells by our pidfd, if it does."""
    if process is None or not pidfd.wait_exit(process, 0):
        return not process_lives(container)
    poll_end = time.monotonic() + _REAP_SECONDS
    info = pidfd.exit_info(process)
    while info is None and time.monotonic() < poll_end and _still_zombie(process):
        info = pidfd.exit_info(process)
    if info is not None and exit_report(services, container) is None:
        status = info.signal or info.code << 8
        _write_report(services, container, status)
    return True


def _still_zombie(process: OwnedFd) -> bool:
    """Wait a moment for its new parent to reap a dead process (a pidfd hangs up then); False if that has happened."""
    import select

    poll = select.poll()
    poll.register(process, 0)
    return not poll.poll(100)


def _write_report(services: Services, container: Container, status: int) -> None:
    path = os.path.join(services.layout.container(container.id), "exit.json")
    temporary = f"{path}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump({"pid": container.pid, "status": status, "when": time.time_ns()}, file)
        file.flush()
        os.fsync(fd)
    os.replace(temporary, path)
