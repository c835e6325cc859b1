"""ttrpc's frames: what is cut out of the bytes is what was sent, however the bytes arrive."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unikeel.errors import ResourceExhausted
from unikeel.shim import frames

_STREAMS = st.integers(0, 2**32 - 1)
_FRAMES = st.lists(st.tuples(_STREAMS, st.integers(0, 255), st.binary(max_size=60), st.integers(0, 255)), max_size=8)


def _cuts(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at = [], 0
    for size in [*sizes, len(data)]:
        pieces.append(data[at : at + size])
        at += size
    return pieces


@given(_FRAMES, st.lists(st.integers(0, 40), max_size=30))
def test_frames_arrive_however_the_bytes_do(sent: list[tuple[int, int, bytes, int]], sizes: list[int]) -> None:
    data = b"".join(frames.pack(*one) for one in sent)
    cutter = frames.Cutter()
    found = [frames.unpack(frame) for piece in _cuts(data, sizes) for frame in cutter.feed(piece)]
    assert found == [frames.Frame(stream, kind, flags, len(body), body) for stream, kind, body, flags in sent]


@settings(deadline=None)  # it moves megabytes
@given(st.lists(st.integers(0, 2**20), max_size=12), st.integers(1, 3 * frames.LARGEST))
def test_a_frame_over_the_limit_is_passed_over(sizes: list[int], beyond: int) -> None:
    length = frames.LARGEST + beyond
    data = frames.HEADER.pack(length, 7, 1, 0) + bytes(length) + frames.pack(9, 1, b"next")
    cutter = frames.Cutter()
    found = [frames.unpack(frame) for piece in _cuts(data, sizes) for frame in cutter.feed(piece)]
    assert found == [frames.Frame(7, 1, 0, length, None), frames.Frame(9, 1, 0, 4, b"next")]


def test_what_is_over_the_limit_is_not_held() -> None:
    cutter = frames.Cutter()
    assert len(list(cutter.feed(frames.HEADER.pack(2**32 - 1, 1, 1, 0)))) == 1
    for _ in range(64):
        assert list(cutter.feed(bytes(1 << 20))) == []
    assert len(cutter._held) == 0


def test_the_largest_frame_is_allowed_and_one_byte_more_is_not() -> None:
    body = bytes(frames.LARGEST)
    found = frames.unpack(frames.pack(1, 1, body))
    assert found is not None
    assert found.body == body
    with pytest.raises(ResourceExhausted, match="4194305 bytes"):
        frames.pack(1, 1, body + b"x")


@given(st.binary(max_size=64))
def test_bytes_that_are_no_frame_are_none(data: bytes) -> None:
    found = frames.unpack(data)
    if found is not None and found.body is not None:
        assert frames.pack(found.stream, found.kind, found.body, found.flags) == data
