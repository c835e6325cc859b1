"""The file of a benchmark: what is written is what the format says, and what the format forbids is found."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unikeel.bench.rows import Board, Document, Key, Row, find, problems

_KEY = Key("warm", "acquire", "ms", "hello", "cache", "file", None, 1, 0)
_ISSUE = (
    "scenario", "metric", "unit", "image", "strategy", "snapshotter", "runtime", "concurrency", "siblings", "n", "failures",
    "min", "p50", "p90", "p95", "p99", "max", "ci",
)  # fmt: skip


def _parsed(board: Board) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(Document({"cores": 2}, board.rows()).to_text())
    return value


@given(st.lists(st.floats(min_value=0, max_value=1e6), max_size=210), st.integers(0, 3))
def test_what_is_written_has_no_problems(samples: list[float], failures: int) -> None:
    board = Board()
    for value in samples:
        board.series(_KEY).add(value)
    for _ in range(failures):
        board.series(_KEY).fail("first")
    board.series(_KEY._replace(metric="span", image=None, strategy=None))
    parsed = _parsed(board)
    assert problems(parsed) == []
    assert tuple(parsed) == ("environment", "rows")
    assert tuple(parsed["rows"][0]) == _ISSUE
    assert (parsed["rows"][0]["n"], parsed["rows"][0]["failures"]) == (len(samples), failures)


def test_a_failure_is_no_figure_and_the_first_message_is_kept() -> None:
    board = Board()
    series = board.series(_KEY)
    series.fail("copy served instead")
    series.fail("another")
    series.add(2.0)
    assert board.series(_KEY) is series
    assert board.failures() == [series]
    assert (series.first_failure, series.row().n, series.row().failures, series.row().max) == (
        "copy served instead",
        1,
        2,
        2.0,
    )


def _with(**changes: object) -> dict[str, object]:
    board = Board()
    board.series(_KEY).add(1.0)
    parsed = _parsed(board)
    parsed["rows"][0].update(changes)
    return parsed


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"metric": None}, "metric is not text"),
        ({"image": 3}, "image is neither text nor null"),
        ({"siblings": "8"}, "siblings is neither a number nor null"),
        ({"n": -1}, "n is not a count"),
        ({"n": True}, "n is not a count"),
        ({"p50": "1"}, "p50 is neither a number nor null"),
        ({"ci": [1]}, "ci is neither two numbers nor null"),
        ({"p99": 1.0}, "p99 is given with 1 samples"),
        ({"p50": None}, "p50 is missing with 1 samples"),
        ({"max": 0.5}, "the figures are not in ascending order"),
    ],
)
def test_what_the_format_forbids_is_found(changes: dict[str, object], problem: str) -> None:
    assert problems(_with(**changes)) == [f"row 0: {problem}"]


def test_a_missing_key_is_found_and_an_unknown_one_is_fine() -> None:
    parsed = _with(workload="later")
    assert problems(parsed) == []
    del parsed["rows"][0]["ci"]  # type: ignore[index]  # JSON of our own making
    assert problems(parsed) == ["row 0: no key ci"]
    assert problems([]) == problems({"rows": []}) == ["there is no object `environment`"]
    assert problems({"environment": {}}) == ["there is no list `rows`"]
    assert problems({"environment": {}, "rows": [1]}) == ["row 0: not an object"]


def test_a_file_is_written_whole(tmp_path: Any) -> None:
    path = os.path.join(tmp_path, "deep", "main.json")
    Document({"cpu": "µ"}, []).write(path)
    with open(path, encoding="utf-8") as file:
        assert json.load(file) == {"environment": {"cpu": "µ"}, "rows": []}
    assert os.listdir(os.path.dirname(path)) == ["main.json"]


def test_find_passes_over_rows_without_samples() -> None:
    board = Board()
    board.series(_KEY).fail("no")
    assert find(board.rows(), "acquire", "warm", "hello", "cache") is None
    board.series(_KEY).add(1.0)
    found = find(board.rows(), "acquire", "warm", "hello", "cache")
    assert isinstance(found, Row)
    assert found.p50 == 1.0
    assert find(board.rows(), "acquire", "first", "hello", "cache") is None
