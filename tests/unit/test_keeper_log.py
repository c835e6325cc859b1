"""The console's log: bounded, whole in its kept part; and the report of an end."""

from __future__ import annotations

import json
import os
import tempfile

from hypothesis import given
from hypothesis import strategies as st

from unikeel.engine.console import ConsoleReader
from unikeel.keeper.monitor import Log, Monitor


def _content(path: str) -> bytes:
    if not os.path.exists(path):
        return b""
    with open(path, "rb") as file:
        return file.read()


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=30), st.integers(64, 200))
def test_the_newest_is_kept_within_the_bound(pieces: list[bytes], limit: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "console.log")
        log = Log(path, limit)
        for piece in pieces:
            log.append(piece)
        log.close()
        kept = _content(path + ".1") + _content(path)
    assert b"".join(pieces).endswith(kept)
    assert len(kept) <= limit + 40
    if pieces:
        assert kept.endswith(pieces[-1])


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=20))
def test_a_reader_that_keeps_up_misses_nothing(pieces: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "console.log")
        log, seen = Log(path, 80), b""
        with ConsoleReader(path) as reader:
            for piece in pieces:
                log.append(piece)
                while data := reader.read():
                    seen += data
        log.close()
    assert seen == b"".join(pieces)


def test_an_offset_beyond_a_log_that_was_turned_over() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "console.log")
        log = Log(path, 20)
        log.append(b"0123456789")
        offset = os.path.getsize(path)
        log.append(b"abcde")
        log.close()
        with ConsoleReader(path, offset) as reader:
            assert reader.read() == b"abcde"


def test_the_report_of_an_end() -> None:
    with tempfile.TemporaryDirectory() as directory:
        monitor = Monitor("c", directory, 100, frozenset())
        monitor.pid = 77
        monitor.store_exit(256, 5)
        with open(os.path.join(directory, "exit.json"), encoding="utf-8") as file:
            assert json.load(file) == {"pid": 77, "status": 256, "when": 5}
        monitor.forget_exit()
        monitor.forget_exit()
        assert sorted(os.listdir(directory)) == ["console.log"]
        monitor.close()


def test_standard_error_is_bounded() -> None:
    with tempfile.TemporaryDirectory() as directory:
        monitor = Monitor("c", directory, 100, frozenset())
        monitor.stderr, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for _ in range(4):
            os.write(write, b"x" * 40000)
            assert monitor.read_stderr()
        os.close(write)
        monitor.drain()
        assert os.path.getsize(os.path.join(directory, "monitor.log")) == 65536
        monitor.close()
