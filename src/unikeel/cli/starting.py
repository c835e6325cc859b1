"""What ``run`` and ``start`` share: starting a container, its console in the foreground, the timeline's file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from unikeel.cli.failures import Interrupted, say
from unikeel.cli.options import FILES, Option
from unikeel.engine import console
from unikeel.errors import InvalidArgument, UnikeelError
from unikeel.lean import TYPE_CHECKING, Final, Self, signal

if TYPE_CHECKING:
    from unikeel.cli.options import Parsed
    from unikeel.engine.engine import Engine
    from unikeel.engine.handle import Container
    from unikeel.engine.timeline import Timeline

READY: Final = Option(("--ready",), "wait until the guest is ready: first-output, console:REGEX or port:N", "CRITERION")
TIMEOUT: Final = Option(("--timeout",), "how long the start may take, in seconds, until ready with --ready", "SECONDS")
TIMELINE: Final = Option(("--timeline",), "write the steps of the start to FILE, as JSON", "FILE", complete=FILES)

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, SIGINT, SIGTERM and SIGHUP raise :class:`Interrupted`, so that what was begun is undone before we go."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    before = [(number, signal.signal(number, interrupt)) for number in _ENDING]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


class TimelineFile:
    """The file of ``--timeline``: opened before anything is done, so that a wrong path does not cost a start."""

    def __init__(self, path: str) -> None:
        self._fd = -1
        if not path:
            return
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise InvalidArgument(f"--timeline: {path!r} cannot be written: {error.strerror}") from None

    def write(self, timeline: Timeline) -> None:
        """Put the steps in place of what is in the file."""
        if self._fd < 0:
            return
        import json

        data = (json.dumps(timeline.to_json(), indent=1) + "\n").encode()
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, data, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def start(container: Container, parsed: Parsed, timeline: Timeline, file: TimelineFile) -> None:
    """Start a container as the options say. Raises as :meth:`Container.start`; the timeline is written all the same."""
    try:
        container.start(ready=parsed.text("ready"), seconds=parsed.seconds("timeout"), timeline=timeline)
    finally:
        file.write(timeline)


def foreground(engine: Engine, container: Container, offset: int, timeline: Timeline, file: TimelineFile) -> int:
    """Be the running guest's console until it ends; its exit code.

    :param offset: where in the console's log this run begins.
    """
    from unikeel.engine.attach import attach

    began = time.monotonic_ns()

    def note() -> None:
        timeline.add("first-output", began, time.monotonic_ns())
        container.save_timeline(timeline)
        file.write(timeline)

    attach(engine.services, container.id, offset, note)
    return container.wait()


def log_size(container: Container) -> int:
    """How much the guest has printed up to now: where the next run's output begins."""
    return console.size(container.console_log)


def give_up(container: Container, *, remove: bool) -> None:
    """A start did not succeed, or we are to go: end what runs of it; with ``remove`` take the container away, too.

    One that another command has started runs on. What fails here is told, and left to the next command.
    """
    from unikeel.model.states import ContainerState

    try:
        state = container.refresh().state
        if state in (ContainerState.STARTING, ContainerState.RUNNING) and not container.is_ours:
            return
        if state is ContainerState.RUNNING:
            container.stop(0)
        if remove:
            container.remove()
    except UnikeelError as error:
        say(str(error))
