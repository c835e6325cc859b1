"""The keeper's messages: what is sent arrives, with its descriptors; what is wrong is refused and leaks none."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unikeel.keeper import wire

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


@given(st.dictionaries(st.text(max_size=8), _JSON, max_size=6))
def test_a_message_arrives_as_it_was(message: wire.Message) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        wire.send(ours, message)
        assert wire.receive(theirs) == (message, [])


def test_descriptors_arrive(pair: tuple[socket.socket, socket.socket]) -> None:
    read, write = os.pipe()
    wire.send(pair[0], {"op": "put"}, (write,))
    os.close(write)
    _, (received,) = wire.receive(pair[1])
    assert not os.get_inheritable(received)
    os.write(received, b"x")
    os.close(received)
    assert os.read(read, 2) == b"x"
    os.close(read)


def test_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].close()
    assert wire.receive(pair[1]) == (None, [])


@pytest.mark.parametrize("data", [b"[]", b"1", b"{", b"\xff", b'"x"'])
def test_what_is_no_message_is_refused(pair: tuple[socket.socket, socket.socket], data: bytes) -> None:
    read, write = os.pipe()
    before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(pair[0], [data], [read])
    with pytest.raises(ValueError):  # noqa: PT011 - whichever of them
        wire.receive(pair[1])
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(read)
    os.close(write)


def test_too_many_descriptors_are_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    read, write = os.pipe()
    before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(pair[0], [b"{}"], [read] * (wire.MAX_FDS + 4))
    with pytest.raises(ValueError, match="cut short"):
        wire.receive(pair[1])
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(read)
    os.close(write)


def test_too_long_a_message_is_not_sent(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(ValueError, match="longer"):
        wire.send(pair[0], {"x": "y" * wire.MAX_MESSAGE})


def test_fields() -> None:
    message: wire.Message = {"argv": ["a"], "pid": 3, "no": [1]}
    assert wire.strings(message, "argv") == ["a"]
    assert wire.strings(message, "missing") == []
    assert wire.integer(message, "pid") == 3
    for name, read in (("no", wire.strings), ("pid", wire.strings), ("argv", wire.integer), ("missing", wire.integer)):
        with pytest.raises(ValueError):  # noqa: PT011 - whichever of them
            read(message, name)
