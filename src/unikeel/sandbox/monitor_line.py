"""A short conversation with QEMU over its control socket, for a process that has an event loop and many monitors.

The kept library ``qemu.qmp`` (:mod:`.qmp`) has three tasks and a logger for each connection, which costs a daemon 0.7 ms of processor time per
start; here all commands go out at once, and what comes back is matched by number.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from functools import lru_cache

from unikeel.errors import DeadlineExceeded, Unavailable
from unikeel.lean import Final

#: QEMU's answers to what is asked here have a few hundred bytes.
_LONGEST: Final = 1 << 20
_PIECE: Final = 1 << 16
#: Seconds between QEMU's first answer and the look at the rest.
_PAUSE: Final = 0.001
#: The longest path that fits an address of a unix socket, with its end.
_PATH: Final = 107


async def execute(path: str, seconds: float, *commands: str, event: str = "") -> object:
    """Have QEMU execute commands one after the other; what the last one returned.

    :param event: one that tells as much as that last answer does, whichever comes first. :raise DeadlineExceeded: the monitor did not answer in time. :raise Unavailable: it is gone, or says an error.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sock:
            _connect(sock, path)
            sock.sendall(_question(commands))
            return await _Answer(sock, len(commands), event).wait(seconds)
    except TimeoutError:
        raise DeadlineExceeded(f"the monitor did not answer on its control socket in {seconds:.0f} s") from None
    except (OSError, EOFError, ValueError) as error:
        raise Unavailable(f"the monitor's control socket: {error or type(error).__name__}") from error


async def status(path: str, seconds: float) -> str:
    """The run state that QEMU reports: ``running``, ``prelaunch``, ``shutdown``, … Raises as :func:`execute`."""
    return _state(await execute(path, seconds, "query-status"))


async def go(path: str, seconds: float) -> None:
    """Have the guest's processors run; one whose processors run already goes on. Raises as :func:`execute`.

    QEMU says RESUME in the same breath in which it lets them go, and often a millisecond before its answer, which the guest's first steps hold up.
    """
    await execute(path, seconds, "cont", event="RESUME")


def _state(answer: object) -> str:
    return str(answer.get("status")) if isinstance(answer, dict) else "unknown"


@lru_cache(32)
def _question(commands: tuple[str, ...]) -> bytes:
    lines = [{"execute": name, "id": number} for number, name in enumerate(("qmp_capabilities", *commands))]
    return "".join(map(json.dumps, lines)).encode()


class _Answer:
    """What comes back: a greeting, events, an answer to each command. Whoever waits is woken once, for the last one's.

    QEMU writes each by itself; a process that wakes for each spends more on waking than on reading. The greeting comes as soon as QEMU listens, the first answer when
    it has come up, and the rest within a millisecond or so: that has a moment to come together.

    :param last: the last command's number. :param event: see :func:`execute`.
    """

    def __init__(self, sock: socket.socket, last: int, event: str) -> None:
        self._sock = sock
        self._last = last
        self._event = event
        self._answered = False
        self._held = b""
        self._pause: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._found: asyncio.Future[object] = self._loop.create_future()

    async def wait(self, seconds: float) -> object:
        """What the last command returned. :raise TimeoutError, OSError, EOFError, ValueError: it does not come, or is an error."""
        timer = self._loop.call_later(seconds, self._fail, TimeoutError())
        self._loop.add_reader(self._sock.fileno(), self._readable)
        try:
            return await self._found
        finally:
            timer.cancel()
            if self._pause is not None:
                self._pause.cancel()
            self._loop.remove_reader(self._sock.fileno())

    def _fail(self, error: Exception) -> None:
        if not self._found.done():
            self._found.set_exception(error)

    def _readable(self) -> None:
        self._read()
        if self._answered and self._pause is None and not self._found.done():
            self._loop.remove_reader(self._sock.fileno())
            self._pause = self._loop.call_later(_PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._read()
        if not self._found.done():
            self._loop.add_reader(self._sock.fileno(), self._readable)

    def _read(self) -> None:
        try:
            data = self._sock.recv(_PIECE)
            if not data:
                raise EOFError("it was closed")
            *lines, self._held = (self._held + data).split(b"\n")
            if len(self._held) > _LONGEST:
                raise ValueError("it said a line without an end")
            for line in lines:
                self._take(json.loads(line) if line.strip() else {})
        except BlockingIOError:
            return
        except RecursionError:
            self._fail(ValueError("it said something too deep"))
        except (OSError, EOFError, ValueError) as error:
            self._fail(error)

    def _take(self, answer: object) -> None:
        if not isinstance(answer, dict):
            raise ValueError("it said what is no answer")
        if "error" in answer:
            error = answer["error"]
            raise ValueError(str(error.get("desc", error) if isinstance(error, dict) else error)[:400])
        self._answered = self._answered or "return" in answer
        is_last = answer.get("id") == self._last or (self._event and answer.get("event") == self._event)
        if is_last and not self._found.done():
            self._found.set_result(answer.get("return"))


def _connect(sock: socket.socket, path: str) -> None:
    """By a short name of the directory, if the path is too long for an address. A unix socket is connected at once, or not at all."""
    with contextlib.ExitStack() as stack:
        if len(os.fsencode(path)) > _PATH:
            holder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, holder)
            path = f"/proc/self/fd/{holder}/{os.path.basename(path)}"
        sock.connect(path)
