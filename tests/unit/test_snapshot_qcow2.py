"""The overlay writer against QEMU's own tools, which never see anything but files of this test."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unikeel.errors import InvalidArgument
from unikeel.snapshots.qcow2 import CLUSTER, MAX_SIZE, overlay_pieces, write_overlay


def _overlay(path: Path, size: int) -> Path:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    write_overlay(fd, size)
    os.close(fd)
    return path


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("size", [1, 512, (1 << 29) + 1, 5 << 40, MAX_SIZE])
def test_qemu_img_accepts_it(tmp_path: Path, size: int) -> None:
    path = _overlay(tmp_path / "overlay", size)
    found = json.loads(_run("qemu-img", "check", "--output=json", "-f", "qcow2", str(path)))
    assert found["check-errors"] == 0
    assert "leaks" not in found
    assert "corruptions" not in found
    info = json.loads(_run("qemu-img", "info", "--output=json", "-f", "qcow2", str(path)))
    assert info["virtual-size"] == size + -size % 512
    assert info["cluster-size"] == CLUSTER
    assert "backing-filename" not in info
    assert path.stat().st_blocks * 512 <= 64 << 10


def test_reads_through_and_writes_beside_a_backing_node(tmp_path: Path) -> None:
    backing = tmp_path / "base"
    with backing.open("wb") as file:
        file.truncate(1 << 30)
        file.seek(600 << 20)
        file.write(b"\xaa" * (128 << 10))
    overlay = _overlay(tmp_path / "overlay", 1 << 30)
    options = (
        f"driver=qcow2,file.driver=file,file.filename={overlay},backing.driver=raw,backing.read-only=on,"
        f"backing.file.driver=file,backing.file.filename={backing}"
    )
    commands = ("read -P 0xaa 600M 128k", "write -P 0xbb 600M 4k", "read -P 0xbb 600M 4k", "read -P 0xaa 629149696 4k")
    said = _run("qemu-io", "--image-opts", options, *(part for text in commands for part in ("-c", text)))
    assert "Pattern verification failed" not in said
    assert said.count("read ") == 3
    assert "wrote 4096/4096" in said
    _run("qemu-img", "check", "-f", "qcow2", str(overlay))
    with backing.open("rb") as file:
        file.seek(600 << 20)
        assert file.read(128 << 10) == b"\xaa" * (128 << 10)


@given(st.integers(1, MAX_SIZE))
def test_pieces_lie_in_the_file_and_do_not_overlap(size: int) -> None:
    length, pieces = overlay_pieces(size)
    ends = [offset + len(data) for offset, data in pieces]
    starts = [offset for offset, _ in pieces[1:]] + [3 * CLUSTER]
    assert all(end <= start for end, start in zip(ends, starts, strict=True))
    assert length % CLUSTER == 0
    assert (length // CLUSTER - 3) * CLUSTER // 8 * (CLUSTER // 8 * CLUSTER) >= size


@pytest.mark.parametrize("size", [0, -1, MAX_SIZE + 1])
def test_impossible_sizes_are_refused(size: int) -> None:
    with pytest.raises(InvalidArgument):
        overlay_pieces(size)
