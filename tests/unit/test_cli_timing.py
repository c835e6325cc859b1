"""The timeline's zero point: the process's start by the kernel, or by a caller who can be believed."""

from __future__ import annotations

import time

import pytest

from unikeel.cli.session import Session
from unikeel.cli.timing import VARIABLE, new_timeline, process_start


def test_a_recent_start_is_taken_from_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.monotonic_ns() - 10**6
    monkeypatch.setenv(VARIABLE, str(start))
    assert process_start() == start


@pytest.mark.parametrize("wrong", ["", "x", "-5", "1.5", "²", "9" * 30, str(10**18)])
def test_anything_else_is_not_believed(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, wrong)
    monkeypatch.setattr(time, "monotonic_ns", lambda: 10**17)
    assert 10**17 - 60 * 10**9 < process_start() <= 10**17


def test_a_caller_of_long_ago_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    long_ago = time.monotonic_ns() - 61 * 10**9
    monkeypatch.setenv(VARIABLE, str(max(0, long_ago)))
    assert process_start() != long_ago


def test_the_timeline_begins_with_interpreter_and_imports() -> None:
    now = time.monotonic_ns()
    timeline = new_timeline(Session(started=now - 20, loaded=now - 10))
    assert timeline.start == now - 20
    assert [(span.name, span.start) for span in timeline.spans] == [("interpreter", now - 20), ("import", now - 10)]
    assert timeline.spans[1].end >= now
