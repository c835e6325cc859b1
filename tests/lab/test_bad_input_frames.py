"""Bytes and requests at the task socket that no containerd sends: the right code, a sentence, and the server goes on."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from lab_support import ttrpc
from lab_support.stage import Setting, nothing_left, settings
from lab_support.world import ROOTS
from unikeel.containerd.wire import task_pb2

__all__ = ["nothing_left"]
setting = settings(ROOTS[:1])
_INVALID, _NOT_FOUND, _EXHAUSTED, _FAILED, _UNIMPLEMENTED = 3, 5, 8, 9, 12


@pytest.fixture(autouse=True)
def ident(setting: Setting, nothing_left: None) -> Iterator[str]:  # noqa: ARG001 - it looks after this one is done
    """A task that must not notice anything."""
    name, daemon = setting.new(), setting.world.await_daemon()
    setting.detached(name, "wait")
    yield name
    assert setting.world.status(name) == "RUNNING"
    assert setting.world.await_daemon().pid == daemon.pid, "the daemon has died of it"
    setting.world.remove(name)


def is_sentence(text: str) -> bool:
    """Whether a message is one that a person can use: no traceback, no bare exception."""
    return len(text) > 10 and "Traceback" not in text and "Error(" not in text and "\n" not in text.strip()


@pytest.mark.parametrize(
    ("service", "method", "word"),
    [
        (ttrpc.SERVICE, "Nonsense", "Nonsense"),
        ("nonsense.Service", "State", "nonsense.Service"),
        (ttrpc.SERVICE, "", ""),
        ("", "State", ""),
    ],
)
def test_unknown_methods(setting: Setting, service: str, method: str, word: str) -> None:
    with ttrpc.connected(setting.world) as peer:
        peer.sendall(ttrpc.request(method, task_pb2.StateRequest(id="x"), service=service))
        found = ttrpc.answer(peer)
        assert found.code == _UNIMPLEMENTED
        assert word in found.message
        assert is_sentence(found.message)


def test_a_body_that_is_no_request(setting: Setting, ident: str) -> None:
    with ttrpc.connected(setting.world) as peer:
        peer.sendall(ttrpc.frame(b"\xff" * 40))
        assert ttrpc.answer(peer).code == _INVALID
        peer.sendall(ttrpc.state_request(ident, stream=3))
        assert ttrpc.answer(peer)[:2] == (3, 0)


def test_a_payload_that_is_no_message(setting: Setting) -> None:

    message = task_pb2.StateRequest(id="x")
    raw = ttrpc.request("State", message).replace(message.SerializeToString(), b"\xff\xff\xff")
    with ttrpc.connected(setting.world) as peer:
        peer.sendall(raw)
        found = ttrpc.answer(peer)
        assert found.code == _INVALID
        assert is_sentence(found.message)


def test_a_frame_over_the_limit(setting: Setting, ident: str) -> None:
    """It is passed over, and the connection goes on."""
    with ttrpc.connected(setting.world) as peer:
        peer.sendall(ttrpc.frame(bytes((4 << 20) + 1)))
        assert ttrpc.answer(peer).code == _EXHAUSTED
        peer.sendall(ttrpc.state_request(ident, stream=3))
        assert ttrpc.answer(peer)[:2] == (3, 0)


def test_the_largest_frame(setting: Setting) -> None:
    """A huge request is a request like any other: the task is not there."""
    with ttrpc.connected(setting.world) as peer:
        peer.sendall(ttrpc.request("State", task_pb2.StateRequest(id="x" * (3 << 20))))
        found = ttrpc.answer(peer)
        assert found.code in (_NOT_FOUND, _INVALID)
        assert len(found.message) < 4096


@pytest.mark.parametrize("streams", [(2,), (0,), (3, 1), (1, 1)])
def test_streams_that_cannot_be(setting: Setting, streams: tuple[int, ...]) -> None:
    with ttrpc.connected(setting.world) as peer:
        for stream in streams:
            peer.sendall(ttrpc.state_request("nobody", stream=stream))
        codes = {ttrpc.answer(peer).code for _ in streams}
        assert _INVALID in codes


def test_kinds_that_nobody_knows_are_passed_over(setting: Setting, ident: str) -> None:
    with ttrpc.connected(setting.world) as peer:
        for kind in (0, 2, 3, 77, 255):
            peer.sendall(ttrpc.frame(b"whatever", kind=kind))
        peer.sendall(ttrpc.state_request(ident, stream=5))
        while (found := ttrpc.answer(peer)).stream != 5:
            assert found.code != 0
        assert found.code == 0


def test_noise(setting: Setting) -> None:
    """Random bytes, on many connections."""
    noise = random.Random(3)
    for _ in range(50):
        with ttrpc.connected(setting.world) as peer:
            try:
                peer.sendall(noise.randbytes(noise.randrange(1, 4096)))
            except (BrokenPipeError, ConnectionResetError):
                continue  # hanging up on noise is fine


@pytest.mark.parametrize(
    "method",
    [
        "State",
        "Start",
        "Delete",
        "Kill",
        "Pause",
        "Resume",
        "Pids",
        "Stats",
        "Wait",
        "Connect",
        "Update",
        "CloseIO",
        "ResizePty",
    ],
)
def test_tasks_that_are_not_there(setting: Setting, method: str) -> None:
    for name in ("nobody", "../../etc", "", "x" * 200):
        found = ttrpc.ask(setting.world, method, task_pb2.StateRequest(id=name))
        assert found.code in (_NOT_FOUND, _INVALID), (name, found)
        assert is_sentence(found.message), found.message


def test_processes_that_are_not_there(setting: Setting, ident: str) -> None:
    for method in ("State", "Start", "Wait", "Delete", "Kill"):
        found = ttrpc.ask(setting.world, method, task_pb2.StateRequest(id=ident, exec_id="e"))
        assert found.code in (_NOT_FOUND, _INVALID), (method, found)


@pytest.mark.parametrize("number", [65, 1 << 31])
def test_signals_that_are_none(setting: Setting, ident: str, number: int) -> None:
    found = ttrpc.ask(setting.world, "Kill", task_pb2.KillRequest(id=ident, signal=number))
    assert found.code == _INVALID, found
    assert is_sentence(found.message)


def test_who_may_connect(setting: Setting) -> None:
    """The sockets are root's alone."""
    path = ttrpc.socket_path(setting.world)
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(os.path.dirname(path))).st_mode & 0o077 == 0
    done = setting.world.lab.run(["setpriv", "--reuid", "1000", "--clear-groups", "unikeel", "ps"], check=False)
    assert done.returncode != 0
    assert is_sentence(done.stderr), done.stderr
