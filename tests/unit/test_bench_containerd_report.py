"""The promises under containerd and the report, from rows that are made up."""

from __future__ import annotations

from typing import Any

from unikeel.bench.containerd.plan import RUNC, UNIKEEL
from unikeel.bench.containerd.promises import verdicts
from unikeel.bench.containerd.report import render
from unikeel.bench.promises import Verdict
from unikeel.bench.rows import Board, Document, Key

_KEEPING = ("cache", "shared-view")


def _key(snapshotter: str, **fields: Any) -> Key:
    given: dict[str, Any] = {"scenario": "warm", "unit": "ms", "concurrency": 1, "siblings": 0, **fields}
    key = Key("", "", "", snapshotter=snapshotter)
    return key._replace(**given)


def _fill(board: Board, key: Key, value: float, n: int = 30) -> None:
    for step in range(n):
        board.series(key).add(value * (1 + step / 1e4))


def _board(factor: float = 1.0) -> Board:
    """A run that keeps everything with 1, and nothing with 10."""
    board = Board()
    for where, view in (("blockfile", 6.0), ("erofs", 3.0), ("devmapper", 300.0)):
        for strategy in _KEEPING:
            mine = {"image": "bulky", "strategy": strategy}
            _fill(board, _key(where, metric="acquire", **mine), 0.4 * factor)
            _fill(board, _key(where, metric="identify_acquire", **mine), 2.0 * factor)
            _fill(board, _key(where, metric="acquire", scenario="first", **mine), view * factor)
            started = {"metric": "task_create_start", "image": "hello", "strategy": strategy, "runtime": UNIKEEL}
            _fill(board, _key(where, **started), 60 * factor)
            many = 5 if where == "devmapper" else 30
            _fill(board, _key(where, scenario="siblings", **started), 60, 100)
            _fill(board, _key(where, scenario="siblings", **{**started, "siblings": many}), 65 * factor, 100)
            held = {"image": "hello", "strategy": strategy, "runtime": UNIKEEL, "siblings": 30, "unit": "MB"}
            _fill(board, _key(where, metric="daemon_pss", scenario="idle", **held), 60 * factor, 3)
            _fill(board, _key(where, metric="task_pss", scenario="beside-monitor", **held), 0.3 * factor, 3)
            _fill(board, _key(where, metric="daemon_cpu", scenario="start", **mine, runtime=UNIKEEL), 3 * factor)
        returned = {"scenario": "killed", "image": "hello", "runtime": UNIKEEL, "concurrency": 20, "siblings": 20}
        _fill(board, _key(where, metric="daemon_return", **returned), 500 * factor, 15)
        _fill(board, _key(where, metric="view_mount", image="bulky"), view)
        _fill(board, _key(where, metric="view_mount", scenario="first", image="bulky"), view)
        _fill(board, _key(where, metric="view_mount", scenario="first-copy", image="bulky"), view + 20)
        _fill(board, _key(where, metric="task_create_start", image="busybox", runtime=RUNC), 100)
        _fill(board, _key(where, metric="task_pss", scenario="shim", runtime=RUNC, siblings=30, unit="MB"), 12, 3)
        crowd: dict[str, Any] = {"scenario": "crowd", "image": "hello", "concurrency": 32}
        _fill(board, _key(where, metric="task_create", **crowd), 500, 32)
        _fill(board, _key(where, metric="views", **{**crowd, "unit": "views"}), factor, 1)
    return board


def _by(found: list[Verdict], beginning: str) -> list[bool | None]:
    return [verdict.kept for verdict in found if verdict.promise.startswith(beginning)]


def test_promises_that_are_kept() -> None:
    found = verdicts(_board().rows())
    assert {verdict.promise for verdict in found if not verdict.kept} == set()
    assert len(found) == 34


def test_promises_that_are_missed() -> None:
    board = _board(10.0)
    board.series(_key("erofs", metric="acquire")).fail("no")
    for strategy in _KEEPING:
        for where in ("blockfile", "erofs"):
            key = _key(where, metric="task_create_start", scenario="siblings", image="hello", strategy=strategy)
            series = board.series(key._replace(runtime=UNIKEEL, siblings=30))
            series.samples[80:] = [2000.0] * 20
    assert [verdict.promise for verdict in verdicts(board.rows()) if verdict.kept is not False] == []


def test_nothing_measured_is_not_kept() -> None:
    assert {verdict.kept for verdict in verdicts([])} == {None}


def test_too_few_siblings_are_not_measured() -> None:
    board = Board()
    started = {"metric": "task_create_start", "scenario": "siblings", "image": "hello", "strategy": "cache"}
    for count in (0, 30):
        _fill(board, _key("blockfile", **started, siblings=count), 50, 60)
    assert set(_by(verdicts(board.rows()), "create + start with 30 siblings")) == {None}


def test_a_second_view_or_a_failed_create_breaks_the_promise_of_the_crowd() -> None:
    for metric, value in (("views", 2.0), ("task_create", None)):
        board = _board()
        key = _key("blockfile", metric=metric, scenario="crowd", image="hello", concurrency=32)
        key = key._replace(unit="views" if metric == "views" else "ms")
        if value is None:
            board.series(key).fail("refused")
        else:
            board.series(key).add(value)
        assert _by(verdicts(board.rows()), "32 creates at once") == [False, True, True]


def test_the_text() -> None:
    board = _board()
    for metric in ("task_create", "task_start"):
        board.series(_key("erofs", metric=metric, image="hello", strategy="view", runtime=UNIKEEL)).fail("copy served")
    about = {"worlds": {"erofs": {"root": "sid", "qemu": None}}, "load": [0.5, 1.0]}
    text = render(Document(about, board.rows()), board.failures(), ["a notice", "a notice"])  # type: ignore[arg-type]
    lines = text.splitlines()
    assert lines[:2] == ["       worlds  erofs root sid", "         load  0.5 1.0"]
    [row] = [line.split() for line in lines if line.startswith("view_mount         warm            erofs")]
    assert row[:12] == ["view_mount", "warm", "erofs", "bulky", "-", "-", "1", "0", "ms", "30", "0", "3.000"]
    assert any(line.startswith("  devmapper, bulky: (View + mount) / acquire by cache = 7") for line in lines)
    assert "  blockfile, hello by cache / runc's busybox: create + start = 0.60 [0.60, 0.60]" in lines
    assert "  task_create, warm, erofs, hello, view and 1 more: 1 failed, the first: copy served" in lines
    assert text.count("a notice") == 1
    assert "MISSED  no sample failed, no fallback" in text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
