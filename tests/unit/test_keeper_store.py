"""A keeper that a service manager runs: killed at any moment and started again, it goes on where it was, and nobody outside notices."""

from __future__ import annotations

import os
import signal
import socket
import stat
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_leftovers import limit
from keeper_world import FRAME, Caller, Systemd, World, request, until
from unikeel.errors import UnikeelError
from unikeel.keeper.journal import Journal
from unikeel.keeper.peer import Peer
from unikeel.keeper.processes import start_time
from unikeel.keeper.wire import Message

_OLD, _NEW = b"\x0a\x17containerd.task.v2.Task", b"\x0a\x17containerd.task.v3.Task"


@pytest.fixture
def place(tmp_path: os.PathLike[str]) -> Iterator[World]:
    with limit(120, "the test"):
        place = World(str(tmp_path), starts=False)
        yield place
        for caller in place.callers:
            caller.close()
        place.client.close()


@pytest.fixture
def systemd(place: World) -> Iterator[Systemd]:
    systemd = Systemd(place.directory)
    systemd.start()
    until(place.client.lives, "no keeper")
    place.wait_ready()
    yield systemd
    assert systemd.end() == 0
    systemd.close()


def _again(place: World, systemd: Systemd) -> None:
    systemd.kill()
    systemd.start()
    until(place.client.lives, "no keeper")
    place.wait_ready(None)


def test_it_tells_how_it_is(place: World, systemd: Systemd) -> None:
    systemd.settle()
    assert "READY=1" in systemd.said
    assert f"MAINPID={systemd.pid}" in systemd.said
    assert place.pid("pid") == systemd.pid
    assert any(line.startswith("STATUS=serving") for line in systemd.said)
    place.kill_daemon()
    place.wait_ready(1)
    systemd.settle()
    assert any("killed by signal 9" in line for line in systemd.said)
    assert place.caller().ask(1, b"environment NOTIFY_SOCKET") == b"-"
    assert place.caller().ask(1, b"environment LISTEN_FDS") == b"-"


def test_connections_and_requests_outlive_a_killed_keeper(place: World, systemd: Systemd) -> None:
    place.client.listen("task:7", f"{place.directory}/task.sock")
    first, second, idle = place.caller(), place.caller("task.sock"), place.caller()
    assert idle.ask(1, b"echo idle") == b"echo idle"
    first.send(1, b"hold")
    second.send(1, b"park")
    partial = request(3, b"echo " + b"p" * 200000)
    second.socket.sendall(partial[:150000])
    until(lambda: len(place.heard()) >= 6, "the requests do not arrive")
    daemon = place.pid()
    for _ in range(2):
        _again(place, systemd)
    second.socket.sendall(partial[150000:])
    assert second.answer() == (3, partial[10:])
    first.send(3, b"wake")
    assert sorted(first.answer() for _ in range(2)) == [(1, b"woken"), (3, b"")]
    assert second.answer() == (1, b"woken")
    assert place.pid() != daemon
    assert idle.ask(3, b"count").split()[0] == b"0"
    assert place.caller("task.sock").ask(1, b"echo new") == b"echo new"
    assert any("task:7" in line for line in place.heard()[6:])
    attempts = [int(line.split()[2]) for line in place.heard() if line.endswith("hold")]
    assert attempts[0] == 0
    assert attempts[1] >= 1
    for caller in (first, second, idle):
        caller.close()
    until(lambda: place.hello()["connections"] in (0, 1), "connections stay")
    place.client.unlisten("task:7")
    systemd.settle()
    names = {name.split(".")[1] for name in systemd.names()}
    assert names <= {"l", "c"}
    assert len([name for name in systemd.names() if ".l." in name]) == 2


def test_an_answer_that_is_half_written_is_completed(place: World, systemd: Systemd) -> None:
    caller = place.caller()
    caller.send(1, b"big 3000000")
    until(lambda: isinstance(size := place.hello()["buffered"], int) and size > 1 << 20, "the answer does not come")
    head = caller.read(100000)
    _again(place, systemd)
    rest = caller.read(3000010 - 100000)
    assert head + rest == FRAME.pack(3000000, 1, 2, 0) + b"x" * 3000000
    assert caller.ask(3, b"echo next") == b"echo next"


