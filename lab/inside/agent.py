"""The lab's hand inside the virtual machine: runs programs and moves files for the host, over a virtio-serial port.

A message, either way: two big-endian 32-bit lengths, a JSON object of the first, bytes of the second. Each request has a number, its answer the same one;
requests are answered as they are done, each by a thread of its own. Requests (``op``):

``run``: argv, env, cwd, seconds; bytes: standard input -> code, out (how many of the bytes are standard output, the rest is standard error), late
``put``: path, mode, offset; bytes: content -> nothing
``get``: path, offset, limit -> bytes, size
``shell``: rows, columns -> a terminal with a shell on the other port
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import resource
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from typing import Any

_HEADER = struct.Struct(">II")
_PORT, _TERMINAL = "org.unikeel.lab", "org.unikeel.lab.terminal"


def port(name: str) -> int:
    """A virtio-serial port, opened by its name."""
    while True:
        for device in os.listdir("/sys/class/virtio-ports"):
            try:
                with open(f"/sys/class/virtio-ports/{device}/name", encoding="utf-8") as file:
                    found = file.read().strip()
            except OSError:
                continue
            if found == name:
                return os.open(f"/dev/{device}", os.O_RDWR | os.O_CLOEXEC)
        time.sleep(0.05)


def read_exactly(descriptor: int, size: int) -> bytes:
    """So many bytes; the port gives what it has, and nothing while the host is away."""
    parts = []
    while size:
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            time.sleep(0.05)
            continue
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class Agent:
    """Answers one port."""

    def __init__(self, descriptor: int) -> None:
        self._port = descriptor
        self._writing = threading.Lock()

    def serve(self) -> None:
        """Until the machine ends."""
        self._send({"hello": os.uname().release})
        while True:
            head, tail = _HEADER.unpack(read_exactly(self._port, _HEADER.size))
            request = json.loads(read_exactly(self._port, head))
            content = read_exactly(self._port, tail)
            if request["op"] == "end":
                return
            threading.Thread(target=self._answer, args=(request, content), daemon=True).start()

    def _answer(self, request: dict[str, Any], content: bytes) -> None:
        try:
            answer, back = _OPERATIONS[request["op"]](request, content)
        except OSError as error:
            answer, back = (
                {"error": f"{error.strerror}: {error.filename or request.get('argv') or request.get('path')}"},
                b"",
            )
        except Exception as error:  # noqa: BLE001 - the host wants to know
            answer, back = {"error": f"{type(error).__name__}: {error}"}, b""
        self._send(answer | {"id": request["id"]}, back)

    def _send(self, message: dict[str, Any], content: bytes = b"") -> None:
        text = json.dumps(message).encode()
        waiting = memoryview(_HEADER.pack(len(text), len(content)) + text + content)
        with self._writing:
            while waiting:
                waiting = waiting[os.write(self._port, waiting[: 1 << 16]) :]


def run(request: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
    """Run a program to its end; the end of a time-out kills its process group."""
    process = subprocess.Popen(
        request["argv"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=request["env"],
        cwd=request["cwd"],
        start_new_session=True,
    )
    late = False
    try:
        output, errors = process.communicate(content, request["seconds"])
    except subprocess.TimeoutExpired:
        late = True
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = b"", b""
        process.wait()
    return {"code": process.returncode, "out": len(output), "late": late}, output + errors


def put(request: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
    """Write a piece of a file; the first one makes it."""
    path, offset = request["path"], request["offset"]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (0 if offset else os.O_TRUNC), 0o600)
    with open(descriptor, "wb") as file:
        file.seek(offset)
        file.write(content)
        os.fchmod(descriptor, request["mode"])
    return {}, b""


def get(request: dict[str, Any], _content: bytes) -> tuple[dict[str, Any], bytes]:
    """Read a piece of a file."""
    with open(request["path"], "rb") as file:
        file.seek(request["offset"])
        content = file.read(request["limit"])
    return {"more": len(content) == request["limit"]}, content


def shell(request: dict[str, Any], _content: bytes) -> tuple[dict[str, Any], bytes]:
    """A program on a terminal, whose other end is the second port; answered when it has ended."""
    terminal = port(_TERMINAL)
    child, master = pty.fork()
    if child == 0:
        os.chdir("/root")
        os.execvpe(request["argv"][0], request["argv"], request["env"])  # noqa: S606 - its arguments are the host's
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", request["rows"], request["columns"], 0, 0))
    threading.Thread(target=_pump, args=(terminal, master), daemon=True).start()
    _pump(master, terminal)
    return {"code": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}, b""


def _pump(source: int, target: int) -> None:
    while True:
        try:
            data = os.read(source, 4096)
            if not data:
                time.sleep(0.02)
            while data:
                data = data[os.write(target, data) :]
        except OSError:
            return


_OPERATIONS = {"run": run, "put": put, "get": get, "shell": shell}

if __name__ == "__main__":
    # Debian's kernel and systemd start with 1024; containerd's own unit asks for no limit.
    resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20))
    Agent(port(_PORT)).serve()
    sys.exit(0)
