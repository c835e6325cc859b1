"""One container, as the users of the API hold it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from unikeel.engine import console, ending
from unikeel.engine.containers import Container as Record
from unikeel.engine.services import Services, read_text
from unikeel.engine.settings import Settings
from unikeel.engine.timeline import Timeline
from unikeel.errors import DeadlineExceeded, FailedPrecondition, NotFound
from unikeel.lean import signal
from unikeel.model.states import ContainerState


class Container:
    """A handle: it keeps an id, and looks everything else up when asked, so that it is never stale."""

    def __init__(self, services: Services, ident: str) -> None:
        self._services = services
        self.id = ident

    @property
    def record(self) -> Record:
        """What is recorded of it now. :raise NotFound: it was removed."""
        return self._services.containers.get(self.id)

    @property
    def name(self) -> str:
        """Its name."""
        return self.record.name

    @property
    def state(self) -> ContainerState:
        """Where it is in its life; a guest that has just ended counts as running until somebody has looked (:meth:`refresh`)."""
        return self.record.state

    @property
    def exit_code(self) -> int | None:
        """The guest's exit code in its last run; ``None`` while there is none."""
        return self.record.exit_code

    @property
    def is_ours(self) -> bool:
        """Whether this engine made or started it, and has not let go of it since (:meth:`detach`)."""
        return self.record.owner == self._services.owner.token

    @property
    def directory(self) -> str:
        """Where its logs and control sockets are."""
        return self._services.layout.container(self.id)

    @property
    def console_log(self) -> str:
        """The file that the guest's console is written to."""
        return os.path.join(self.directory, "console.log")

    # -- the life ------------------------------------------------------------------------------------------------

    def start(self, *, ready: str = "", seconds: float | None = None, timeline: Timeline | None = None) -> None:
        """Start it; its monitor's processor runs when this returns, and with ``ready`` its guest is ready, too.

        :param ready: ``first-output``, ``console:REGEX``, ``port:N``, or empty: do not wait for the guest.
        :param seconds: how long all of it may take; the configuration's ``start.timeout`` if ``None``.
        :param timeline: where the steps go, when the caller began to count before.
        :raise FailedPrecondition: it is not in a state to be started, its monitor failed (it is then as it was before), or its guest
            ended before it was ready. :raise DeadlineExceeded: not in time; a guest that was not ready in time still runs.
        :raise InvalidArgument: ``ready`` is not of that form. :raise UnikeelError: as the boot files and the sandbox raise.
        """
        import time

        from unikeel.engine.starting import claim, start

        limit = self._services.config.start_timeout if seconds is None else seconds
        deadline = time.monotonic() + limit
        timeline = Timeline() if timeline is None else timeline
        record = self.record
        criterion = None
        if ready:
            from unikeel.engine import ready as readiness

            criterion = readiness.parse(ready)
            readiness.check(criterion, Settings.from_json(dict(record.settings)).ports)
        offset = console.size(self.console_log)
        record = claim(self._services, record, timeline)
        try:
            record = start(self._services, record, timeline, limit)
            if criterion is not None:
                with timeline.span("ready", criterion=ready):
                    left = max(0.0, deadline - time.monotonic())
                    readiness.wait_ready(self._services, record, criterion, offset, left)
        finally:
            self.save_timeline(timeline)

    def wait(self, seconds: float | None = None) -> int:
        """Wait for the end of its run; the guest's exit code. As many as like may wait.

        :raise DeadlineExceeded: it still runs when the time is up. :raise FailedPrecondition: it has not run, or its last start failed.
        :raise NotFound: it was removed meanwhile.
        """
        record = self.record
        if record.state is ContainerState.RUNNING:
            if not ending.wait_for_exit(self._services, record, seconds):
                raise DeadlineExceeded(f"container {record.name} still runs after {seconds or 0:g} s")
            report = ending.exit_report(self._services, record)
            collected = self._collect(record)
            if collected.runs != record.runs or collected.state is not ContainerState.EXITED:
                return ending.UNKNOWN_EXIT if report is None else report.code  # it has been started again already
            record = collected
        if record.state is not ContainerState.EXITED or record.exit_code is None:
            raise FailedPrecondition(f"container {record.name} is {record.state.value}: it has not run", "start it")
        return record.exit_code

    def refresh(self) -> Record:
        """Take note of an end that nobody has looked at yet; what is recorded then."""
        record = self.record
        if record.state is ContainerState.RUNNING and ending.exit_report(self._services, record) is not None:
            return self._collect(record)
        return record

    def _collect(self, record: Record) -> Record:
        from unikeel.engine.removing import collect  # once the guest runs: its start does not wait for it

        return collect(self._services, record)

    def stop(self, seconds: float | None = None) -> int:
        """End its run: politely where the guest heeds a power button, then surely. Its exit code.

        :param seconds: for the polite way; the configuration's ``stop.timeout`` if ``None``. :raise FailedPrecondition: it does not run.
        """
        from unikeel.engine import stopping

        stopping.stop(
            self._services, self.refresh(), self._services.config.stop_timeout if seconds is None else seconds
        )
        return self.wait(stopping.SETTLE_SECONDS)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send its monitor a signal. :raise FailedPrecondition: it does not run. :raise InvalidArgument: no such signal."""
        from unikeel.engine.stopping import send_signal

        send_signal(self._services, self.record, number)

    def remove(self, *, force: bool = False) -> None:
        """Remove it, with its snapshot, its hold on boot files and its logs.

        :param force: end it first if it runs; if another command removes it meanwhile (the keeper's does, after its run with ``--rm``), wait for that.
        :raise FailedPrecondition: it runs, or another command works on it.
        """
        from unikeel.engine import stopping
        from unikeel.engine.removing import remove, wait_until_gone

        try:
            record = self.refresh()
            if force and record.state is ContainerState.RUNNING:
                stopping.stop(self._services, record, 0)
                self.wait(stopping.SETTLE_SECONDS)
                record = self.record
            remove(self._services, record)
        except (FailedPrecondition, NotFound):
            if not force or not wait_until_gone(self._services, self.id, stopping.SETTLE_SECONDS):
                raise

    def detach(self) -> None:
        """Its starter will not wait for its end: from now on the keeper sees to that. One that is to be removed, and has ended already, is."""
        self._services.containers.update(self.id, owner="")
        try:
            record = self.refresh()
            if record.auto_remove and record.state is ContainerState.EXITED:
                from unikeel.engine.removing import remove

                remove(self._services, record)
        except (FailedPrecondition, NotFound):
            return  # the keeper's own command was as quick

    # -- looking ---------------------------------------------------------------------------------------------------

    def logs(self) -> Iterator[bytes]:
        """What its guest has printed so far, the kept part of it, the oldest first."""
        for path in (self.console_log + ".1", self.console_log):
            with console.ConsoleReader(path) as reader:
                while data := reader.read():
                    yield data

    def follow(self) -> Iterator[bytes]:
        """What its guest prints from now on, as it comes, until its run ends."""
        yield from console.follow(self._services, self.id, console.size(self.console_log))

    def timeline(self) -> Timeline:
        """The steps of its last start. :raise NotFound: it was never started."""
        text = read_text(os.path.join(self.directory, "timeline.json"), 16 << 20)
        if not text:
            raise NotFound(f"container {self.name} was never started: it has no timeline")
        return Timeline.from_json(json.loads(text))

    def save_timeline(self, timeline: Timeline) -> None:
        """Keep the steps of a start. What is kept is of the start that was saved last."""
        path = os.path.join(self.directory, "timeline.json")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(timeline.to_json(), file)

    def inspect(self) -> dict[str, object]:
        """Everything that is known of it, as JSON values."""
        from unikeel.engine.inspecting import describe

        return describe(self._services, self.refresh())
