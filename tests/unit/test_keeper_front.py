"""The keeper with a daemon: whole frames in order, unanswered requests to the next daemon, nobody waited for, nobody's memory."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from engine_leftovers import limit
from keeper_world import FRAME, Caller, World, request, until, world
from unikeel.errors import Internal, Unavailable
from unikeel.keeper.client import KeeperClient, KeeperSettings
from unikeel.keeper.listeners import Listeners
from unikeel.keeper.loop import Loop
from unikeel.keeper.systemd import Manager
from unikeel.keeper.waiting import Waiting


@pytest.fixture
def place(tmp_path: os.PathLike[str]) -> Iterator[World]:
    with limit(100, "the test"), world(str(tmp_path)) as place:
        place.wait_ready()
        yield place


def test_requests_are_answered_whole_and_in_order(place: World) -> None:
    caller = place.caller()
    bodies = [b"echo " + bytes([65 + index % 26]) * (index * 997 % 70000) for index in range(60)]
    stream = b"".join(request(2 * index + 1, body) for index, body in enumerate(bodies))
    place.client.listen("task:1", f"{place.directory}/task.sock")
    place.client.listen("task:1", f"{place.directory}/task.sock")
    other = place.caller("task.sock")
    assert other.ask(1, b"echo other") == b"echo other"
    for at in range(0, len(stream), 3001):  # frames begin and end anywhere
        caller.socket.sendall(stream[at : at + 3001])
    assert [caller.answer() for _ in bodies] == [(2 * index + 1, body) for index, body in enumerate(bodies)]
    heard = place.heard()
    assert [line.split()[2] for line in heard if line.startswith("open")] == ["launch", "task:1"]
    other.close()
    until(lambda: any(line.startswith("close") for line in place.heard()), "nobody is told of a close")
    with pytest.raises(Internal, match="listens at"):
        place.client.listen("task:1", f"{place.directory}/elsewhere.sock")
    place.client.unlisten("task:1")
    assert not os.path.exists(f"{place.directory}/task.sock")
    assert place.hello()["buffered"] == 0


def test_the_largest_frame_passes_and_a_larger_one_is_refused(place: World) -> None:
    caller = place.caller()
    body = b"echo " + b"x" * ((4 << 20) - 5)
    assert caller.ask(1, body) == body
    size = (4 << 20) + 1
    caller.socket.sendall(FRAME.pack(size, 3, 1, 0))
    stream, answer = caller.answer()
    assert (stream, answer[0], answer[2:4]) == (3, 0x0A, b"\x08\x08")
    caller.socket.sendall(b"y" * size)
    assert caller.ask(5, b"echo after") == b"echo after"
    caller.socket.sendall(FRAME.pack(0xFFFFFFFF, 7, 3, 0))  # not a request: drained, and no word about it
    assert caller.silent()


def test_a_killed_daemon_is_replaced_and_gets_what_was_not_answered(place: World) -> None:
    first, second = place.caller(), place.caller()
    first.send(1, b"hold")
    second.send(1, b"park")
    first.send(3, b"hold 2")
    until(lambda: len(place.heard()) == 5, "the requests do not arrive")
    place.kill_daemon()
    until(lambda: len(place.heard()) == 10, "nothing is replayed")
    again = place.heard()[5:]
    assert [line.split()[0] for line in again] == ["open", "open", "request", "request", "request"]
    assert [line for line in again if "hold" in line] == ["request 1 1 hold", "request 3 1 hold 2"]
    assert "request 1 1 park" in again
    first.send(5, b"wake")
    assert sorted(first.answer() for _ in range(3)) == [(1, b"woken"), (3, b"woken"), (5, b"")]
    assert second.answer() == (1, b"woken")
    log = place.text("keeper.log")
    assert "killed by signal 9" in log
    assert place.hello()["restarts"] == 1


def test_answers_of_replayed_requests_reach_who_asked(place: World) -> None:
    caller = place.caller()
    caller.send(1, b"die 1")
    assert caller.answer() == (1, b"die 1")
    attempt, age = caller.ask(3, b"count").split()
    assert (int(attempt), 0 <= int(age) < 10**9) == (0, True)
    assert "begins" in place.text("daemon.log")


def test_who_has_seen_two_daemons_die_is_answered(place: World) -> None:
    caller, waiter = place.caller(), place.caller()
    waiter.send(1, b"park")
    until(lambda: "park" in "".join(place.heard()), "the wait does not arrive")
    caller.send(1, b"die 99")
    stream, answer = caller.answer()
    assert (stream, answer[2:4]) == (1, b"\x08\x0d")
    assert b"two daemons" in answer
    place.wait_ready(2)
    assert waiter.silent()
    assert caller.ask(3, b"wake") == b""
    assert waiter.answer() == (1, b"woken")
    assert sum("die" in line for line in place.heard()) == 2


def test_a_daemon_that_fails_to_start_costs_no_request(place: World) -> None:
    caller = place.caller()
    caller.send(1, b"hold")
    until(lambda: "hold" in "".join(place.heard()), "the request does not arrive")
    place.touch("broken")
    os.kill(place.pid(), signal.SIGKILL)
    until(lambda: int(str(place.hello()["restarts"])) >= 4, "it is not tried again")
    assert "broken" in place.text("daemon.log")
    os.unlink(f"{place.directory}/broken")
    until(lambda: place.hello()["ready"] is True, "no daemon serves")
    assert caller.ask(3, b"count").startswith(b"0 ")
    assert any(line == "request 1 1 hold" for line in place.heard())


def test_a_client_that_leaves_within_a_frame_harms_nobody(place: World) -> None:
    for _ in range(3):
        caller = place.caller()
        caller.socket.sendall(request(1, b"echo whole") + request(3, b"x" * 1000)[:500])
        assert caller.answer() == (1, b"echo whole")
        caller.close()
    until(lambda: place.hello()["connections"] == 0, "the connections stay")
    assert place.hello()["buffered"] == 0
    assert place.caller().ask(1, b"echo next") == b"echo next"


def test_a_client_that_only_stops_writing_gets_its_answers(place: World) -> None:
    caller = place.caller()
    caller.send(1, b"hold")
    caller.socket.shutdown(socket.SHUT_WR)
    assert caller.silent()
    assert place.caller().ask(1, b"wake") == b""
    assert caller.answer() == (1, b"woken")
    assert caller.socket.recv(1) == b""


def test_the_daemon_closes_a_connection(place: World) -> None:
    caller = place.caller()
    assert caller.ask(1, b"close") == b"bye"
    assert caller.socket.recv(1) == b""
    until(lambda: place.hello()["connections"] == 0, "the connection stays")


def test_who_does_not_read_is_closed_and_delays_nobody(place: World) -> None:
    lazy, other = place.caller(), place.caller()
    for index in range(8):
        with contextlib.suppress(BrokenPipeError):
            lazy.send(2 * index + 1, b"big %d" % (4 << 20))
        assert other.ask(2 * index + 1, b"echo") == b"echo"
    until(lambda: place.hello()["connections"] == 1, "it is not closed")
    assert "reads none of its answers" in place.text("keeper.log")
    assert place.hello()["buffered"] == 0
    slow = place.caller()
    for index in range(3):
        slow.send(2 * index + 1, b"big %d" % (4 << 20))
    time.sleep(0.1)
    for index in range(3):
        assert slow.answer() == (2 * index + 1, b"x" * (4 << 20))


def test_memory_is_bounded_while_no_daemon_serves(place: World) -> None:
    place.touch("deaf")
    os.kill(place.pid(), signal.SIGKILL)
    until(lambda: place.hello()["ready"] is False and place.pid() > 0, "the other daemon does not begin")
    keeper = place.pid("pid")
    body = b"echo " + b"z" * ((4 << 20) - 100)
    callers = [place.caller() for _ in range(30)]
    left = [memoryview(request(1, body)) for _ in callers]
    end = time.monotonic() + 2
    for caller in callers:
        caller.socket.setblocking(False)
    while time.monotonic() < end:
        for index, caller in enumerate(callers):
            try:
                left[index] = left[index][caller.socket.send(left[index][:100000]) :] if left[index] else left[index]
            except BlockingIOError:
                continue
    buffered = place.hello()["buffered"]
    assert isinstance(buffered, int)
    assert 48 << 20 < buffered < 70 << 20
    assert _rss(keeper) < 140 << 20
    os.unlink(f"{place.directory}/deaf")
    os.kill(place.pid(), signal.SIGKILL)
    for index, caller in enumerate(callers):
        caller.socket.settimeout(60)
        if left[index]:
            caller.socket.sendall(left[index])
        assert caller.answer() == (1, body)
    until(lambda: place.hello()["buffered"] == 0, "something stays buffered")


def _rss(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_hundreds_of_connections(place: World) -> None:
    keeper = place.pid("pid")
    before = len(os.listdir(f"/proc/{keeper}/fd"))
    assert _rss(keeper) < 13 << 20
    callers = [place.caller() for _ in range(400)]
    for caller in callers:
        caller.send(1, b"hold")
    for index, caller in enumerate(callers):
        caller.send(3, b"echo %d" % index)
    assert [caller.answer() for caller in callers] == [(3, b"echo %d" % index) for index in range(400)]
    place.kill_daemon()
    place.wait_ready(1)
    until(lambda: sum("request 1 1 hold" in line for line in place.heard()) == 400, "not all are replayed")
    callers[0].send(5, b"wake")
    assert [caller.answer() for caller in callers] == [(1, b"woken")] * 400
    for caller in callers:
        caller.close()
    until(lambda: len(os.listdir(f"/proc/{keeper}/fd")) == before, "descriptors stay")


def test_a_daemon_that_loses_its_link_is_killed(place: World) -> None:
    place.touch("stubborn")
    os.kill(place.pid(), signal.SIGKILL)
    place.wait_ready(1)
    os.unlink(f"{place.directory}/stubborn")
    pid = place.pid()
    os.kill(place.pid("pid"), signal.SIGKILL)  # the keeper: the next one finds its daemon
    until(lambda: place.hello()["ready"] is True, "no daemon serves")
    assert "the daemon of an earlier keeper" in place.text("keeper.log")
    assert place.pid() != pid
    until(lambda: _ended(pid), "there are two daemons")


def _ended(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_its_environment(place: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place.caller().ask(1, b"environment NOTIFY_SOCKET") == b"-"
    assert place.caller().ask(1, b"environment PATH") == os.environ["PATH"].encode()
    place.close()
    monkeypatch.setenv("UNIKEEL_THIS", "that")
    place.callers = []
    place.client.start_early()
    place.wait_ready()
    assert place.caller().ask(1, b"environment UNIKEEL_THIS") == b"that"


def test_it_ends_in_order(place: World) -> None:
    caller = place.caller()
    assert caller.ask(1, b"echo") == b"echo"
    daemon = place.pid()
    place.close()
    assert _ended(daemon)
    assert sorted(os.listdir(place.directory)) == ["daemon.log", "heard", "keeper.lock", "keeper.log", "keeper.start"]


@pytest.mark.long
def test_a_daemon_that_does_not_end_is_killed(place: World) -> None:
    place.touch("stubborn")
    os.kill(place.pid(), signal.SIGKILL)
    place.wait_ready(1)
    daemon, began = place.pid(), time.monotonic()
    place.close()
    assert _ended(daemon)
    assert 9 < time.monotonic() - began < 15


def test_a_daemon_that_cannot_be_started(tmp_path: os.PathLike[str]) -> None:
    with limit(60, "the test"), world(str(tmp_path)) as place:
        place.client.close()
        place.client = KeeperClient(place.client._settings._replace(daemon=("/nonexistent",)))
        place.client.start_early()
        logs = (
            "daemon.log",
            "keeper.log",
        )  # where the keeper is in a mount namespace of its own, a helper enters the host's first
        until(lambda: any("No such file" in place.text(log) for log in logs if place.client.lives()), "nothing is said")
        assert place.hello()["ready"] is False


def test_whoever_is_not_to_start_a_keeper_does_not(tmp_path: os.PathLike[str]) -> None:
    client = KeeperClient(KeeperSettings(str(tmp_path), starts=False))
    with pytest.raises(Unavailable, match="is gone"):
        client.ask({"op": "hello"})
    client.close()
    assert os.listdir(tmp_path) == []


def test_threads_share_a_client(place: World) -> None:
    import threading

    wrong: list[str] = []

    def use(index: int) -> None:
        for turn in range(50):
            name = f"view:{index}.{turn}"
            read, write = os.pipe()
            place.client.put(name, write)
            got = place.client.get(name)
            # None: nobody used it for the tenth of a second after which this keeper lets go, on a busy machine.
            if got is not None and os.fstat(got).st_ino != os.fstat(read).st_ino:
                wrong.append(name)
            for fd in (read, write, *([got] if got is not None else [])):
                os.close(fd)
            place.client.drop(name)

    threads = [threading.Thread(target=use, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert place.client.names() == []


def test_strangers_are_turned_away(place: World) -> None:
    if os.geteuid() != 0:
        return  # nobody else can be played
    os.chmod(place.directory, 0o711)
    os.chmod(f"{place.directory}/launch.sock", 0o666)
    pid = os.fork()
    if pid == 0:
        try:
            sock = socket.socket(socket.AF_UNIX)
            os.chdir(place.directory)
            os.setresuid(12345, 12345, 12345)
            sock.connect("launch.sock")
            os._exit(0 if sock.recv(1) == b"" else 1)
        finally:
            os._exit(3)
    assert os.waitpid(pid, 0)[1] == 0
    assert isinstance(place.caller(), Caller)


_GREETING = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def test_a_socket_that_is_lent(place: World) -> None:
    """The daemon takes its connections; those that come when it has died are greeted, and wait for the next one."""
    path = f"{place.directory}/held.sock"
    with place.client.listener("one", path) as first:
        inode = os.stat(path).st_ino
        caller = place.caller("held.sock")
        with first.accept()[0] as taken:
            taken.sendall(b"x")
        assert caller.read(1) == b"x"
        queued = place.caller("held.sock")
        place.touch("deaf")
        place.kill_daemon()
    callers = [queued, *(place.caller("held.sock") for _ in range(20))]
    for number, each in enumerate(callers):
        assert each.read(len(_GREETING)) == _GREETING
        each.socket.sendall(bytes([number]))
    left = place.caller("held.sock")
    left.read(len(_GREETING))
    assert place.hello()["waiting"] == len(callers) + 1
    left.close()
    until(lambda: place.hello()["waiting"] == len(callers), "nobody sees that one has left")
    with place.client.listener("one", path) as again:
        assert os.stat(path).st_ino == inode
        late = place.caller("held.sock")
        waiting = place.client.waiting("one")
        assert [sock.recv(9) for sock in waiting] == [bytes([number]) for number in range(len(callers))]
        waiting[3].sendall(b"answer")
        assert callers[3].read(6) == b"answer"
        assert place.client.waiting("one") == []
        again.accept()[0].close()
        assert late.socket.recv(1) == b"", "it is not greeted here"
    for sock in waiting:
        sock.close()


def test_nobody_waits_for_what_the_daemon_does_not_serve(place: World) -> None:
    path = f"{place.directory}/held.sock"
    place.client.listener("one", path).close()
    place.touch("deaf")
    place.kill_daemon()
    caller = place.caller("held.sock")
    assert caller.read(len(_GREETING)) == _GREETING
    os.unlink(f"{place.directory}/deaf")
    place.kill_daemon()
    place.wait_ready(None)
    assert caller.socket.recv(1) == b""
    assert place.caller("held.sock").silent()
    assert place.hello()["waiting"] == 0


def test_nobody_waits_for_ever() -> None:
    loop = Loop(lambda _: None)
    waiting = Waiting(loop, Listeners(loop, Manager(loop), lambda _listening, _sock: None))
    begin = time.monotonic()
    pairs = [socket.socketpair() for _ in range(40)]
    for ours, theirs in pairs:
        waiting.accepted("held:one", ours)
        assert theirs.recv(100) == _GREETING
    due = waiting.due()
    assert due is not None
    assert due > begin
    waiting.tick(due)
    assert len(waiting) < 40
    waiting.tick(due + 3600)
    assert (len(waiting), waiting.due()) == (0, None)
    assert [theirs.recv(1) for _, theirs in pairs] == [b""] * 40
    for _, theirs in pairs:
        theirs.close()


def test_the_names_and_paths_of_lent_sockets(place: World) -> None:
    path = f"{place.directory}/held.sock"
    place.client.listener("one", path).close()
    with pytest.raises(Internal, match="listens at"):
        place.client.listener("one", f"{place.directory}/elsewhere.sock")
    with pytest.raises(Internal, match="no socket that is lent"):
        place.client.ask({"op": "listener", "name": "launch", "path": f"{place.directory}/launch.sock"})
    place.client.listener("two", f"{place.directory}/two.sock").close()
    place.client.hold_only(["two"])
    assert not os.path.exists(path)
    assert os.path.exists(f"{place.directory}/two.sock")
    place.client.unlisten("held:two")
    assert not os.path.exists(f"{place.directory}/two.sock")
    place.client.hold_only([])
    with pytest.raises(Internal, match="list"):
        place.client.ask({"op": "hold only", "names": "two"})
