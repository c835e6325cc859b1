"""Messages between commands and the keeper: one JSON object per packet of a SOCK_SEQPACKET unix socket, with descriptors.

Requests carry ``op`` and get exactly one answer: ``{"ok": true, …}`` or ``{"error": text}``. After ``watch`` the keeper sends
events on the same connection: ``{"event": "console"}`` (there is more in the log) and ``{"event": "exit", …}``.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from unikeel.lean import socket

MAX_MESSAGE = 128 * 1024
MAX_FDS = 16
_FD = struct.Struct("i")
#: What ``monitor.log`` says of a monitor that was killed since its file server had ended.
UNSERVED = "the file server of the guest's shared directories has ended"

#: What JSON can say.
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Message = dict[str, Json]


@contextmanager
def short_path(directory: str, name: str) -> Iterator[str]:
    """A path short enough for a unix socket's 108 bytes, wherever the state root is."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def send(connection: socket.socket, message: Message, fds: tuple[int, ...] = ()) -> None:
    """Send one message; the descriptors stay the caller's."""
    data = json.dumps(message).encode()
    if len(data) > MAX_MESSAGE:
        raise ValueError(f"a message of {len(data)} bytes is longer than {MAX_MESSAGE}")
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
    connection.sendmsg([data], rights, socket.MSG_NOSIGNAL)


def receive(connection: socket.socket) -> tuple[Message | None, list[int]]:
    """The next message and its descriptors (close-on-exec); ``None`` at the end of the connection."""
    space = socket.CMSG_SPACE(MAX_FDS * _FD.size)
    data, ancillary, flags, _ = connection.recvmsg(MAX_MESSAGE, space, socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds += (fd for (fd,) in _FD.iter_unpack(content[: len(content) - len(content) % _FD.size]))
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ValueError("a message was cut short")
        if not data:
            return None, fds
        message = json.loads(data)
        if not isinstance(message, dict):
            raise ValueError("a message is not an object")
    except ValueError:
        for fd in fds:
            os.close(fd)
        raise
    return message, fds


def strings(message: Message, name: str) -> list[str]:
    """A list of strings in a message; empty if it is missing. :raise ValueError: it is something else."""
    value = message.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name} is not a list of strings")
    return [str(item) for item in value]


def integer(message: Message, name: str) -> int:
    """A number in a message. :raise ValueError: it is missing or something else."""
    value = message.get(name)
    if not isinstance(value, int):
        raise ValueError(f"{name} is not a number")
    return value
