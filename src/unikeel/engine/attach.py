"""Being a running guest's console: standard input goes to it, what it prints comes to standard output.

What is printed is read from ``console.log``, so that whatever happens to us, to a slow reader or to a closed pipe, neither the guest nor its
log notices. Input goes by a copy of the console's descriptor, which the keeper hands out. Signals come as bytes in a pipe::

    SIGINT, SIGTERM, SIGHUP   the first: stop the guest as ``unikeel stop`` does, and go on printing; the second: kill it
    SIGCONT                   set the terminal again, which the shell has set back while we were stopped

A terminal is in cbreak mode without echo meanwhile (the guest echoes), and is set back however this ends.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from contextlib import ExitStack

from unikeel.engine import stopping, terminal
from unikeel.engine.console import ConsoleReader, size
from unikeel.engine.reconcile import reconcile
from unikeel.errors import Internal, Unavailable
from unikeel.kernel.fd import OwnedFd
from unikeel.lean import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from unikeel.engine.containers import Container
    from unikeel.engine.services import Services
    from unikeel.keeper.client import Connection

#: A pipe that is ready takes this much without blocking (PIPE_BUF).
_PIECE: Final = 4096
#: How many keepers it sees killed at the same request before it gives up.
_REPLACED: Final = 4
_GONE: Final = select.POLLERR | select.POLLHUP | select.POLLNVAL


class _AnotherSignal(Exception):
    """The user does not want to wait for a polite end."""


def attach(
    services: Services,
    ident: str,
    offset: int,
    first_output: Callable[[], None] = lambda: None,
    *,
    stdin: int = 0,
    stdout: int = 1,
) -> None:
    """Be a container's console until its run ends. Returns at once, with the rest of the output, if it has ended already.

    :param offset: where in ``console.log`` its run begins. :param first_output: called when the first bytes have come.
    :raise NotFound: there is no such container.
    """
    with ExitStack() as stack:
        signals = stack.enter_context(terminal.signals())
        stack.enter_context(terminal.by_character(stdin))
        attachment = _Attachment(services, ident, offset, first_output, signals, stdout)
        stack.callback(attachment.close)
        attachment.forward(stdin)
        attachment.run()


class _Attachment:
    """The state of one attachment; a single loop over poll, in which nothing blocks."""

    def __init__(
        self,
        services: Services,
        ident: str,
        offset: int,
        first_output: Callable[[], None],
        signals: int,
        stdout: int,
    ) -> None:
        self._services = services
        self._container = services.containers.get(ident)
        path = os.path.join(services.layout.container(ident), "console.log")
        self._log = ConsoleReader(path, offset if offset <= size(path) else 0)
        self._first_output: Callable[[], None] | None = first_output
        self._signals = signals
        self._ending = 0
        self._stdout = stdout
        self._output = b""
        self._stdin = -1
        self._input = b""
        self._console = OwnedFd(-1)
        self._connection: Connection | None = None
        self._running = False

    def forward(self, stdin: int) -> None:
        """Forward a descriptor's content to the console from now on, if it is open, and, a terminal, ours."""
        try:
            ours = not os.isatty(stdin) or os.tcgetpgrp(stdin) == os.getpgrp()
            os.fstat(stdin)
        except OSError:
            return
        self._stdin = stdin if ours else -1

    def run(self) -> None:
        """Until the run has ended and everything it printed is written."""
        self._connect()
        while self._running:
            try:
                if not self._ending:
                    self._pump(None)
                if self._ending and self._running:
                    self._stop()
            except _AnotherSignal:
                continue
        self._flush()

    def close(self) -> None:
        """Let go of everything."""
        self._log.close()
        self._console.close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # -- the keeper ------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        """Watch the container; should the keeper be killed over it, by the next one, which has adopted the monitor."""
        for _ in range(_REPLACED):
            try:
                return self._watch()
            except Unavailable:
                if self._connection is not None:
                    self._connection.close()
                reconcile(self._services)
        raise Unavailable(f"{_REPLACED} keepers were killed one after the other", "run the command again")

    def _watch(self) -> None:
        """Ask for the console's descriptor first, since events come on the connection afterwards."""
        connection = self._services.keeper.connect()
        self._connection = connection
        self._console.close()
        try:
            _, fds = connection.call_with_fds({"op": "input", "id": self._container.id})
            self._console = OwnedFd(fds[0]) if fds else OwnedFd(-1)
        except Internal:  # no console: it has ended, or has closed it
            self._stdin = -1
        self._running = connection.call({"op": "watch", "id": self._container.id}).get("running") is True

    def _event(self) -> None:
        assert self._connection is not None
        try:
            event = self._connection.event(0)
        except Unavailable:
            self._connection.close()
            reconcile(self._services)  # a new keeper adopts the monitor, if it lives
            self._connect()
            return
        if event is not None and event.get("event") == "exit":
            self._running = False

    # -- the loop --------------------------------------------------------------------------------------------------

    def _pump(self, deadline: float | None) -> bool:
        """Move bytes until the run ends (True), the time is up, or a signal wants the end.

        :raise _AnotherSignal: the user wants it now.
        """
        while self._running:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            before = self._ending
            self._once(left)
            if self._ending > before:
                if self._ending > 1:
                    raise _AnotherSignal
                return False
        return True

    def _once(self, seconds: float | None) -> None:
        """Wait for one thing to happen, and deal with all that did."""
        assert self._connection is not None
        self._refill()
        poll = select.poll()
        poll.register(self._connection.fileno(), select.POLLIN)
        poll.register(self._signals, select.POLLIN)
        if self._output:
            poll.register(self._stdout, select.POLLOUT)
        if self._input and self._console.fileno() >= 0:
            poll.register(self._console.fileno(), select.POLLOUT)
        elif self._stdin >= 0:
            poll.register(self._stdin, select.POLLIN)
        ready = dict(poll.poll(None if seconds is None else max(1, int(seconds * 1000))))
        if self._signals in ready:
            self._ending += len(os.read(self._signals, 16))
        if self._stdout in ready and self._output:
            self._write(ready[self._stdout])
        if self._console.fileno() in ready and self._input:
            self._send()
        if self._stdin in ready:
            self._take(ready[self._stdin])
        if self._connection.fileno() in ready:
            self._event()

    def _refill(self) -> None:
        """Have something to write, if there is anything; where nobody reads it any more, there never is."""
        while not self._output:
            self._output = self._log.read()
            if not self._output:
                return
            if self._first_output is not None:
                note, self._first_output = self._first_output, None
                note()
            if self._stdout < 0:
                self._output = b""

    def _write(self, events: int) -> None:
        """Some of the output; where nobody reads it any more, it is dropped from now on: the log has it."""
        try:
            if events & _GONE and not events & select.POLLOUT:
                raise BrokenPipeError
            self._output = self._output[os.write(self._stdout, self._output[:_PIECE]) :]
        except BlockingIOError:
            return
        except OSError:
            self._stdout = -1
            self._output = b""

    def _flush(self) -> None:
        """The rest of the output, however long its reader takes; a signal ends that."""
        while True:
            self._refill()
            if not self._output:
                return
            poll = select.poll()
            poll.register(self._stdout, select.POLLOUT)
            poll.register(self._signals, select.POLLIN)
            ready = dict(poll.poll())
            if self._signals in ready:
                return
            self._write(ready.get(self._stdout, 0))

    def _take(self, events: int) -> None:
        """What was typed. At the end of input forwarding stops, and nothing else."""
        try:
            data = os.read(self._stdin, _PIECE) if not events & select.POLLNVAL else b""
        except OSError:
            data = b""
        if not data:
            self._stdin = -1
        self._input = data

    def _send(self) -> None:
        try:
            self._input = self._input[os.write(self._console.fileno(), self._input) :]
        except BlockingIOError:
            return
        except OSError:  # the guest's console is gone; its end will be told soon
            self._input, self._stdin = b"", -1

    # -- ending the guest --------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """As ``unikeel stop``, except that we go on printing while it waits; at once if that was not soon enough for the user."""
        from unikeel.errors import FailedPrecondition

        seconds = 0.0
        if self._ending == 1:
            seconds = self._services.config.stop_timeout
            self._services.notice(f"stopping {self._container.name}; once more kills it")
        try:
            stopping.stop(self._services, self._container, seconds, wait=self._wait)
        except FailedPrecondition:  # it has just ended by itself
            self._pump(time.monotonic() + stopping.SETTLE_SECONDS)
        self._ending += 1

    def _wait(self, _services: Services, _container: Container, seconds: float | None) -> bool:
        return self._pump(None if seconds is None else time.monotonic() + seconds)
