"""Sparse copies, shared blocks and the choice between the ways of making a writable image."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unikeel.errors import Unavailable
from unikeel.kernel.reflink import clone_file, shared_bytes
from unikeel.kernel.sparse import data_ranges, sparse_copy
from unikeel.snapshots import copying
from unikeel.snapshots.contract import How

_GRAIN = 4096


def _memory(size: int = 0) -> int:
    fd = os.memfd_create("test")
    os.ftruncate(fd, size)
    return fd


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3 << 20), st.integers(1, 48 * _GRAIN), st.integers(0, 2)), max_size=6),
    st.integers(0, 4 << 20),
)
def test_a_copy_is_equal_and_holds_no_more_than_the_data(pieces: list[tuple[int, int, int]], size: int) -> None:
    source, target = _memory(), _memory()
    for offset, length, byte in pieces:
        os.pwrite(source, bytes([byte]) * length, offset)
    os.ftruncate(source, size)
    written = sparse_copy(source, target)
    content = os.pread(source, size, 0)
    assert os.pread(target, size + 1, 0) == content
    data = list(data_ranges(source, size))
    grains = [content[at : min(at + _GRAIN, end)] for start, end in data for at in range(start, end, _GRAIN)]
    assert written == sum(len(grain) for grain in grains if any(grain))
    assert os.fstat(target).st_blocks <= os.fstat(source).st_blocks
    os.close(source)
    os.close(target)


def test_written_zeroes_become_holes(tmp_path: Path) -> None:
    source, target = _open(tmp_path / "source"), _open(tmp_path / "target")
    os.pwrite(source, bytes(1 << 20), 0)
    os.pwrite(source, b"x", 3 << 20)
    os.ftruncate(source, 4 << 20)
    assert sparse_copy(source, target) <= _GRAIN
    assert list(data_ranges(target, 4 << 20)) == [(3 << 20, (3 << 20) + 4096)]
    assert os.fstat(target).st_size == 4 << 20


def test_a_source_that_shrinks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = _memory(1 << 20), _memory()
    os.pwrite(source, b"x" * (1 << 20), 0)
    monkeypatch.setattr(os, "preadv", lambda _fd, _buffers, _offset: 0)
    with pytest.raises(OSError, match="shorter"):
        sparse_copy(source, target)


def test_sharing_between_memory_files_is_refused_as_a_means() -> None:
    with pytest.raises(Unavailable):
        clone_file(_memory(4096), _memory())


def test_no_space_is_not_taken_for_a_missing_means(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _request: int, _argument: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fcntl, "ioctl", full)
    with pytest.raises(OSError, match="No space"):
        copying.make_writable(_memory(4096), _memory(), frozenset({"raw", "qcow2"}))


def test_nothing_is_shared_on_a_file_system_that_cannot(tmp_path: Path) -> None:
    fd = _open(tmp_path / "file")
    os.write(fd, os.urandom(1 << 20))
    os.fsync(fd)
    assert shared_bytes(fd) == 0
    assert shared_bytes(_open(tmp_path / "empty")) == 0


def test_without_an_extent_map_it_says_so() -> None:
    with pytest.raises(Unavailable):
        shared_bytes(_memory(4096))


def test_the_second_way_is_an_overlay_and_the_third_a_copy() -> None:
    source = _memory(1 << 20)
    os.pwrite(source, b"content", 4096)
    overlay, copy = _memory(), _memory()
    assert copying.make_writable(source, overlay, frozenset({"raw", "qcow2"})) is How.QCOW2
    assert os.pread(overlay, 4, 0) == b"QFI\xfb"
    assert copying.make_writable(source, copy, frozenset({"raw"})) is How.COPY
    assert os.pread(copy, 7, 4096) == b"content"


def test_where_blocks_can_be_shared_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "clone_file", lambda source, target: os.sendfile(target, source, 0, 4096))
    source, target = _memory(4096), _memory()
    assert copying.make_writable(source, target, frozenset({"raw", "qcow2"})) is How.REFLINK
    assert os.fstat(target).st_size == 4096


def test_single_blocks_of_zeroes_are_not_written(tmp_path: Path) -> None:
    block = 4096
    with open(tmp_path / "from", "w+b") as source, open(tmp_path / "to", "w+b") as target:
        source.write((b"x" * block + bytes(block)) * 64)
        source.flush()
        assert sparse_copy(source.fileno(), target.fileno()) == 64 * block
        assert os.pread(target.fileno(), 130 * block, 0) == os.pread(source.fileno(), 130 * block, 0)
