"""Relayed connections: bytes pass as they are but for the name of the task service, wherever reads cut them, and ends pass too."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_leftovers import limit
from keeper_world import FRAME, World, until, world
from unikeel.keeper.frames import HEADER, MAX_BODY, Cutter, Renamer, head_of, refusal

_OLD, _NEW = b"\x0a\x17containerd.task.v2.Task", b"\x0a\x17containerd.task.v3.Task"
_BODIES = st.one_of(
    st.binary(max_size=60),
    st.builds(lambda rest: _OLD + rest, st.binary(max_size=80)),
    st.builds(lambda size: _OLD[:size], st.integers(0, len(_OLD))),
)
_FRAMES = st.lists(st.tuples(_BODIES, st.integers(1, 3)), max_size=8)


def _pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    at = 0
    for cut in cuts:
        yield data[at : at + cut]
        at += cut
    yield data[at:]


@given(_FRAMES, st.lists(st.integers(1, 40), max_size=20))
def test_only_requests_are_renamed(frames: list[tuple[bytes, int]], cuts: list[int]) -> None:
    stream = b"".join(FRAME.pack(len(body), 1, kind, 0) + body for body, kind in frames)
    wanted = b""
    for body, kind in frames:
        named = _NEW + body[len(_OLD) :] if kind == 1 and body.startswith(_OLD) else body
        wanted += FRAME.pack(len(body), 1, kind, 0) + named
    renamer = Renamer()
    passed = b""
    for piece in _pieces(stream, cuts):
        passed += renamer.feed(piece)
        renamer = Renamer(bytes(renamer.held), renamer.left)  # as after a keeper's death
    assert passed == wanted


@given(st.lists(st.tuples(st.binary(max_size=60), st.integers(0, 3)), max_size=8), st.lists(st.integers(1, 40)))
def test_frames_are_cut_wherever_reads_end(frames: list[tuple[bytes, int]], cuts: list[int]) -> None:
    whole = [FRAME.pack(len(body), index, kind, 0) + body for index, (body, kind) in enumerate(frames)]
    cutter, found = Cutter(), []
    for piece in _pieces(b"".join(whole), cuts):
        got, refused = cutter.feed(piece)
        assert refused == []
        found += got
    assert found == whole
    assert cutter.reserved == 0


@given(st.integers(1, 5000), st.binary(max_size=30), st.integers(1, 2000))
def test_a_frame_that_is_too_long_is_skipped(excess: int, after: bytes, size: int) -> None:
    data = (
        HEADER.pack(MAX_BODY + excess, 9, 1, 0) + b"z" * (MAX_BODY + excess) + HEADER.pack(len(after), 11, 1, 0) + after
    )
    cutter = Cutter()
    found: list[bytes] = []
    streams: list[int] = []
    step = size * 4096
    for at in range(0, len(data), step):
        got, refused = cutter.feed(data[at : at + step])
        found += got
        streams += refused
        assert len(cutter.buffer) <= 64
    assert (streams, [head_of(frame).stream for frame in found]) == ([9], [11])


def test_an_answer_by_hand() -> None:
    assert refusal(5, 8, "no") == b"\0\0\0\x08\0\0\0\x05\x02\0" + b"\x0a\x06\x08\x08\x12\x02no"
    long = refusal(1, 13, "x" * 300)
    assert long[10:18] == b"\x0a\xb1\x02\x08\x0d\x12\xac\x02"
    with pytest.raises(ValueError, match="no header"):
        head_of(b"short")


class Shim:
    """Another shim: takes connections one after the other."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(path)
        self.socket.listen()
        self.socket.settimeout(30)

    def accept(self) -> socket.socket:
        sock, _ = self.socket.accept()
        sock.settimeout(30)
        return sock


@pytest.fixture
def place(tmp_path: os.PathLike[str]) -> Iterator[World]:
    with limit(100, "the test"), world(str(tmp_path)) as place:
        place.wait_ready()
        yield place


@pytest.fixture
def shim(place: World) -> Iterator[Shim]:
    shim = Shim(f"{place.directory}/shim.sock")
    place.client.relay(f"{place.directory}/relay.sock", f"{place.directory}/shim.sock")
    place.client.relay(f"{place.directory}/relay.sock", f"{place.directory}/shim.sock")
    yield shim
    shim.socket.close()


def _read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := sock.recv(size - len(data))):
        data += piece
    return data


def test_there_and_back(place: World, shim: Shim) -> None:
    caller = place.caller("relay.sock")
    there = shim.accept()
    body = _OLD + b"\x12\x06Create"
    frame = FRAME.pack(len(body), 1, 1, 0) + body
    for at in range(0, len(frame), 7):
        caller.socket.sendall(frame[at : at + 7])
    assert _read(there, len(frame)) == frame.replace(b".v2.", b".v3.")
    there.sendall(frame)
    assert caller.read(len(frame)) == frame
    caller.socket.shutdown(socket.SHUT_WR)
    assert there.recv(1) == b""
    there.sendall(b"last")
    there.close()
    assert caller.read(4) == b"last"
    assert caller.socket.recv(1) == b""
    until(lambda: place.hello()["relays"] == 0, "the pair stays")


@pytest.mark.parametrize("direction", [0, 1])
def test_much_at_once_with_a_slow_reader(place: World, shim: Shim, direction: int) -> None:
    caller = place.caller("relay.sock")
    there = shim.accept()
    body = _OLD + os.urandom(1 << 20)
    frame = FRAME.pack(len(body), 1, 1, 0) + body
    source, sink = (caller.socket, there) if direction == 0 else (there, caller.socket)

    def send() -> None:
        source.sendall(frame * 8)
        source.close()

    sender = threading.Thread(target=send)
    sender.start()
    wanted = frame.replace(_OLD, _NEW) if direction == 0 else frame
    for _ in range(8):
        assert _read(sink, len(frame)) == wanted
    assert sink.recv(1) == b""
    sender.join()
    there.close()
    until(lambda: place.hello()["relays"] == 0, "the pair stays")


def test_nobody_there(place: World) -> None:
    place.client.relay(f"{place.directory}/relay.sock", f"{place.directory}/nothing.sock")
    assert place.caller("relay.sock").socket.recv(1) == b""
    place.client.unrelay(f"{place.directory}/relay.sock")
    assert not os.path.exists(f"{place.directory}/relay.sock")
