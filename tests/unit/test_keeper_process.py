"""The keeper itself, as a process: it holds, runs, keeps; it is small, refuses nonsense, waits for nobody, and goes when idle."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from engine_leftovers import limit, wait_keeper_gone
from unikeel.errors import DeadlineExceeded, Internal, Unavailable
from unikeel.keeper import wire
from unikeel.keeper.client import Connection, KeeperClient, KeeperSettings

_PSS_LIMIT = 12 << 20


@pytest.fixture
def root(tmp_path: os.PathLike[str]) -> Iterator[str]:
    path, before = str(tmp_path), os.getcwd()
    os.mkdir(os.path.join(path, "run"))
    os.mkdir(os.path.join(path, "c"))
    yield path
    os.chdir(before)  # short paths of sockets are had by going there
    wait_keeper_gone(path)
    assert sorted(os.listdir(os.path.join(path, "run"))) == ["keeper.lock", "keeper.log", "keeper.start"]


@pytest.fixture
def client(root: str) -> Iterator[KeeperClient]:
    client = KeeperClient(KeeperSettings(os.path.join(root, "run"), idle=0.1, view_idle=0.1))
    yield client
    client.close()


def _launch(client: KeeperClient, root: str, script: str, ident: str = "c") -> tuple[Connection, socket.socket]:
    """Start a shell script as an unconfined monitor, watched; its console's listening socket comes along."""
    directory = os.path.join(root, ident)
    listener = socket.socket(socket.AF_UNIX)
    os.chdir(directory)
    listener.bind("console.sock")
    listener.listen()
    connection = client.connect()
    message: wire.Message = {
        "op": "launch",
        "id": ident,
        "directory": directory,
        "argv": ["/bin/sh", "-c", script],
        "helper": None,
        "console": os.path.join(directory, "console.sock"),
        "pid_file": "",
        "log_limit": 1000,
        "reaper": [],
        "holds": [],
    }
    watcher = client.connect()
    answer = connection.call(message, (listener.fileno(),))
    assert isinstance(answer["pid"], int)
    connection.close()
    watcher.call({"op": "watch", "id": ident})
    return watcher, listener


def _exit(directory: str) -> dict[str, int | None]:
    with open(os.path.join(directory, "exit.json"), encoding="utf-8") as file:
        report: dict[str, int | None] = json.load(file)
    return report


def _read_exit(watcher: Connection) -> wire.Message:
    while True:
        event = watcher.event(30)
        assert event is not None
        if event["event"] == "exit":
            return event


def test_descriptors_are_held(client: KeeperClient) -> None:
    read, write = os.pipe()
    client.put("view:x", write)
    os.close(write)
    assert client.names() == ["view:x"]
    got = client.get("view:x")
    assert got is not None
    os.write(got, b"held")
    os.close(got)
    assert os.read(read, 9) == b"held"
    assert client.get("view:y") is None
    client.drop("view:x")
    assert client.names() == []
    assert os.read(read, 9) == b""
    os.close(read)


def test_an_unused_view_is_let_go(client: KeeperClient) -> None:
    read, write = os.pipe()
    client.put("view:x", write)
    os.close(write)
    with limit(30, "letting go"):
        assert os.read(read, 1) == b""
    os.close(read)


def test_programs_run(client: KeeperClient) -> None:
    output = os.memfd_create("output")
    assert client.spawn(["/bin/sh", "-c", "echo said; exit 3"], output) == 3 << 8
    assert os.pread(output, 99, 0) == b"said\n"
    with pytest.raises(Internal, match="No such file"):
        client.spawn(["/nonexistent"], output)
    os.close(output)


def test_a_monitor_and_its_end(client: KeeperClient, root: str) -> None:
    gate = os.path.join(root, "gate")
    os.mkfifo(gate)
    watcher, listener = _launch(client, root, f"echo hello >&2; read line < {gate}; exit 5")
    with watcher, listener:
        console, _ = listener.accept()
        with pytest.raises(Internal, match="already has a monitor"):
            client.connection().call(
                {"op": "launch", "id": "c", "directory": root, "log_limit": 1, "argv": ["/bin/true"], "pid_file": ""}
            )
        assert client.monitors() == ["c"]
        console.sendall(b"printed\n")
        assert watcher.event(30) == {"event": "console"}
        pid = client.ask({"op": "hello"})["pid"]
        assert _pss(pid) < _PSS_LIMIT
        console.close()
        with limit(30, "opening the gate"), open(gate, "w", encoding="ascii") as file:
            file.write("go\n")
        event = _read_exit(watcher)
    assert event["status"] == _exit(os.path.join(root, "c"))["status"] == 5 << 8
    for name, content in (("console.log", b"printed\n"), ("monitor.log", b"hello\n")):
        with open(os.path.join(root, "c", name), "rb") as log:
            assert log.read() == content