_POINTS = ("received", "committed", "forwarded", "answered", "sent")


@pytest.mark.parametrize("point", _POINTS)
def test_it_is_killed_at_every_step_of_a_request(place: World, systemd: Systemd, point: str) -> None:
    os.mkfifo(f"{place.directory}/point")
    systemd.kill()
    systemd.start(point=f"keeper.front.{point}")
    caller = _connect(place)
    body = b"echo " + b"s" * 1000
    caller.socket.sendall(request(1, body))
    assert systemd.stopped() == f"keeper.front.{point}"
    _again(place, systemd)
    assert caller.answer() == (1, body)
    while not caller.silent(0.05):  # what was replayed may be answered twice, which a client ignores
        assert caller.answer() == (1, body)
    assert caller.ask(3, b"echo next") == b"echo next"


def _connect(place: World) -> Caller:
    until(lambda: _listens(place), "no keeper")
    return place.caller()


def _listens(place: World) -> bool:
    try:
        return place.client.lives()
    except OSError:
        return False


def test_a_relayed_connection_outlives_a_killed_keeper(place: World, systemd: Systemd) -> None:
    shim = socket.socket(socket.AF_UNIX)
    shim.bind(f"{place.directory}/shim.sock")
    shim.listen()
    place.client.relay(f"{place.directory}/relay.sock", f"{place.directory}/shim.sock")
    caller = place.caller("relay.sock")
    there, _ = shim.accept()
    there.settimeout(30)
    body = _OLD + os.urandom(300000)
    frame = FRAME.pack(len(body), 1, 1, 0) + body
    caller.socket.sendall(frame[:20])
    until(lambda: len([name for name in systemd.names() if ".p." in name]) == 3, "the pair is not kept")
    _again(place, systemd)
    sender = threading.Thread(target=lambda: caller.socket.sendall(frame[20:]))
    sender.start()
    got = there.recv(1000)
    _again(place, systemd)
    while len(got) < len(frame):
        piece = there.recv(1 << 16)
        assert piece, place.text("keeper.log")
        got += piece
    assert got == frame.replace(_OLD, _NEW)
    sender.join(30)
    there.sendall(b"back")
    assert caller.read(4) == b"back"
    second = place.caller("relay.sock")
    other, _ = shim.accept()
    for sock in (caller.socket, there, second.socket, other, shim):
        sock.close()
    until(lambda: place.hello()["relays"] == 0, "pairs stay")
    place.client.unrelay(f"{place.directory}/relay.sock")
    until(lambda: len(systemd.names()) == 2, "the store keeps more than the listener launch")
    assert [name for name in systemd.names() if ".p." in name] == []


@pytest.mark.parametrize(
    "point",
    [
        *("listen.begin", "listen.bound", "listen.done", "front.accepted", "front.stored", "front.replay"),
        *("relay.accepted", "relay.received", "relay.committed"),
        *("daemon.begin", "daemon.spawned", "daemon.started", "daemon.ready", "daemon.ended", "restored"),
    ],
)
def test_it_is_killed_at_every_other_step(place: World, systemd: Systemd, point: str) -> None:
    """Whoever was within a step may repeat it; nothing is left of it, and there is one daemon."""
    kept = place.caller()
    assert kept.ask(1, b"echo kept") == b"echo kept"
    shim = socket.socket(socket.AF_UNIX)
    shim.bind(f"{place.directory}/shim.sock")
    shim.listen()
    os.mkfifo(f"{place.directory}/point")
    systemd.kill()
    systemd.start(point=f"keeper.{point}")
    user = threading.Thread(target=_use, args=(place,))
    user.start()
    assert systemd.stopped() == f"keeper.{point}"
    _again(place, systemd)
    user.join()
    _use(place)
    assert kept.ask(3, b"echo still") == b"echo still"
    kept.close()
    until(lambda: place.hello()["connections"] == place.hello()["relays"] == 0, "connections stay")
    for name in ("task:1", "relay:x"):
        place.client.unlisten(name)
    place.client.unrelay(f"{place.directory}/relay.sock")
    until(lambda: len(systemd.names()) == 2, "the store keeps more than the listener")
    shim.close()


