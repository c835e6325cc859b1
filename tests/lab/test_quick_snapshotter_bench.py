"""The snapshotters' benchmark as a whole, in its short form: every contender gets samples of every metric, and the file is in the format."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from unikeel.bench.rows import problems
from unikeel.bench.snapshotter.plan import METRICS, WORLDS

_PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
#: Of a thin pool alone.
_THIN = {"metadata_bytes"}


def test_quick(tmp_path: Path) -> None:
    output = tmp_path / "snapshotter.json"
    argv = [sys.executable, "-m", "unikeel.bench.snapshotter", "--quick", "--output", str(output)]
    done = subprocess.run(argv, cwd=_PROJECT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(output.read_text())
    assert problems(document) == []
    assert document["environment"]["worlds"]["blockfile"]["containerd"]
    rows = document["rows"]
    assert [row for row in rows if row["failures"] or not row["n"]] == [], done.stdout
    for name in WORLDS[0].contenders:
        assert {row["metric"] for row in rows if row["snapshotter"] == name} == set(METRICS) - _THIN
    assert "promises\n" in done.stdout
