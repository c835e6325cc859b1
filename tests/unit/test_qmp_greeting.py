"""Talking to a monitor that is just starting, played by a socket of ours."""

from __future__ import annotations

import gc
import json
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from unikeel.errors import Unavailable
from unikeel.sandbox import qmp

_GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}
_EVENT = {"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESUME"}


@contextmanager
def _monitor(path: str, first: Sequence[object]) -> Iterator[list[str]]:
    """A monitor that begins its connections with these messages in turn; the commands that it got."""
    got: list[str] = []
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(8)

    def serve() -> None:
        for message in first:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(json.dumps(message).encode() + b"\n")
                while data := connection.recv(4096):  # one command at a time, without a line's end
                    command = json.loads(data)
                    got.append(command["execute"])
                    answer = {"return": {"status": "running", "running": True}}
                    answer |= {"id": command["id"]} if "id" in command else {}
                    connection.sendall(json.dumps(answer).encode() + b"\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield got
    finally:
        thread.join(30)
        listener.close()


def test_the_state_is_asked_for(tmp_path: object) -> None:
    path = f"{tmp_path}/qmp.sock"
    with _monitor(path, [_GREETING]) as got:
        assert qmp.status(path, 30) == "running"
    assert got == ["qmp_capabilities", "query-status"]


def test_an_event_in_place_of_the_greeting_is_no_failure(tmp_path: object) -> None:
    path = f"{tmp_path}/qmp.sock"
    with _monitor(path, [_EVENT, _EVENT, _GREETING]):
        assert qmp.status(path, 30) == "running"


def test_a_monitor_that_never_greets_is_one(tmp_path: object) -> None:
    path = f"{tmp_path}/qmp.sock"
    with _monitor(path, [_EVENT] * 3), pytest.raises(Unavailable, match="control socket"):
        qmp.status(path, 30)


@pytest.mark.parametrize("round_number", range(20))
def test_a_monitor_that_goes_as_it_greets_leaves_no_socket(tmp_path: object, round_number: int) -> None:
    path = f"{tmp_path}/{round_number}.sock"
    gc.collect()  # what earlier tests left in cycles is not counted below
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(8)

        def serve() -> None:
            for _ in range(2):
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(json.dumps(_GREETING).encode() + b"\n")
                    if round_number % 2:
                        connection.recv(4096)
                        connection.sendall(b'{"return": {}}\n')

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(Unavailable, match="control socket"):
            qmp.status(path, 30)
    before = len(os.listdir("/proc/self/fd"))
    gc.collect()  # what was left open would be closed here, with a warning that pytest makes an error
    assert len(os.listdir("/proc/self/fd")) == before


def test_nobody_there(tmp_path: object) -> None:
    with pytest.raises(Unavailable, match="control socket"):
        qmp.status(f"{tmp_path}/qmp.sock", 30)