def _use(place: World) -> None:
    """A use of everything, whatever is interrupted."""
    client = World(place.directory, starts=False)
    try:
        until(client.client.lives, "no keeper")
        client.client.listen("task:1", f"{place.directory}/task.sock")
        client.client.relay(f"{place.directory}/relay.sock", f"{place.directory}/shim.sock")
        client.caller("task.sock").ask(1, b"echo task")
        relayed = client.caller("relay.sock")
        relayed.send(1, b"echo relayed")
        os.kill(client.pid(), signal.SIGKILL)
    except (AssertionError, OSError, UnikeelError):
        pass
    finally:
        for caller in client.callers:
            caller.close()
        client.client.close()


def test_a_peer_that_left_meanwhile(place: World, systemd: Systemd) -> None:
    caller = place.caller()
    caller.send(1, b"hold")
    until(lambda: any("hold" in line for line in place.heard()), "the request does not arrive")
    systemd.kill()
    caller.close()
    systemd.start()
    until(place.client.lives, "no keeper")
    until(lambda: place.hello()["connections"] == 0, "it stays")
    until(lambda: not any(".c." in name for name in systemd.names()), "the store keeps connections")


def test_a_socket_of_a_unit_and_what_means_nothing(place: World) -> None:
    systemd = Systemd(place.directory)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{place.directory}/launch.sock")
    listener.listen()
    inode = os.stat(f"{place.directory}/launch.sock").st_ino
    systemd.store.append(("unikeel.c.0000000000000001.m", os.memfd_create("x")))
    systemd.store.append(("unikeel.c.0000000000000002.s", os.dup(listener.fileno())))
    systemd.store.append(("unikeel.c.0000000000000002.m", os.memfd_create("x")))
    systemd.start({"launch": listener.fileno(), "stranger": listener.fileno()})
    until(place.client.lives, "no keeper")
    place.wait_ready()
    assert place.caller().ask(1, b"echo given") == b"echo given"
    assert os.stat(f"{place.directory}/launch.sock").st_ino == inode
    systemd.settle()
    assert all(name.split(".")[2] not in ("0000000000000001", "0000000000000002") for name in systemd.names())
    log = place.text("keeper.log")
    assert "named stranger" in log
    assert "is missing" in log
    assert systemd.end() == 0
    assert stat.S_ISSOCK(os.stat(f"{place.directory}/launch.sock").st_mode)
    systemd.close()
    listener.close()


def test_a_held_socket_of_a_unit(place: World) -> None:
    """It is the snapshotter's, and each keeper gets it again."""
    systemd = Systemd(place.directory)
    path = f"{place.directory}/snapshots.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    inode = os.stat(path).st_ino
    systemd.start({"snapshots": listener.fileno()})
    until(place.client.lives, "no keeper")
    place.wait_ready()
    place.client.listener("other", f"{place.directory}/other.sock").close()
    for _ in range(2):
        with socket.socket(socket.AF_UNIX) as caller, place.client.listener("containerd", path) as held:
            caller.connect(path)
            held.accept()[0].close()
        assert os.stat(path).st_ino == inode
        systemd.kill()
        systemd.start({"snapshots": listener.fileno()})
        until(place.client.lives, "no keeper")
        place.wait_ready(None)
    systemd.settle()
    with (
        socket.socket(socket.AF_UNIX) as caller,
        place.client.listener("other", f"{place.directory}/other.sock") as held,
    ):
        caller.connect(f"{place.directory}/other.sock")
        held.accept()[0].close()
    assert systemd.end() == 0
    systemd.close()
    listener.close()


