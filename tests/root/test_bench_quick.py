"""The benchmark as a whole, in its short form: every metric gets samples, the file is in the format, and nothing stays behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from unikeel.bench.main import SAMPLES
from unikeel.bench.rows import problems

_PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_SAMPLES = os.path.join(_PROJECT, SAMPLES)
_STRATEGIES = {"cache", "shared-view", "view", "copy"}


def test_quick(tmp_path: object) -> None:
    root, output = os.path.join(str(tmp_path), "roots"), os.path.join(str(tmp_path), "main.json")
    os.mkdir(root)
    argv = ["-m", "unikeel.bench", "--quick", "--root", root, "--output", output, "--sample-images", _SAMPLES]
    done = subprocess.run([sys.executable, *argv], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    with open(output, encoding="utf-8") as file:
        document = json.load(file)
    assert problems(document) == []
    assert {"kernel", "cpu", "cores", "memory_mib", "accelerator", "qemu", "runtime", "python"} <= set(
        document["environment"]
    )
    rows = document["rows"]
    failed = [row for row in rows if row["failures"] or not row["n"]]
    assert failed == [], done.stdout
    for metric, scenario in (
        ("acquire", "first"), ("acquire", "warm"), ("acquire", "start"), ("exec", "warm"), ("import", "warm"), ("ready", "warm"),
        ("host_memory", "idle"),
    ):  # fmt: skip
        found = {
            row["strategy"]
            for row in rows
            if (row["metric"], row["scenario"], row["image"]) == (metric, scenario, "hello")
        }
        assert found == _STRATEGIES, (metric, scenario)
    assert {row["scenario"] for row in rows if row["metric"] == "tap"} == {"first", "further"}
    assert ("linux", "qemu") in {(row["image"], row["strategy"]) for row in rows if row["metric"] == "plan"}
    assert "promises\n" in done.stdout
    assert os.listdir(root) == []
