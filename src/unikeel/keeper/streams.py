"""The standard streams of all tasks, from their launch on until all is written, however long their monitors are gone; and logging programs."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial

from unikeel.keeper import wire
from unikeel.keeper.children import Children
from unikeel.keeper.failpoint import failpoint
from unikeel.keeper.loop import Loop, say
from unikeel.keeper.stdio import NAMES, Stdio
from unikeel.keeper.systemd import STORED, Manager
from unikeel.keeper.wire import strings


def stored(ident: str, part: str) -> str:
    """The name under which the service manager keeps a descriptor of a monitor."""
    return f"{STORED}.o.{ident}.{part}"


class Streams:
    """All of them, by container."""

    def __init__(self, loop: Loop, children: Children, manager: Manager) -> None:
        self._loop = loop
        self._manager = manager
        self._children = children
        self._all: dict[str, Stdio] = {}

    def __len__(self) -> int:
        return len(self._all)

    def attach(
        self, ident: str, names: list[str], fds: list[int], changed: Callable[[], None]
    ) -> tuple[Stdio | None, list[int]]:
        """The streams for the last descriptors, one for each name, and the descriptors that are left. What an earlier run has not written yet is closed.

        :param changed: called when what is to be waited for may be another. :raise ValueError: names and descriptors do not fit.
        """
        if not names:
            return None, fds
        self.close(ident)
        count = len(fds) - len(names)

        def done() -> None:
            if self._all.get(ident) is stdio:
                del self._all[ident]

        stdio = Stdio(self._loop, names, fds[max(0, count) :], done)
        self._all[ident] = stdio
        # The service manager keeps copies, so that whoever reads or writes at the other ends does not see the end of a keeper that is killed.
        for name, fd in zip(names, fds[max(0, count) :], strict=True):
            self._manager.put(stored(ident, name), fd)
        for name, stream in zip(NAMES, (stdio.stdin, stdio.stdout, stdio.stderr), strict=True):
            if stream is not None:
                stream.changed = changed
                stream.gone = partial(self._manager.remove, stored(ident, name))
        return stdio, fds[:count]

    def close(self, ident: str) -> None:
        """Write what fits, and close; a container that has none is fine."""
        stdio = self._all.get(ident)
        if stdio is not None:
            stdio.close()

    # -- requests --------------------------------------------------------------------------------------------------

    def close_input(self, connection: socket.socket, message: wire.Message, _fds: list[int]) -> None:
        """Nobody types any more: what has been typed goes to the guest, and then nothing."""
        stdio = self._all.get(str(message["id"]))
        if stdio is not None and stdio.stdin is not None:
            stdio.stdin.finish()
        failpoint("keeper.close-input")
        self._loop.answer(connection, {"ok": True})

    def logger(self, connection: socket.socket, message: wire.Message, fds: list[int]) -> None:
        """Start a logging program: it reads output from 3 and errors from 4, and closes 5 when it is ready."""
        ident, given = str(message["id"]), message.get("environment", {})
        if len(fds) != 3 or not isinstance(given, dict):
            raise ValueError("a logging program gets three descriptors and an environment")

        def ended(status: int) -> None:
            if status != 0:
                say(f"the logging program of {ident} ended with status {os.waitstatus_to_exitcode(status)}")

        failpoint("keeper.logger.begin")
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            environment = {name: str(value) for name, value in given.items()}
            pid = self._children.start(strings(message, "argv"), fds, null, ended, environment=environment)
        finally:
            os.close(null)
        failpoint("keeper.logger.started")
        self._loop.answer(connection, {"ok": True, "pid": pid})
