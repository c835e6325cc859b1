"""When a guest counts as ready: ``first-output``, ``console:REGEX``, or ``port:N``.

Readiness is proven by the guest: something it printed, or an answer that it sent. For a port the proof is bytes that come back: the user-mode
network accepts connections on the guest's behalf, so that an accepted connection says nothing. The probe sends ``HEAD / HTTP/1.0``
if the server does not speak first; any reply counts.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

from unikeel.engine.console import ConsoleReader
from unikeel.engine.containers import Container
from unikeel.engine.ending import adopt, exit_report, process_lives
from unikeel.engine.services import Services
from unikeel.engine.settings import Settings
from unikeel.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, Unavailable
from unikeel.lean import Self, socket
from unikeel.network.ports import Port
from unikeel.values import NamedTuple

_HINT = "use first-output, console:REGEX or port:N"
_KEPT = 64 * 1024
#: A new connection to a port is tried this often, in seconds, and kept for as long as this many later ones come.
_KNOCK_SECONDS = 0.05
_KNOCKS = 100


class Ready(NamedTuple):
    """A criterion: ``kind`` is ``first-output``, ``console`` or ``port``; ``value`` the regular expression or the guest's port."""

    kind: str
    value: str


def parse(text: str) -> Ready:
    """A ``--ready`` value. :raise InvalidArgument: it is none of the three, or its expression or port is wrong."""
    kind, _, value = text.partition(":")
    if text == "first-output":
        return Ready(text, "")
    if kind == "console" and value:
        import re

        try:
            re.compile(value.encode())
        except re.error as error:
            raise InvalidArgument(f"{value!r} is not a regular expression: {error}", _HINT) from None
        return Ready(kind, value)
    if kind == "port" and value.isascii() and value.isdigit() and 1 <= int(value) <= 65535:
        return Ready(kind, value)
    raise InvalidArgument(f"{text!r} is not a way to tell readiness", _HINT)


def check(ready: Ready, ports: tuple[Port, ...]) -> None:
    """:raise InvalidArgument: readiness by a port that is not published."""
    if ready.kind == "port" and not any((port.guest, port.protocol) == (int(ready.value), "tcp") for port in ports):
        raise InvalidArgument(f"port {ready.value} of the guest is not published", f"add -p HOST:{ready.value}")


def wait_ready(services: Services, container: Container, ready: Ready, offset: int, seconds: float) -> None:
    """Wait until the guest is ready.

    :param offset: where the console log of this run begins. :raise DeadlineExceeded: it is not in time.
    :raise FailedPrecondition: it ended before.
    """
    deadline = time.monotonic() + seconds
    if ready.kind == "port":
        _wait_port(services, container, int(ready.value), deadline)
        return
    if ready.kind == "first-output":
        _wait_console(services, container, offset, deadline, bool)
        return
    import re

    pattern = re.compile(ready.value.encode())
    _wait_console(services, container, offset, deadline, lambda text: pattern.search(text) is not None)


def _late(container: Container) -> DeadlineExceeded:
    return DeadlineExceeded(f"container {container.name} was not ready in time", "give it longer with --timeout")


def _ended(container: Container) -> FailedPrecondition:
    hint = "without --rm its log is kept" if container.auto_remove else f"`unikeel logs {container.name}` shows why"
    return FailedPrecondition(f"container {container.name} ended before it was ready", hint)


def _wait_console(
    services: Services, container: Container, offset: int, deadline: float, done: Callable[[bytes], bool]
) -> None:
    path = os.path.join(services.layout.container(container.id), "console.log")
    seen = b""
    with ConsoleReader(path, offset) as reader:

        def is_done() -> bool:
            nonlocal seen
            while data := reader.read():
                seen = (seen + data)[-_KEPT:]
            return done(seen)

        while not _watch(services, container, deadline, is_done):
            # The keeper was killed: unless the guest has ended, too, a new one takes over.
            if exit_report(services, container) is None and process_lives(container):
                adopt(services, container)


def _watch(services: Services, container: Container, deadline: float, is_done: Callable[[], bool]) -> bool:
    """Wait on one connection; False when the keeper goes away under it. :raise FailedPrecondition: the guest has ended."""
    connection, running = services.keeper.watch(container.id)
    with connection:
        while True:
            if is_done():
                return True
            if not running:
                if exit_report(services, container) is None and process_lives(container):
                    return False
                raise _ended(container)
            left = deadline - time.monotonic()
            if left <= 0:
                raise _late(container)
            try:
                event = connection.event(left)
            except Unavailable:
                return False
            running = event is None or event.get("event") != "exit"


def _wait_port(services: Services, container: Container, guest_port: int, deadline: float) -> None:
    ports = Settings.from_json(dict(container.settings)).ports
    port = next(port for port in ports if (port.guest, port.protocol) == (guest_port, "tcp"))
    with _Knocking((port.address or "127.0.0.1", port.host)) as knocking:
        while time.monotonic() < deadline:
            if exit_report(services, container) is not None or not process_lives(container):
                raise _ended(container)
            if knocking.is_answered(min(_KNOCK_SECONDS, max(0.0, deadline - time.monotonic()))):
                return
    raise _late(container)


class _Knocking:
    """Connections to a port, a new one at each look, each with a request, kept for as long as a slow server may take to answer.

    Several at once, because the network takes connections before the guest listens: those are never answered.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._open: list[socket.socket] = []

    def is_answered(self, seconds: float) -> bool:
        """Knock once more, and wait for any answer."""
        self._knock()
        poll = select.poll()
        waiting = {connection.fileno(): connection for connection in self._open}
        for fd in waiting:
            poll.register(fd, select.POLLIN)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for fd, _ in poll.poll(left * 1000):
                if self._has_bytes(waiting[fd]):
                    return True
                poll.unregister(fd)
        return False

    def _knock(self) -> None:
        if len(self._open) == _KNOCKS:
            self._open.pop(0).close()
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        connection.settimeout(_KNOCK_SECONDS)
        try:
            connection.connect(self._address)
            connection.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
        except OSError:
            connection.close()
        else:
            self._open.append(connection)

    def _has_bytes(self, connection: socket.socket) -> bool:
        """Whether it was answered; one that was closed instead is forgotten."""
        try:
            if connection.recv(1):
                return True
        except OSError:
            pass
        self._open.remove(connection)
        connection.close()
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._open:
            connection.close()
