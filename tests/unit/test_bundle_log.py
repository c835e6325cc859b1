"""The ``log`` fifo of a bundle: a line for a reader, nothing at all for anybody else."""

from __future__ import annotations

import os
from pathlib import Path

from unikeel.shim.bundle_log import say


def test_a_reader_gets_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    fd = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    try:
        say(str(tmp_path), "boot files: copy served\nand \x1b[2J")
        assert os.read(fd, 4096) == b"unikeel: boot files: copy served?and ?[2J\n"
        say(str(tmp_path), "x" * 10_000)
        assert len(os.read(fd, 20_000)) == 4096
    finally:
        os.close(fd)


def test_nobody_reads_or_it_is_full(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    say(str(tmp_path), "unread")
    fd = os.open(tmp_path / "log", os.O_RDWR | os.O_NONBLOCK)
    try:
        for _ in range(100):
            say(str(tmp_path), "y" * 3000)
        assert os.read(fd, 10).startswith(b"unikeel: y")
    finally:
        os.close(fd)


def test_what_is_no_fifo_is_left_alone(tmp_path: Path) -> None:
    say(str(tmp_path), "missing")
    assert not (tmp_path / "log").exists()
    (tmp_path / "log").write_text("kept")
    say(str(tmp_path), "a file")
    assert (tmp_path / "log").read_text() == "kept"
    (tmp_path / "log").rename(tmp_path / "file")
    (tmp_path / "log").symlink_to(tmp_path / "file")
    say(str(tmp_path), "a link")
    assert (tmp_path / "file").read_text() == "kept"
