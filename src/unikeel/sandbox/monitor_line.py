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
from typing import Final

from unikeel.errors import DeadlineExceeded, Unavailable

#: QEMU's answers to what is asked here have a few hundred bytes.
_LONGEST: Final = 1 << 20
_PIECE: Final = 1 << 16
#: The longest path that fits an address of a unix socket, with its end.
_PATH: Final = 107


async def execute(path: str, seconds: float, *commands: str) -> object:
    """Have QEMU execute commands one after the other; what the last one returned.

    :raise DeadlineExceeded: the monitor did not answer in time. :raise Unavailable: it is gone, or says an error.
    """
    lines = [{"execute": name, "id": number} for number, name in enumerate(("qmp_capabilities", *commands))]
    try:
        async with asyncio.timeout(seconds):
            return await _asked(path, "".join(map(json.dumps, lines)).encode(), len(lines))
    except TimeoutError:
        raise DeadlineExceeded(f"the monitor did not answer on its control socket in {seconds:.0f} s") from None
    except (OSError, EOFError, ValueError) as error:
        raise Unavailable(f"the monitor's control socket: {error or type(error).__name__}") from error


async def status(path: str, seconds: float) -> str:
    """The run state that QEMU reports: ``running``, ``prelaunch``, ``shutdown``, … Raises as :func:`execute`."""
    return _state(await execute(path, seconds, "query-status"))


async def go(path: str, seconds: float) -> str:
    """Have the guest's processors run; one whose processors run already goes on. The run state then. Raises as :func:`execute`."""
    return _state(await execute(path, seconds, "cont", "query-status"))


def _state(answer: object) -> str:
    return str(answer.get("status")) if isinstance(answer, dict) else "unknown"


async def _asked(path: str, question: bytes, count: int) -> object:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sock:
        await _connect(loop, sock, path)
        await loop.sock_sendall(sock, question)
        held = b""
        while True:
            data = await loop.sock_recv(sock, _PIECE)
            if not data:
                raise EOFError("it was closed")
            *lines, held = (held + data).split(b"\n")
            if len(held) > _LONGEST:
                raise ValueError("it said a line without an end")
            for line in lines:
                answer = json.loads(line) if line.strip() else {}
                if not isinstance(answer, dict):
                    raise ValueError("it said what is no answer")
                if "error" in answer:
                    raise ValueError(str(answer["error"].get("desc", answer["error"]))[:400])
                if answer.get("id") == count - 1:
                    return answer.get("return")


async def _connect(loop: asyncio.AbstractEventLoop, sock: socket.socket, path: str) -> None:
    """By a short name of the directory, if the path is too long for an address."""
    with contextlib.ExitStack() as stack:
        if len(os.fsencode(path)) > _PATH:
            holder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, holder)
            path = f"/proc/self/fd/{holder}/{os.path.basename(path)}"
        await loop.sock_connect(sock, path)
