"""A tiny campaign of every kind of scenario on this host: samples of each cell, none failed, nothing left behind; and it goes on after an end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from unikeel.bench.campaign.embedded import census
from unikeel.bench.campaign.journal import Kind
from unikeel.bench.campaign.plan import load
from unikeel.bench.campaign.results import read
from unikeel.bench.evaluation.report import made
from unikeel.bench.main import SAMPLES
from unikeel.bench.stage import Stage

_PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_SAMPLES = os.path.join(_PROJECT, SAMPLES)
#: Every module that takes samples, with as few as can be.
_CAMPAIGN = """
name = "tiny"
about = "Does it all work?"
samples = 1
warm_up = 1
timeout = 120
[[cells]]
scenario = "sequential"
strategies = ["cache", "copy"]
[[cells]]
scenario = "siblings"
strategies = ["cache"]
levels = [1]
[[cells]]
scenario = "burst"
strategies = ["cache"]
levels = [2]
[[cells]]
scenario = "churn"
strategies = ["cache"]
levels = [5]
[[cells]]
scenario = "boot-size"
strategies = ["shared-view"]
levels = [1]
[[cells]]
scenario = "first"
strategies = ["view"]
levels = [1]
[[cells]]
scenario = "memory"
strategies = ["copy"]
levels = [1]
[[cells]]
scenario = "prepare"
[[cells]]
scenario = "view"
[[cells]]
scenario = "durability"
strategies = ["cache"]
"""
_EXPECTED = {
    ("sequential", "ready", "cache"): 1, ("sequential", "acquire", "copy"): 1, ("siblings", "ready", "cache"): 1, ("siblings", "siblings_cpu", None): 1,
    ("burst", "ready", "cache"): 2, ("burst", "ready_last", "cache"): 1, ("churn", "ready", "cache"): 1, ("boot-size", "acquire", "shared-view"): 1,
    ("first", "acquire", "view"): 1, ("memory", "host", "copy"): 1, ("memory", "guest", "copy"): 1, ("prepare", "prepare", None): 1, ("view", "view", None): 1,
    ("durability, flushed", "prepare", None): 1, ("durability, unflushed", "commit", None): 1, ("durability, flushed, prepare", "flushes", None): 1,
    ("durability, flushed", "ready", "cache"): 1, ("durability, unflushed", "ready", "cache"): 1,
}  # fmt: skip


def test_every_scenario(tmp_path: Path) -> None:
    asked, output, parent = tmp_path / "tiny.toml", tmp_path / "tiny.jsonl", tmp_path / "roots"
    asked.write_text(_CAMPAIGN)
    parent.mkdir()
    argv = [
        "bench",
        "run",
        "--campaign",
        str(asked),
        "--output",
        str(output),
        "--state-parent",
        str(parent),
        "--sample-images",
        _SAMPLES,
    ]
    code = "import sys; from unikeel.cli.main import entry; sys.exit(entry())"
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    results = read([str(output)])
    failed = {series.key: series.reason for series in results.series.values() if series.failed}
    assert failed == {}
    found = {(key.scenario, key.metric, key.strategy): len(series.values) for key, series in results.series.items()}
    assert {name: found.get(name) for name in _EXPECTED} == _EXPECTED
    assert results.blocks == len(load(str(asked)).blocks())
    warm = [series for series in results.series.values() if series.warm_ups]
    assert warm
    timed = [series for series in results.series.values() if series.key.unit == "ms"]
    assert all(value > 0 for series in timed for value in series.values)
    assert any(series.spans for series in results.series.values())
    assert "0 of" in made(results).summary[0]
    assert os.listdir(parent) == []
    again = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=500)
    assert (again.returncode, read([str(output)]).series) == (0, results.series)


def test_what_is_left_on_the_host_makes_a_sample_a_failure(tmp_path: Path) -> None:
    """A mount below the state root, as somebody else's failed clean-up leaves it, is seen before and after."""
    from unikeel.bench.campaign.journal import kind_of

    with Stage(_SAMPLES, str(tmp_path), []) as stage:
        before = census.take(stage)
        left = os.path.join(os.path.dirname(stage.root), "left")
        os.mkdir(left)
        subprocess.run(["mount", "-t", "tmpfs", "none", left], check=True)
        try:
            extra = census.take(stage) - before
        finally:
            subprocess.run(["umount", left], check=True)
        assert extra == {f"mount {left}"}
        assert kind_of(f"left behind: {', '.join(extra)}") is Kind.UNCLEAN
        assert census.left(stage, before) == frozenset()