@given(
    st.binary(max_size=200),
    st.lists(st.binary(max_size=3000), max_size=5),
    st.binary(max_size=400),
    st.binary(max_size=90),
)
@settings(max_examples=50)
def test_a_journal_tells_what_was_transferred(text: bytes, pieces: list[bytes], sent: bytes, come: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        journal = Journal(1)
        again = os.dup(journal.fd)
        journal.commit({"text": text.hex()}, [*pieces, sent])
        if sent:
            assert journal.send(0, ours, sent) == len(sent)
            assert theirs.recv(1 << 16) == sent
        if come:
            theirs.sendall(come)
            assert journal.receive(0, ours) == come
        assert journal.behind == bool(sent or come)
        other = Journal(1, again)
        assert other.recover() == ({"text": text.hex()}, [*pieces, sent])
        assert other.unseen(0) == (come, len(sent))
        other.commit({}, [])
        assert not other.behind
        assert other.unseen(0) == (b"", 0)
        with pytest.raises(BlockingIOError):
            other.receive(0, ours)
        theirs.close()
        assert other.receive(0, ours) == b""
        with pytest.raises(BrokenPipeError):
            other.send(0, ours, b"x")
        journal.close()
        other.close()
        other.close()


def test_a_peer_is_recovered_at_any_time() -> None:
    """The state after each transfer is one that goes on rightly, whether it was committed or not."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    peer = Peer(5, "launch", ours, Journal(1))
    peer.commit()
    stream = request(1, b"one") + request(3, b"two" * 100) + request(5, b"three")
    seen: list[int] = []
    for at in range(0, len(stream), 50):
        theirs.sendall(stream[at : at + 50])
        data = peer.receive()
        if at % 100:
            peer.take(data)
            peer.commit()
        assert peer.journal is not None
        fd = os.dup(peer.journal.fd)
        peer.journal.close()
        peer, refused = Peer.recover(ours, Journal(1, fd))
        assert refused == []
        seen = list(peer.pending)
    assert seen == [1, 3, 5]
    assert [pending.frame[10:] for pending in peer.pending.values()] == [b"one", b"two" * 100, b"three"]
    peer.close()
    theirs.close()


def test_memory_of_a_journal_is_given_back() -> None:
    journal = Journal(1)
    for size in (4 << 20, 10, 4 << 20, 10, 10):
        journal.commit({}, [b"x" * size])
    assert os.fstat(journal.fd).st_blocks * 512 < 1 << 20
    journal.close()
    with pytest.raises(ValueError, match="cut short"):
        Journal(1, os.memfd_create("x"))


def test_a_task_s_reader_does_not_see_the_keeper_s_end(place: World, systemd: Systemd) -> None:
    """The ends of its streams stay open meanwhile, and the next keeper needs no others."""
    directory = os.path.join(place.directory, "task")
    os.mkdir(directory)
    os.mkfifo(f"{directory}/out")
    reader = os.open(f"{directory}/out", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(f"{directory}/out", os.O_WRONLY | os.O_NONBLOCK)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{directory}/console.sock")
        listener.listen()
        common: Message = {
            "id": "t",
            "directory": directory,
            "console": f"{directory}/console.sock",
            "log_limit": 1 << 20,
            "reaper": [],
            "holds": [],
        }
        launch: Message = {
            "op": "launch",
            "argv": ["/bin/sleep", "1000"],
            "pid_file": "",
            "helper": None,
            "stdio": ["stdout"],
            **common,
        }
        pid = place.client.connection().call(launch, (listener.fileno(), writer))["pid"]
        assert isinstance(pid, int)
        os.close(writer)
        console, _ = listener.accept()
    with console:
        console.sendall(b"one")
        _read(reader, b"one")
        systemd.settle()
        assert "unikeel.o.t.stdout" in systemd.names()
        _again(place, systemd)
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
        assert place.client.ask({"op": "restored", "id": "t"})["streams"] is True
        adopt: Message = {"op": "adopt", "pid": pid, "start_time": start_time(pid), "stdio": [], **common}
        place.client.connection().call(adopt)
        console.sendall(b"two")
        _read(reader, b"two")
        os.kill(pid, signal.SIGKILL)
        place.client.close_io("t")
    systemd.settle()
    until(lambda: "unikeel.o.t.stdout" not in systemd.names(), "it is kept")
    assert os.read(reader, 1) == b""
    os.close(reader)


def _read(fd: int, wanted: bytes) -> None:
    found = bytearray()

    def more() -> bool:
        try:
            found.extend(os.read(fd, 100))
        except BlockingIOError:
            return False
        return wanted in found

    until(more, "nothing is read")
