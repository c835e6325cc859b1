"""A keeper with a daemon, as the tests drive it: started, talked to as containerd would, killed, given back what systemd keeps."""

from __future__ import annotations

import array
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unikeel.keeper.client import KeeperClient, KeeperSettings
from unikeel.keeper.wire import Message

SECONDS = 30.0
FRAME = struct.Struct(">IIBB")
_DAEMON = os.path.join(os.path.dirname(os.path.abspath(__file__)), "keeper_daemon.py")
_BECOME = "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); sys.path.insert(0, sys.argv[1])\n"
_BECOME += (
    "from keeper_world import settings; from unikeel.keeper.client import become; become(settings(sys.argv[2]))\n"
)


def settings(directory: str) -> KeeperSettings:
    daemon = (sys.executable, "-I", "-S", _DAEMON, directory)
    return KeeperSettings(
        directory, idle=0.1, view_idle=0.1, daemon=daemon, listen=(("launch", f"{directory}/launch.sock"),)
    )


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that comes by itself."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.005)


def request(stream: int, body: bytes) -> bytes:
    return FRAME.pack(len(body), stream, 1, 0) + body


class Caller:
    """A connection as containerd has it."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(SECONDS)
        self.socket.connect(path)

    def send(self, stream: int, body: bytes) -> None:
        self.socket.sendall(request(stream, body))

    def read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            assert piece, "the keeper has closed the connection"
            data += piece
        return bytes(data)

    def answer(self) -> tuple[int, bytes]:
        """The next answer: its stream and its body."""
        size, stream, kind, flags = FRAME.unpack(self.read(FRAME.size))
        assert (kind, flags) == (2, 0)
        return stream, self.read(size)

    def ask(self, stream: int, body: bytes) -> bytes:
        self.send(stream, body)
        answered, answer = self.answer()
        assert answered == stream
        return answer

    def silent(self, seconds: float = 0.2) -> bool:
        return not select.select([self.socket], [], [], seconds)[0]

    def close(self) -> None:
        self.socket.close()


class World:
    """A keeper with a daemon in a directory."""

    def __init__(self, directory: str, *, starts: bool = True) -> None:
        self.directory = directory
        self.client = KeeperClient(settings(directory)._replace(starts=starts))
        self.callers: list[Caller] = []

    def hello(self) -> Message:
        return self.client.ask({"op": "hello"})

    def pid(self, name: str = "daemon") -> int:
        value = self.hello()[name]
        assert isinstance(value, int)
        return value

    def wait_ready(self, restarts: int | None = 0) -> None:
        """Wait until a daemon serves, after so many restarts."""

        def serves() -> bool:
            hello = self.hello()
            return hello["ready"] is True and restarts in (None, hello["restarts"])

        until(serves, "no daemon serves")

    def caller(self, name: str = "launch.sock") -> Caller:
        caller = Caller(f"{self.directory}/{name}")
        self.callers.append(caller)
        return caller

    def kill_daemon(self) -> None:
        pid = self.pid()
        assert pid > 1
        os.kill(pid, signal.SIGKILL)
        until(lambda: self.pid() not in (0, pid), "no other daemon comes")

    def heard(self) -> list[str]:
        return self.text("heard").splitlines()

    def text(self, name: str) -> str:
        with open(f"{self.directory}/{name}", encoding="utf-8", errors="replace") as file:
            return file.read()

    def touch(self, name: str) -> None:
        with open(f"{self.directory}/{name}", "w", encoding="ascii"):
            pass

    def close(self) -> None:
        """End the keeper in order."""
        for caller in self.callers:
            caller.close()
        if self.client.lives():
            pid = self.pid("pid")
            os.kill(pid, signal.SIGTERM)
            until(lambda: not self.client.lives(), "the keeper does not end")
        self.client.close()


class Systemd:
    """What of systemd a service sees: a notification socket, a descriptor store, and being started again."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.store: list[tuple[str, int]] = []
        self.said: list[str] = []
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"{directory}/notify")
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        self.process: subprocess.Popen[bytes] | None = None

    def _listen(self) -> None:
        while True:
            data, rights, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(4))
            if data == b"stop":
                return
            self._take(data.decode().splitlines(), rights)

    def _take(self, lines: list[str], rights: list[tuple[int, int, bytes]]) -> None:
        fds = array.array("i")
        for _, _, content in rights:
            fds.frombytes(content)
        for fd in fds:
            os.set_inheritable(fd, False)  # the keepers get copies of those that they are given, and no others
        name = next((line[7:] for line in lines if line.startswith("FDNAME=")), "")
        with self._lock:
            if "FDSTORE=1" in lines:
                self.store += [(name, fd) for fd in fds]
            elif "FDSTOREREMOVE=1" in lines:
                for item in [item for item in self.store if item[0] == name]:
                    self.store.remove(item)
                    os.close(item[1])
            else:
                self.said += lines

    def names(self) -> list[str]:
        with self._lock:
            return sorted(name for name, _ in self.store)

    def settle(self) -> None:
        """Wait until all that was sent is taken: it is sent on a queue that is in order."""
        before = len(self.said)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"X=settled", f"{self.directory}/notify")
        until(lambda: "X=settled" in self.said[before:], "nothing is taken")

    def start(self, given: dict[str, int] | None = None, *, point: str = "") -> None:
        """Start the keeper with what is in the store; ``given``: sockets of units; ``point``: where it stops, and says so in the pipe ``point``."""
        environment = {"UNIKEEL_FAILPOINT": point, "UNIKEEL_FAILPOINT_FILE": f"{self.directory}/point"} if point else {}
        fds = [*(given or {}).items(), *self.store]
        variables = {
            **os.environ,
            "NOTIFY_SOCKET": f"{self.directory}/notify",
            "LISTEN_FDS": str(len(fds)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in fds),
            **environment,
        }
        source = os.pathsep.join(sys.path)
        code = f"import os, sys; sys.path[:0] = {source!r}.split(os.pathsep)\n{_BECOME}"
        command = [sys.executable, "-c", code, os.path.dirname(_DAEMON), self.directory]
        high = [os.dup2(fd, 200 + index) for index, (_, fd) in enumerate(fds)]
        actions = [(os.POSIX_SPAWN_DUP2, fd, 3 + index) for index, fd in enumerate(high)]
        closing = [(os.POSIX_SPAWN_CLOSE, fd) for fd in high]
        self.pid = os.posix_spawn(sys.executable, command, variables, file_actions=[*actions, *closing])
        for fd in high:
            os.close(fd)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.settle()

    def stopped(self) -> str:
        """Wait until it has stopped at the point; there is none any more."""
        with open(f"{self.directory}/point", encoding="ascii") as file:
            name, pid = file.read().split()
        os.unlink(f"{self.directory}/point")
        assert int(pid) == self.pid
        return name

    def end(self) -> int:
        os.kill(self.pid, signal.SIGTERM)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"stop", f"{self.directory}/notify")
        self._thread.join(SECONDS)
        self._socket.close()
        for _, fd in self.store:
            os.close(fd)


@contextmanager
def world(directory: str) -> Iterator[World]:
    place = World(directory)
    try:
        yield place
    finally:
        place.close()