def _pss(pid: object) -> int:
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("Pss:"))


def test_an_end_is_stored_before_it_is_told(client: KeeperClient, root: str) -> None:
    for code in (0, 1, 77):
        watcher, listener = _launch(client, root, f"exit {code}")
        with watcher, listener:
            if watcher.fileno() >= 0 and "exit.json" not in os.listdir(os.path.join(root, "c")):
                _read_exit(watcher)
        assert _exit(os.path.join(root, "c"))["status"] == code << 8
        os.unlink(os.path.join(root, "c", "console.sock"))


def test_a_full_disk_does_not_lose_an_exit(client: KeeperClient, root: str) -> None:
    """The report cannot be written (a directory is in its way); once it can, it is."""
    blocker = os.path.join(root, "c", "exit.json.new")
    os.mkdir(blocker)
    watcher, listener = _launch(client, root, "exit 9")
    with watcher, listener:
        assert client.monitors() == ["c"]
        os.rmdir(blocker)
        assert _read_exit(watcher)["status"] == 9 << 8
    assert _exit(os.path.join(root, "c"))["status"] == 9 << 8


def test_nonsense_is_refused(client: KeeperClient) -> None:
    connection = client.connection()
    for message in (
        {"op": "dance"},
        {},
        {"op": "watch"},
        {"op": "spawn", "argv": "ls"},
        {"op": "spawn", "argv": ["/bin/true"]},
        {"op": "put", "name": "x"},
        {"op": "adopt", "id": "x", "pid": "1"},
        {"op": "adopt", "id": "x", "pid": os.getpid(), "start_time": 1},
    ):
        with pytest.raises(Internal, match="refused"):
            connection.call(message)  # type: ignore[arg-type]  # that is the point
    assert client.monitors() == []


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_nothing_is_launched_for_who_has_hung_up(client: KeeperClient, root: str) -> None:
    keeper = client.ask({"op": "hello"})["pid"]
    assert isinstance(keeper, int)
    connection = client.connect()
    with _stopped(keeper):
        with pytest.raises(DeadlineExceeded):
            connection.call({"op": "launch", "id": "late"}, seconds=0.01)
        assert connection.gone
    end = time.monotonic() + 60
    while "nobody waits for the launch of late" not in _log(root):
        assert time.monotonic() < end
        client.ask({"op": "names"})
    assert client.monitors() == []


def _log(root: str) -> str:
    with open(os.path.join(root, "run", "keeper.log"), encoding="utf-8") as file:
        return file.read()


def test_who_does_not_read_is_not_waited_for(client: KeeperClient) -> None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    os.chdir(client._settings.directory)
    client.ask({"op": "hello"})
    sock.connect("keeper.sock")
    sock.setblocking(False)
    sent = 0
    try:
        while sent < 20000:
            wire.send(sock, {"op": "names"})
            sent += 1
    except OSError:
        pass
    assert client.ask({"op": "names"})["names"] == []
    sock.close()


def test_a_killed_keeper_is_replaced(client: KeeperClient, root: str) -> None:
    first = client.ask({"op": "hello"})["pid"]
    assert isinstance(first, int)
    os.kill(first, signal.SIGKILL)
    second = client.ask({"op": "hello"})["pid"]
    assert second != first
    os.kill(int(str(second)), signal.SIGKILL)
    lock = os.open(os.path.join(root, "run", "keeper.lock"), os.O_RDWR)
    with limit(30, "dying"):
        fcntl.flock(lock, fcntl.LOCK_EX)
    os.close(lock)
    with pytest.raises(Unavailable, match="was killed"):
        client.spawn(["/bin/true"], 1, same=True)
    client.ask({"op": "hello"})  # one that leaves in order
