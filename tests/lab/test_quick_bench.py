"""The benchmark under containerd as a whole, in its short form: every metric gets samples, the file is in the format, and nothing stays behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from unikeel.bench.containerd.plan import METRICS, RUNC, STRATEGIES, UNIKEEL
from unikeel.bench.rows import problems

_PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _strategies(rows: list[dict[str, Any]], **wanted: str) -> set[str | None]:
    return {row["strategy"] for row in rows if all(row[name] == value for name, value in wanted.items())}


def test_quick(tmp_path: Path) -> None:
    output = tmp_path / "containerd.json"
    argv = [sys.executable, "-m", "unikeel.bench.containerd", "--quick", "--output", str(output)]
    done = subprocess.run(argv, cwd=_PROJECT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(output.read_text())
    assert problems(document) == []
    assert document["environment"]["worlds"]["blockfile"]["containerd"]
    rows = document["rows"]
    assert [row for row in rows if row["failures"] or not row["n"]] == [], done.stdout
    assert {row["metric"] for row in rows} >= set(METRICS)
    assert _strategies(rows, metric="acquire", scenario="warm") == set(STRATEGIES)
    assert _strategies(rows, metric="task_create_start", scenario="warm", runtime=UNIKEEL) == set(STRATEGIES)
    assert _strategies(rows, metric="task_create_start", scenario="warm", runtime=RUNC) == {None}
    assert {row["siblings"] for row in rows if row["scenario"] == "siblings"} == {0, 2}
    assert "promises\n" in done.stdout
