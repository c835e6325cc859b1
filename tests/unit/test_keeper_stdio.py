"""A task's streams through the keeper: every byte arrives whole, nobody who does not read delays an end, nothing typed is lost."""

from __future__ import annotations

import os
import select
import signal
import socket
import termios
import time
import tty
from collections.abc import Iterator

import pytest

from engine_leftovers import limit, wait_keeper_gone
from keeper_world import until
from unikeel.errors import Internal
from unikeel.keeper.client import Connection, KeeperClient, KeeperSettings
from unikeel.keeper.wire import Json, Message


class Task:
    """A shell script as a monitor, whose console and streams are in the test's hands."""

    def __init__(self, root: str, ident: str = "c") -> None:
        self.root = root
        self.ident = ident
        self.directory = os.path.join(root, ident)
        os.makedirs(self.directory, exist_ok=True)
        self.client = KeeperClient(KeeperSettings(os.path.join(root, "run"), idle=0.1, view_idle=0.1))
        self.watcher: Connection | None = None
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(os.path.join(self.directory, "console.sock"))
        self.listener.listen()
        self.fds: list[int] = []
        self.gate = os.path.join(self.directory, "gate")
        os.mkfifo(self.gate)
        self.pid = 0

    def fifo(self, name: str, mode: int = os.O_RDWR) -> int:
        """Our end and the keeper's end are descriptors of the same fifo; the keeper's is kept for later."""
        path = os.path.join(self.directory, name)
        if not os.path.exists(path):
            os.mkfifo(path)
        fd = os.open(path, mode | os.O_NONBLOCK)
        self.fds.append(fd)
        return fd

    def message(self, names: list[str]) -> Message:
        stdio: list[Json] = [*names]
        return {
            "id": self.ident,
            "directory": self.directory,
            "helper": None,
            "console": os.path.join(self.directory, "console.sock"),
            "pid_file": "",
            "log_limit": 1 << 20,
            "reaper": [],
            "holds": [],
            "stdio": stdio,
        }

    def launch(self, script: str, names: list[str]) -> socket.socket:
        if self.watcher is None:
            self.watcher = self.client.watch_all()
        script = f"read line < {self.gate}; {script}"
        message: Message = {**self.message(names), "op": "launch", "argv": ["/bin/sh", "-c", script]}
        answer = self.client.connection().call(message, (self.listener.fileno(), *self.fds))
        assert isinstance(answer["pid"], int)
        self.pid = answer["pid"]
        self.close_ours()
        console, _ = self.listener.accept()
        return console

    def close_ours(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()

    def open_gate(self) -> None:
        with open(self.gate, "w", encoding="ascii") as file:
            file.write("go\n")

    def ended(self) -> Message:
        assert self.watcher is not None
        event = self.watcher.event(30)
        assert event is not None
        return event

    def reader(self, name: str) -> int:
        return os.open(os.path.join(self.directory, name), os.O_RDONLY | os.O_NONBLOCK)

    def reader_of(self, name: str, mode: int = os.O_RDWR) -> int:
        """A reader of a fifo whose other end is for the keeper."""
        path = os.path.join(self.directory, name)
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.fifo(name, mode)
        return reader

    def close(self) -> None:
        self.close_ours()
        self.client.close_io(self.ident)
        if self.watcher is not None:
            self.watcher.close()
        self.listener.close()
        self.client.close()


@pytest.fixture
def task(tmp_path: os.PathLike[str]) -> Iterator[Task]:
    os.mkdir(os.path.join(str(tmp_path), "run"))
    with limit(60, "the test"):
        task = Task(str(tmp_path))
        yield task
        task.close()
        wait_keeper_gone(str(tmp_path))


def _all(fd: int) -> bytes:
    """Until the end."""
    os.set_blocking(fd, True)
    data = b""
    while piece := os.read(fd, 1 << 16):
        data += piece
    os.close(fd)
    return data


def test_output_and_errors_go_where_they_belong(task: Task) -> None:
    out, err = task.reader_of("out"), task.reader_of("err")
    with task.launch("echo wrong >&2; exit 3", ["stdout", "stderr"]) as console:
        console.sendall(b"one\r\n\x00\xff")
        until(lambda: bool(select.select([out], [], [], 0)[0]), "nothing comes")
        assert os.read(out, 99) == b"one\r\n\x00\xff"
        console.sendall(b"last")
        task.open_gate()
        event = task.ended()
    assert (event["event"], event["id"], event["pid"], event["status"]) == ("exit", "c", task.pid, 3 << 8)
    assert isinstance(event["when"], int)
    # All of it is there already: it was written before the end was told.
    assert os.read(out, 99) == b"last"
    assert _all(out) == b""
    assert _all(err) == b"wrong\n"
    with open(os.path.join(task.directory, "console.log"), "rb") as log:
        assert log.read() == b"one\r\n\x00\xfflast"
    with open(os.path.join(task.directory, "monitor.log"), "rb") as log:
        assert log.read() == b"wrong\n"


def test_nobody_reads(task: Task) -> None:
    """The guest waits, as on any full pipe; the end does not; what is buffered is there for a late reader, or closed away."""
    task.fifo("out", os.O_RDWR)
    with task.launch("exit 0", ["stdout"]) as console:
        console.setblocking(False)
        sent, quiet = 0, 0
        while quiet < 20:
            try:
                sent += console.send(b"y" * 65536)
                quiet = 0
            except BlockingIOError:
                quiet += 1
                time.sleep(0.01)
        assert 256 << 10 <= sent < 2 << 20
        assert _ticks(task) < 20
        began = time.monotonic()
        task.open_gate()
        assert task.ended()["status"] == 0
        assert time.monotonic() - began < 5
    out = task.reader("out")
    assert len(_all(out)) == sent


def test_nobody_ever_reads(task: Task) -> None:
    task.fifo("out", os.O_RDWR)
    with task.launch("exit 0", ["stdout"]) as console:
        console.sendall(b"z" * 300000)
        task.open_gate()
        task.ended()
    task.client.close_io("c")
    task.client.close_io("c")


def _ticks(task: Task) -> int:
    """Processor time of the keeper since a moment ago: it may not spin."""
    pid = task.client.ask({"op": "hello"})["pid"]

    def used() -> int:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = used()
    time.sleep(0.4)
    return used() - before


def test_a_slow_reader_gets_every_byte(task: Task) -> None:
    out = task.reader_of("out")
    data = os.urandom(3 << 20)
    with task.launch("exit 0", ["stdout"]) as console:
        pid = os.fork()
        if pid == 0:
            console.sendall(data)
            os._exit(0)
        got = b""
        while len(got) < len(data):
            select.select([out], [], [], 30)
            got += os.read(out, 3001 if len(got) < 100000 else 1 << 16)
            if len(got) < 100000:
                time.sleep(0.001)
        os.waitpid(pid, 0)
        task.open_gate()
        task.ended()
    assert got + _all(out) == data


def test_what_is_typed_arrives_whole_and_ends(task: Task) -> None:
    typist = task.fifo("in")
    task.fds.remove(typist)
    task.fifo("in", os.O_RDWR)
    data = os.urandom(1 << 20)
    with task.launch("exit 0", ["stdin"]) as console:
        pid = os.fork()
        if pid == 0:
            os.set_blocking(typist, True)
            at = 0
            while at < len(data):
                at += os.write(typist, data[at : at + 4096])
            os._exit(0)
        time.sleep(0.3)  # meanwhile the guest reads nothing
        assert _ticks(task) < 20
        got = b""
        while len(got) < len(data):
            got += console.recv(1 << 16)
        os.waitpid(pid, 0)
        assert got == data
        os.write(typist, b"and more")
        task.client.close_input("c")
        task.client.close_input("c")
        assert console.recv(99) == b"and more"
        os.write(typist, b"nobody")
        assert not select.select([console], [], [], 0.2)[0]
        os.close(typist)
        task.open_gate()
        task.ended()


def test_a_typist_that_leaves(task: Task) -> None:
    """Opened for reading only, the fifo hangs up: that is an end, and nothing spins."""
    task.fifo("in", os.O_RDONLY)
    typist = os.open(os.path.join(task.directory, "in"), os.O_WRONLY)
    with task.launch("exit 0", ["stdin"]) as console:
        os.write(typist, b"bye")
        os.close(typist)
        assert console.recv(99) == b"bye"
        assert _ticks(task) < 20
        task.open_gate()
        task.ended()


def test_a_typist_that_leaves_a_guest_that_does_not_read(task: Task) -> None:
    task.fifo("in", os.O_RDONLY)
    typist = os.open(os.path.join(task.directory, "in"), os.O_WRONLY)
    with task.launch("exit 0", ["stdin"]) as console:
        pid = os.fork()
        if pid == 0:
            for _ in range(16):
                os.write(typist, b"t" * 65536)
            os._exit(0)
        os.close(typist)
        time.sleep(0.2)
        got = 0
        while got < 1 << 20:
            got += len(console.recv(1 << 16))
        os.waitpid(pid, 0)
        assert _ticks(task) < 20
        task.open_gate()
        task.ended()


def test_files_are_streams_too(task: Task) -> None:
    path = os.path.join(task.directory, "typed")
    with open(path, "wb") as file:
        file.write(b"f" * 300000)
    task.fds.append(os.open(path, os.O_RDONLY))
    task.fds.append(os.open(os.path.join(task.directory, "printed"), os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    task.fds.append(os.open(os.devnull, os.O_WRONLY))
    with task.launch("exit 0", ["stdin", "stdout", "stderr"]) as console:
        got = b""
        while len(got) < 300000:
            got += console.recv(1 << 16)
        assert got == b"f" * 300000
        console.sendall(b"printed")
        task.open_gate()
        task.ended()
    with open(os.path.join(task.directory, "printed"), "rb") as printed:
        assert printed.read() == b"printed"


def test_a_terminal_s_bytes_pass_unchanged(task: Task) -> None:
    ours, theirs = os.openpty()
    tty.setraw(theirs, termios.TCSANOW)
    out = task.reader_of("out")
    typist = task.fifo("in")
    task.fds.remove(typist)
    task.fds.insert(0, os.dup(typist))
    with task.launch("echo monitor >&2; exit 0", ["stdin", "stdout"]) as console:
        data = bytes(range(256)) * 4
        console.sendall(data)
        os.write(typist, data)
        got = b""
        while len(got) < len(data):
            got += console.recv(4096)
        assert got == data
        task.open_gate()
        task.ended()
    assert _all(out) == bytes(range(256)) * 4
    for fd in (ours, theirs, typist):
        os.close(fd)


def test_a_reader_that_is_gone(task: Task) -> None:
    out = task.reader_of("out", os.O_WRONLY)
    with task.launch("exit 0", ["stdout"]) as console:
        os.close(out)
        console.sendall(b"x" * (1 << 20))
        assert _ticks(task) < 20
        task.open_gate()
        assert task.ended()["status"] == 0


def test_a_logging_program(task: Task) -> None:
    (out_read, out_write), (err_read, err_write), (ready_read, ready_write) = os.pipe(), os.pipe(), os.pipe()
    script = f"exec 5>&-; cat <&3 > {task.directory}/logged; cat <&4 >> {task.directory}/logged; echo $NAME >> {task.directory}/logged"
    pid = task.client.logger(
        "c", ["/bin/sh", "-c", script], {"NAME": "n", "PATH": "/bin:/usr/bin"}, (out_read, err_read, ready_write)
    )
    assert pid > 1
    for fd in (out_read, err_read, ready_write):
        os.close(fd)
    assert _all(ready_read) == b""  # it is ready
    task.fds += [out_write, err_write]
    with task.launch("echo bad >&2; exit 0", ["stdout", "stderr"]) as console:
        console.sendall(b"good\n")
        task.open_gate()
        task.ended()
    path = os.path.join(task.directory, "logged")
    until(lambda: os.path.exists(path) and os.path.getsize(path) == 11, "it does not log")
    with open(path, "rb") as file:
        assert file.read() == b"good\nbad\nn\n"
    with pytest.raises(Internal, match="three descriptors"):
        task.client.connection().call({"op": "logger", "id": "c", "argv": ["/bin/true"]})


def test_a_keeper_that_is_killed_gets_the_streams_again(task: Task) -> None:
    out = task.reader_of("out")
    typist = task.fifo("in")
    task.fds.remove(typist)
    task.fds.insert(0, os.dup(typist))
    console = task.launch("exit 4", ["stdin", "stdout"])
    console.sendall(b"before")
    until(lambda: bool(select.select([out], [], [], 0)[0]), "nothing comes")
    keeper = task.client.ask({"op": "hello"})["pid"]
    assert isinstance(keeper, int)
    os.kill(keeper, signal.SIGKILL)
    console.close()
    watcher = task.client.watch_all()
    with open(f"/proc/{task.pid}/stat", encoding="ascii") as file:
        started = int(file.read().rpartition(")")[2].split()[19])
    for _ in range(2):  # a command that lost its answer repeats it
        task.fds = [os.dup(typist), os.open(os.path.join(task.directory, "out"), os.O_RDWR | os.O_NONBLOCK)]
        message: Message = {**task.message(["stdin", "stdout"]), "op": "adopt", "pid": task.pid, "start_time": started}
        task.client.connection().call(message, task.fds)
        task.close_ours()
    console, _ = task.listener.accept()
    with console:
        console.sendall(b"after")
        os.write(typist, b"typed")
        assert console.recv(99) == b"typed"
        until(lambda: os.path.getsize(os.path.join(task.directory, "console.log")) == 11, "nothing comes")
        task.open_gate()
        event = watcher.event(30)
    assert event is not None
    assert event["id"] == "c"
    watcher.close()
    os.close(typist)
    assert _all(out) == b"beforeafter"


def test_nonsense(task: Task) -> None:
    task.fifo("out")
    for names in (["stdout", "stdin"], ["stdout", "stderr", "stdin"], ["out"], ["stdout"] * 2):
        with pytest.raises(Internal, match="stdio names"):
            task.launch("exit 0", names)
        task.listener.close()
        os.unlink(os.path.join(task.directory, "console.sock"))
        task.listener = socket.socket(socket.AF_UNIX)
        task.listener.bind(os.path.join(task.directory, "console.sock"))
        task.listener.listen()
    assert task.client.monitors() == []
