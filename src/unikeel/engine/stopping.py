"""Ending a container's run: signals, and stopping politely, then surely."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

from unikeel.engine.clearing import kill_monitor
from unikeel.engine.containers import Container
from unikeel.engine.ending import ENDED, open_process, wait_for_exit
from unikeel.engine.services import Services, read_text
from unikeel.errors import FailedPrecondition, InvalidArgument, UnikeelError
from unikeel.kernel import pidfd
from unikeel.lean import signal
from unikeel.model.plan import Control
from unikeel.model.states import ContainerState
from unikeel.sandbox.lines import Line

#: How long an end that was forced may take to be recorded, in seconds.
SETTLE_SECONDS = 30.0
#: The power button is pressed this often, in seconds.
_PRESS_SECONDS = 2.0
_ASK_SECONDS = 3.0
#: The signals on which QEMU ends, with status 0 as if its guest had powered off.
_ENDING = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM})


def send_signal(services: Services, container: Container, number: int) -> None:
    """Send a signal to the container's monitor. One that ends it is recorded first, since QEMU's status does not tell.

    :raise FailedPrecondition: it is not running. :raise InvalidArgument: no such signal.
    """
    if number not in signal.valid_signals():
        raise InvalidArgument(f"there is no signal {number}")
    process = open_process(container)
    if process is None:
        raise FailedPrecondition(f"container {container.name} is not running")
    with process:
        if number in _ENDING:
            services.containers.update(container.id, reason=f"{ENDED}{number}")
        pidfd.send(process, number)


def stop(
    services: Services,
    container: Container,
    seconds: float,
    wait: Callable[[Services, Container, float | None], bool] = wait_for_exit,
) -> None:
    """Stop a running container: the power button where its guest heeds one, then the monitor's own end where it can be asked, then SIGKILL.

    :param seconds: how long the guest has for an orderly power-off. :param wait: waits as :func:`wait_for_exit`; a caller that has
        something else to do meanwhile brings its own. :raise FailedPrecondition: it is not running.
    """
    if container.state is not ContainerState.RUNNING:
        raise FailedPrecondition(f"container {container.name} is {container.state.value}, not running")
    directory = services.layout.container(container.id)
    plan = json.loads(read_text(os.path.join(directory, "plan.json")) or "{}")
    line = Line(Control(plan.get("control", Control.QMP.value)), directory, container.pid, container.start_time)
    if plan.get("powerdown") and seconds > 0 and _ask(line, politely=True):
        if _powers_off(services, container, line, seconds, wait):
            return
        services.notice(f"{container.name} did not power off in {seconds:g} s: it is ended")
    services.containers.update(container.id, reason=f"{ENDED}{int(signal.SIGKILL)}")
    if _ask(line, politely=False) and wait(services, container, 5.0):
        return
    kill_monitor(services, container)
    wait(services, container, 5.0)


def _powers_off(
    services: Services,
    container: Container,
    line: Line,
    seconds: float,
    wait: Callable[[Services, Container, float | None], bool],
) -> bool:
    """Whether it powers off in time. The button is pressed again and again: a guest that still boots does not heed it."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if wait(services, container, min(left, _PRESS_SECONDS)):
            return True
        _ask(line, politely=True)
    return False


def _ask(line: Line, *, politely: bool) -> bool:
    from unikeel.sandbox import controlling

    try:
        if politely:
            controlling.power_down(line, _ASK_SECONDS)
        else:
            controlling.end(line, _ASK_SECONDS)
    except UnikeelError:
        return False
    return True
