"""Fifos for a task's input and output, as a client of containerd makes them: the shim opens the other ends.

The output is at its end when the shim has closed its ends, which is after the process has ended. The ends of the input
are opened for both directions until the shim has it open, because a fifo without a reader cannot be opened for writing.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from contextlib import suppress
from typing import Final, Self

from unikeel.containerd.records import Stdio
from unikeel.errors import FailedPrecondition, Unavailable

#: How much output is held that nobody has read; then the task waits.
_HELD: Final = 1 << 20


class Fifos:
    """Input and output of one process; an asynchronous context manager that removes the fifos at its end.

    :param stdin: whether there is an input. :param terminal: whether the process has a terminal, and so no standard error
        of its own. :param directory: where a directory for the fifos is made; by default where temporary files are.
    """

    def __init__(self, *, stdin: bool = False, terminal: bool = False, directory: str | None = None) -> None:
        self._base = directory
        self._terminal = terminal
        self._names = [*(["stdin"] if stdin else []), "stdout", *([] if terminal else ["stderr"])]
        self._directory = ""
        self._input = -1
        self._readers: dict[str, asyncio.StreamReader] = {}
        self._transports: list[asyncio.ReadTransport] = []

    async def __aenter__(self) -> Self:
        try:
            self._directory = tempfile.mkdtemp(prefix="unikeel-fifo-", dir=self._base)
            for name in self._names:
                path = self._path(name)
                os.mkfifo(path, 0o600)
                if name == "stdin":
                    self._input = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                else:
                    await self._listen(name, os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            await self.close()
            raise Unavailable(f"cannot make fifos for a task: {error.strerror}") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def stdio(self) -> Stdio:
        """What :meth:`.tasks.Tasks.create` takes."""
        paths = {name: self._path(name) for name in self._names}
        return Stdio(paths.get("stdin", ""), paths["stdout"], paths.get("stderr", ""), self._terminal)

    @property
    def stdout(self) -> asyncio.StreamReader:
        """Standard output; its end is the process's."""
        return self._readers["stdout"]

    @property
    def stderr(self) -> asyncio.StreamReader:
        """Standard error. :raise FailedPrecondition: with a terminal there is none."""
        if "stderr" not in self._readers:
            raise FailedPrecondition("a process with a terminal has no standard error of its own")
        return self._readers["stderr"]

    async def write(self, data: bytes) -> None:
        """Write to standard input; waits while it is full. :raise FailedPrecondition: it is closed, or the process has none."""
        view = memoryview(data)
        while view:
            if self._input < 0:
                raise FailedPrecondition("the process has no standard input, or it is closed")
            try:
                view = view[os.write(self._input, view) :]
            except BlockingIOError:
                await self._writable()
            except BrokenPipeError:
                raise FailedPrecondition("nobody reads the process's standard input any more") from None

    def opened(self) -> None:
        """The shim has opened its ends (the task is made): now the end of the input can be seen."""
        if self._input >= 0:
            both = self._input
            with suppress(OSError):  # nobody has: then this end stays as it is
                self._input = os.open(self._path("stdin"), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                os.close(both)

    def end(self) -> None:
        """Close standard input. What a shim holds open for itself needs :meth:`.tasks.Tasks.close_io` as well."""
        if self._input >= 0:
            os.close(self._input)
            self._input = -1

    async def close(self) -> None:
        """Close everything and remove the fifos. May be called again."""
        self.end()
        transports, self._transports = self._transports, []
        for transport in transports:
            transport.close()
        await asyncio.sleep(0)  # in which the event loop closes them
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    async def _listen(self, name: str, fd: int) -> None:
        reader = asyncio.StreamReader(limit=_HELD)
        file = os.fdopen(fd, "rb", buffering=0)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
        self._readers[name] = reader
        self._transports.append(transport)

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        watched = self._input
        loop.add_writer(watched, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
        finally:
            loop.remove_writer(watched)
