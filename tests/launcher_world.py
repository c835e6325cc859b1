"""The launcher's binary, run against a daemon that is a thread here and answers what a test tells it to."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from typing import NamedTuple, Self

from unikeel.containerd.wire.launcher_pb2 import LaunchRequest, LaunchResponse
from unikeel.containerd.wire.ttrpc_pb2 import Request, Response, Status

#: Seconds that any one call may take.
LIMIT = 30
HEADER = struct.Struct(">IIBB")


class Asked(NamedTuple):
    """One request as it came."""

    stream: int
    method: str
    payload: bytes
    timeout: int

    @property
    def launch(self) -> LaunchRequest:
        return LaunchRequest.FromString(self.payload)


#: Makes the bytes to answer with; ``None``: close without an answer.
Answerer = Callable[[Asked], bytes | None]


def frame(body: bytes, stream: int = 1, kind: int = 2, size: int | None = None) -> bytes:
    """A frame; ``size`` is what the header claims."""
    return HEADER.pack(len(body) if size is None else size, stream, kind, 0) + body


def answer(**fields: object) -> bytes:
    """The frame of a good answer."""
    return frame(Response(payload=LaunchResponse(**fields).SerializeToString()).SerializeToString())  # type: ignore[arg-type]


def refusal(code: int, message: str) -> bytes:
    """The frame of an error."""
    return frame(Response(status=Status(code=code, message=message)).SerializeToString())


class FakeDaemon:
    """Listens at a path, and keeps what it was asked."""

    def __init__(self, path: str, answerer: Answerer) -> None:
        self.asked: list[Asked] = []
        self.answerer = answerer
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(LIMIT)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with connection:
            try:
                header = _exactly(connection, HEADER.size)
                size, stream, kind, _ = HEADER.unpack(header)
                assert kind == 1
                request = Request.FromString(_exactly(connection, size))
                assert request.service == "unikeel.launcher.v1.Launcher"
                asked = Asked(stream, request.method, request.payload, request.timeout_nano)
                self.asked.append(asked)
                reply = self.answerer(asked)
                if reply is not None:
                    connection.sendall(reply)
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(1)  # until the launcher has gone, so that nothing that is on its way is lost
            except OSError:
                return


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise ConnectionError("the launcher went")
        parts += part
    return parts


class World:
    """A bundle, a place for the daemon's socket, and the launcher that is tested."""

    def __init__(self, directory: str, program: str) -> None:
        self.directory = directory
        self.program = program
        self.bundle = os.path.join(directory, "bundle")
        self.socket = os.path.join(directory, "run", "launch.sock")
        os.makedirs(self.bundle)
        os.makedirs(os.path.dirname(self.socket))
        self.environment = {
            "PATH": "/usr/bin:/bin",
            "UNIKEEL_LAUNCH_SOCKET": self.socket,
            "UNIKEEL_COMMAND": os.path.join(directory, "no-such-command"),
            "UNIKEEL_DELETE_SECONDS": "0.6",
            "UNIKEEL_DAEMON_SECONDS": "2",
            "ASAN_OPTIONS": "detect_leaks=0",  # it ends at once, and leaves that to the kernel
        }

    def daemon(self, answerer: Answerer) -> FakeDaemon:
        """Somebody who answers."""
        return FakeDaemon(self.socket, answerer)

    def run(
        self, *words: str, stdin: bytes | None = None, environment: dict[str, str] | None = None, cwd: str = ""
    ) -> subprocess.CompletedProcess[bytes]:
        """Execute the launcher as containerd does: in the bundle, standard input /dev/null unless there is something."""
        with subprocess.Popen(
            [self.program, *words],
            cwd=cwd or self.bundle,
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            output, errors = process.communicate(stdin, timeout=LIMIT)
        return subprocess.CompletedProcess(words, process.returncode, output, errors)

    def start(self, stdin: bytes | None = None, /, **environment: str) -> subprocess.CompletedProcess[bytes]:
        """``start`` as containerd 1.7 and later executes it."""
        words = (
            "-namespace",
            "k8s.io",
            "-address",
            "/run/containerd/containerd.sock",
            "-publish-binary",
            "/usr/bin/containerd",
            "-id",
            "c1",
            "start",
        )
        return self.run(*words, stdin=stdin, environment=environment)

    def delete(self, **environment: str) -> subprocess.CompletedProcess[bytes]:
        """``delete`` as containerd 1.7 and later executes it."""
        words = (
            "-namespace",
            "k8s.io",
            "-address",
            "/a.sock",
            "-publish-binary",
            "/b",
            "-id",
            "c1",
            "-bundle",
            self.bundle,
            "-debug",
            "delete",
        )
        return self.run(*words, environment=environment)

    def script(self, name: str, text: str) -> str:
        """A shell script that can be executed; its path."""
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\n" + text)
        os.chmod(path, 0o700)
        return path
