"""Talking to QEMU: is the vCPU running, please power down, quit.

One short conversation per call, over the kept library ``qemu.qmp``; it is imported here, after the monitor has been started, because it brings asyncio
along, which costs more than starting the monitor: the two go on at the same time.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import cache

from unikeel.errors import DeadlineExceeded, Unavailable
from unikeel.lean import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from qemu.qmp import QMPClient


#: So often is a connection begun anew whose first message is not a greeting.
_GREETINGS: Final = 3


def _talk(path: str, seconds: float, conversation: Callable[[QMPClient], Awaitable[str]]) -> str:
    """A conversation of a process that has no event loop. Raises as :func:`converse`."""
    import asyncio

    async def run() -> str:
        # What the library's own tasks run into once the monitor is gone is ours to report, not asyncio's.
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        return await converse(path, seconds, conversation)

    return asyncio.run(run())


async def converse(path: str, seconds: float, conversation: Callable[[QMPClient], Awaitable[str]]) -> str:
    """Connect, let the conversation run, disconnect; all within a time.

    :raise DeadlineExceeded: the monitor did not answer in time. :raise Unavailable: it is gone, or says an error.
    """
    import asyncio

    from qemu.qmp import QMPError

    _quieten()
    holder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    path = f"/proc/self/fd/{holder}/{os.path.basename(path)}"
    try:
        async with asyncio.timeout(seconds):
            return await _connected(path, conversation)
    except TimeoutError:
        raise DeadlineExceeded(f"the monitor did not answer on its control socket in {seconds:.0f} s") from None
    except (
        QMPError,
        OSError,
        EOFError,
        AssertionError,
    ) as error:  # an assertion of the library's: the monitor went as it greeted
        raise Unavailable(f"the monitor's control socket: {error or type(error).__name__}") from error
    finally:
        os.close(holder)


@cache
def _quieten() -> None:
    """Have the library log nothing: what matters of it is raised."""
    import logging

    logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())
    logging.getLogger("qemu.qmp").propagate = False


async def _connected(path: str, conversation: Callable[[QMPClient], Awaitable[str]]) -> str:
    from qemu.qmp import ConnectError, QMPClient

    client = QMPClient("unikeel")
    try:
        for left in reversed(range(_GREETINGS)):
            try:
                await client.connect(path)
                break
            except ConnectError as error:
                # A monitor that is just starting can send an event where its greeting belongs.
                if isinstance(error.exc, OSError | EOFError) or not left:
                    raise
        return await conversation(client)
    finally:  # also of a connection that broke as it was made, whose socket the library would leave open
        await client.disconnect()


async def ask_status(path: str, seconds: float) -> str:
    """As :func:`status`, within a running event loop."""
    return await converse(path, seconds, _query_status)


async def execute(path: str, seconds: float, *commands: str) -> None:
    """Have QEMU execute commands one after the other, within a running event loop. Raises as :func:`converse`."""

    async def conversation(client: QMPClient) -> str:
        for command in commands:
            await client.execute(command)
        return ""

    await converse(path, seconds, conversation)


async def _query_status(client: QMPClient) -> str:
    answer = await client.execute("query-status")
    return str(answer["status"]) if isinstance(answer, dict) else "unknown"


def status(path: str, seconds: float) -> str:
    """The run state that QEMU reports: ``running``, ``prelaunch``, ``shutdown``, …"""
    return _talk(path, seconds, _query_status)


def power_down(path: str, seconds: float) -> None:
    """Press the guest's power button."""

    async def conversation(client: QMPClient) -> str:
        await client.execute("system_powerdown")
        return ""

    _talk(path, seconds, conversation)


def quit_monitor(path: str, seconds: float) -> None:
    """Ask QEMU to flush its disks and end, whatever the guest does."""

    async def conversation(client: QMPClient) -> str:
        await client.execute("quit")
        return ""

    _talk(path, seconds, conversation)
