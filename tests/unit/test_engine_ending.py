"""How an end is told of which the keeper saw no status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unikeel.engine.ending import UNKNOWN_EXIT, read_report


@pytest.mark.parametrize(("ended_by", "code"), [(0, UNKNOWN_EXIT), (9, 137), (15, 143)])
def test_an_end_that_nobody_saw_is_that_of_the_signal_that_was_sent(tmp_path: Path, ended_by: int, code: int) -> None:
    (tmp_path / "exit.json").write_text(json.dumps({"pid": 4, "status": None, "when": 5}))
    report = read_report(str(tmp_path), "qemu", ended_by)
    assert report is not None
    assert (report.code, report.when_ns, report.monitor_failed) == (code, 5, ended_by == 0)
