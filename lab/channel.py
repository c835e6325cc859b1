"""The host's end of the agent's port: requests from any thread, answers in whatever order they come. The messages: :mod:`lab.inside.agent`."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from typing import Any, Final

from lab.errors import LabError

_HEADER: Final = struct.Struct(">II")


class _Waiting:
    """A request that is not answered yet."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.message: dict[str, Any] = {}
        self.content = b""


class Channel:
    """A conversation with the agent; closed when the machine ends, which every open request is told."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._writing = threading.Lock()
        self._waiting: dict[int, _Waiting] = {}
        self._state = threading.Lock()
        self._next = 0
        self._hello = _Waiting()
        self._closed = False
        threading.Thread(target=self._read, name="lab agent", daemon=True).start()

    def greeting(self, timeout: float) -> str:
        """The kernel's release, once the agent is there. :raise LabError: it is not, in time."""
        if not self._hello.done.wait(timeout) or "hello" not in self._hello.message:
            raise LabError(
                "the machine's agent did not answer" if self._closed else f"the machine did not boot in {timeout:.0f} s"
            )
        return str(self._hello.message["hello"])

    def ask(
        self, operation: str, timeout: float, content: bytes = b"", **request: object
    ) -> tuple[dict[str, Any], bytes]:
        """One request, its answer. :raise LabError: the agent refuses, is too late, or is gone."""
        waiting = _Waiting()
        with self._state:
            if self._closed:
                raise LabError("the machine is gone")
            self._next += 1
            number = self._next
            self._waiting[number] = waiting
        try:
            self._send({"op": operation, "id": number, **request}, content)
            if not waiting.done.wait(timeout):
                raise LabError(f"the machine did not answer the request {operation} in {timeout:.0f} s")
        finally:
            with self._state:
                self._waiting.pop(number, None)
        if "error" in waiting.message:
            raise LabError(f"the machine cannot do that ({operation}): {waiting.message['error']}")
        return waiting.message, waiting.content

    def tell(self, operation: str) -> None:
        """A request without an answer."""
        self._send({"op": operation, "id": 0}, b"")

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _send(self, message: dict[str, Any], content: bytes) -> None:
        text = json.dumps(message).encode()
        try:
            with self._writing:
                self._connection.sendall(_HEADER.pack(len(text), len(content)) + text)
                self._connection.sendall(content)
        except OSError as error:
            raise LabError(f"the machine is gone: {error.strerror}") from None

    def _read(self) -> None:
        try:
            while True:
                head, size = _HEADER.unpack(self._exactly(_HEADER.size))
                message = json.loads(self._exactly(head))
                content = self._exactly(size)
                with self._state:
                    waiting = self._hello if "hello" in message else self._waiting.get(message["id"])
                if waiting is not None:
                    waiting.message, waiting.content = message, content
                    waiting.done.set()
        except (OSError, EOFError):
            with self._state:
                self._closed = True
                left = [*self._waiting.values(), self._hello]
            for waiting in left:
                if not waiting.done.is_set():
                    waiting.message = {"error": "it has ended"}
                    waiting.done.set()

    def _exactly(self, size: int) -> bytes:
        content = bytearray()
        while len(content) < size:
            part = self._connection.recv(min(size - len(content), 1 << 20))
            if not part:
                raise EOFError
            content += part
        return bytes(content)
