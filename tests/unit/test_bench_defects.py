"""The sixteen defects of published harnesses (docs/evaluation.md lists them): for each the antidote is here, and a test that fails without it."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import unikeel.bench
from unikeel.bench.campaign import plan
from unikeel.bench.campaign.embedded import burst, census, churn, duplicates, memory, snapshots, starting, world
from unikeel.bench.campaign.journal import Journal, Kind
from unikeel.bench.campaign.plan import Cell
from unikeel.bench.campaign.results import Results, read
from unikeel.bench.campaign.running import run
from unikeel.bench.campaign.scenarios import EMBEDDED, SCENARIOS
from unikeel.bench.evaluation import report, wording
from unikeel.bench.inference import Difference, Interval, Sampled, interval, quantile
from unikeel.bench.rows import Board, Key
from unikeel.bench.scenarios.acquire import judge
from unikeel.bench.scenarios.starts import NoSample, check
from unikeel.boot.contract import MIB
from unikeel.engine.timeline import Timeline
from unikeel.testing.synthetic_bench import Synthetic, Truth, campaign

_KEY = Key("sequential", "ready", "ms", "hello", "cache", "file", "crun", 1, 0)
_PROJECT = Path(unikeel.bench.__file__).parents[3]


def _read(path: Path, values: list[float], failures: int = 0) -> Results:
    with Journal(str(path), campaign(["cache"], 30)) as journal:
        for value in values:
            journal.sample(_KEY, value)
        for _ in range(failures):
            journal.failure(_KEY, "the guest was not ready in time")
    return read([str(path)])


def _timeline(*, strategy: str = "cache", hit: bool = True, ready: int = 300) -> Timeline:
    timeline = Timeline(0)
    for name, begin, end in (("interpreter", 0, 40), ("import", 40, 90), ("boot.acquire", 90, 91), ("exec", 100, 150)):
        timeline.add(name, begin * 1_000_000, end * 1_000_000)
    acquired = timeline.find("boot.acquire")
    assert acquired is not None
    acquired.attributes.update(strategy=strategy, hit=hit)
    if ready:
        timeline.add("ready", 150_000_000, ready * 1_000_000)
    return timeline


def test_1_no_figure_is_of_slots_that_no_sample_filled(tmp_path: Path) -> None:
    [series] = _read(tmp_path / "j", [10.0] * 30).series.values()
    assert quantile(series.sampled, 0.5) == 10
    assert len(series.values) == 30
    assert quantile(Sampled(()), 0.5) is None


def test_2_failures_are_in_the_file_that_machines_read(tmp_path: Path) -> None:
    results = _read(tmp_path / "j", [10.0] * 28, failures=2)
    [row] = json.loads(results.document().to_text())["rows"]
    assert (row["n"], row["failures"]) == (28, 2)
    lines = [json.loads(line) for line in (tmp_path / "j").read_text().splitlines()]
    assert [line["kind"] for line in lines if "failure" in line] == ["time-out"] * 2


def test_3_as_many_are_started_as_are_counted(tmp_path: Path) -> None:
    synthetic, asked = Synthetic({"cache": Truth(1, 0.1, {Kind.FAILURE: 0.3})}, 3), campaign(["cache"], 30)
    with Journal(str(tmp_path / "j"), asked) as journal:
        run(asked, journal, synthetic.opened)
    [series] = read([str(tmp_path / "j")]).series.values()
    assert series.sampled.attempts == synthetic.taken == 30


class _Stage:
    """A stage whose commands end at once, and tell what the timeline says."""

    def __init__(self, root: Path, timeline: Timeline) -> None:
        self.root = str(root)
        self.runtime = "crun"
        self._timeline = timeline
        self.commands: list[list[str]] = []

    def unikeel(self, arguments: list[str]) -> subprocess.CompletedProcess[bytes]:
        self.commands.append(arguments)
        path = arguments[arguments.index("--timeline") + 1]
        Path(path).write_text(json.dumps(self._timeline.to_json()))
        return subprocess.CompletedProcess(arguments, 0, b"", b"")


def _world(tmp_path: Path, timeline: Timeline) -> Any:
    return SimpleNamespace(stage=_Stage(tmp_path, timeline), timeout=60.0)


_CELL = Cell("burst", "cache", "hello", 2, "embedded", "file", "")


def test_4_the_number_of_a_sample_is_never_a_time(tmp_path: Path) -> None:
    """A churn's samples are timed from the instant at which each was due, by the clock; a burst's from the beginning of all."""
    timeline = _timeline(ready=300)
    ready = timeline.find("ready")
    assert ready is not None
    world = _world(tmp_path, timeline)
    for begun in (0, 7_000_000, 250_000_000):
        assert churn._one(world, _CELL, "x", ready.end - begun) == begun / 1e6
        assert burst._one(world, _CELL, "x", ready.end - begun) == begun / 1e6


def test_5_nothing_is_as_coarse_as_a_pause_between_two_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readiness is an event in the guest's own output, stamped by the command to the nanosecond; the bench itself neither polls nor waits for it."""

    def never(_seconds: float) -> None:
        raise AssertionError("somebody waits a while and looks again")

    monkeypatch.setattr(time, "sleep", never)
    timeline = _timeline(ready=0)
    timeline.add("ready", 150_000_000, 300_123_457)
    found = starting.start(_Stage(tmp_path, timeline), "hello", "cache", "x", 60.0)  # type: ignore[arg-type]
    assert check(found, "cache").ready == 300.123457
    assert burst._one(_world(tmp_path, timeline), _CELL, "x", 0) == 300.123457


@pytest.mark.parametrize(("ratio", "direction"), [(0.732, 1), (1 / 0.732, -1)])
def test_6_a_share_that_remains_is_never_called_a_reduction(tmp_path: Path, ratio: float, direction: int) -> None:
    [series] = _read(tmp_path / "j", [1.0]).series.values()
    other = series._replace(key=_KEY._replace(strategy="copy"))
    said = wording.difference(series, other, Difference(ratio, Interval(ratio, ratio), 0.001, direction))
    assert "takes 1.37 [1.37, 1.37] times as much as" in said
    assert "reduc" not in said
    assert "%" not in said


def test_7_clocks_count_nanoseconds_and_do_not_jump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever takes samples gives the same when the wall clock stands still, or is set back by a year."""
    for name in ("time", "time_ns"):
        monkeypatch.setattr(time, name, lambda: 0)
    board, made = Board(), iter(range(100))
    store = SimpleNamespace(prepare=lambda *_: next(made), view=lambda *_: next(made), remove=lambda *_: None)
    stage = SimpleNamespace(
        engine=SimpleNamespace(services=SimpleNamespace(snapshots=store)), parent=lambda _: "parent"
    )
    world = SimpleNamespace(stage=stage, name=lambda: f"x-{next(made)}")
    for scenario in ("prepare", "view"):
        snapshots._sample(world, _CELL._replace(scenario=scenario), board)  # type: ignore[arg-type]
    values = [row.p50 for row in board.rows()]
    assert len(values) == 4
    assert all(value is not None and 0 < value < 1000 for value in values)
    due = time.monotonic_ns() - 5_000_000
    timeline = _timeline(ready=0)
    timeline.add("ready", 150_000_000, due + 5_000_001)
    assert churn._one(_world(tmp_path, timeline), _CELL, "x", due) == 5.000001


def test_8_a_start_ends_with_the_guest_s_reply() -> None:
    """What is waited for is a word that only this start was given; without the step `ready` there is no sample."""
    assert starting.arguments("hello", "bench-1-7")[:2] == ["--ready", "console:bench-1-7"]
    assert "bench-1-7" in starting.arguments("hello", "bench-1-7")[2:]
    with pytest.raises(NoSample, match="ready"):
        check(_timeline(ready=0), "cache")


def test_9_what_did_not_do_what_it_is_called_is_a_failure() -> None:
    """Another strategy that served, a hit where none can be, none where one is due, bytes that are not the image's."""
    with pytest.raises(NoSample, match="copy served instead"):
        check(_timeline(strategy="copy"), "cache")
    with pytest.raises(NoSample, match="not a hit"):
        check(_timeline(hit=False), "cache")
    fine = {"strategy": "cache", "hit": True, "fallbacks": [], "sha256": {"kernel": "a"}}
    assert judge(fine, "cache", {"kernel": "a"}, "warm") == ""
    assert "not the image's" in judge(fine, "cache", {"kernel": "b"}, "warm")
    assert "although nothing was kept" in judge(fine, "cache", {"kernel": "a"}, "first")


def test_10_memory_is_that_of_everybody_with_the_guest_s_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part is told apart: the keeper has 1 MiB, a helper 2, the tmpfs 4, memory files 8, a monitor 64 of which 48 are the guest's, the cache 16, the slab 32."""
    held = {10: 1, 11: 2, 20: 64, 21: 64}
    slab = iter([100, 100 + 2 * 32])
    monkeypatch.setattr(memory, "pss", lambda pid: held[pid] * MIB)
    monkeypatch.setattr(memory, "children", lambda _: [11, 20, 21])
    monkeypatch.setattr(memory, "copies", lambda _: 4 * MIB)
    monkeypatch.setattr(memory, "memory_files", lambda _: 8 * MIB)
    monkeypatch.setattr(memory, "_guest", lambda _: 48 * MIB)
    monkeypatch.setattr(memory, "_cached", lambda _: 16 * MIB)
    monkeypatch.setattr(memory, "_slab", lambda: next(slab) * MIB)
    pids = {"one": 20, "two": 21}
    container = SimpleNamespace(start=lambda **_: None, record=SimpleNamespace(strategy="cache"))
    engine = SimpleNamespace(
        create=lambda *_: container,
        container=lambda name: SimpleNamespace(record=SimpleNamespace(pid=pids[name])),
        services=SimpleNamespace(layout=SimpleNamespace(boot="")),
    )
    stage = SimpleNamespace(engine=engine, keeper=lambda: 10, boot_contents=lambda _: [])
    monkeypatch.setattr(duplicates, "held", lambda _pid, _known: 3 * MIB)
    world: Any = SimpleNamespace(stage=stage, timeout=60.0)
    found = memory._held(world, _CELL._replace(scenario="memory"), ["one", "two"])
    assert found == {
        "host": (1 + 2 + 4 + 8) / 2,
        "monitor": 64 - 48,
        "guest": 48,
        "boot_copies": 3,
        "cached": 8,
        "slab": 32,
    }


def test_11_the_harness_is_measured_first(tmp_path: Path) -> None:
    """On a runtime whose latencies are known, the whole way from blocks to percentiles gives them back; 200 campaigns of these: test_bench_simulated."""
    truths = {"cache": Truth(10, 0.3), "copy": Truth(20, 0.3)}
    synthetic, asked = Synthetic(truths, 1), campaign([*truths], 100)
    with Journal(str(tmp_path / "j"), asked) as journal:
        run(asked, journal, synthetic.opened)
    for key, series in read([str(tmp_path / "j")]).series.items():
        for share in (0.5, 0.9):
            span = interval(series.sampled, share)
            assert span is not None
            assert span.low <= truths[key.strategy or ""].quantile(share) <= span.high


def test_12_contenders_are_set_up_alike() -> None:
    """All cells of a table differ in what the table lists and in nothing else, and every warm-up, time-out and image is the same for all."""
    cells = plan.load("laptop").tables[0].cells
    assert {cell._replace(strategy="") for cell in cells} == {cells[0]._replace(strategy="")}
    assert {cell.strategy for cell in cells} == set(plan.STRATEGIES)


def test_13_the_guest_s_console_is_the_same_for_all_and_short() -> None:
    """A start of hello prints some hundred bytes; its command line is its name, whatever the strategy."""
    assert starting.arguments("hello", "x") == ["--ready", "console:x", "hello", "wait", "x"]


def test_14_no_figure_without_its_number_and_its_spread(tmp_path: Path) -> None:
    one = report.made(_read(tmp_path / "one", [5.0])).sections[0].rows[0]
    many = report.made(_read(tmp_path / "many", [5.0 + value for value in range(30)])).sections[0].rows[0]
    columns = dict(zip(report.COLUMNS, one, strict=True))
    assert (columns["n"], columns["p50"], columns["p90"]) == ("1", "5.00", "-")
    assert "[" in dict(zip(report.COLUMNS, many, strict=True))["p50"]
    assert plan.parse({"name": "x", "cells": [{"scenario": "sequential"}]}).samples == 30


def test_15_what_is_negative_stays_negative(tmp_path: Path) -> None:
    """The kernel's memory may have shrunk: that is noise, which clamping would turn into growth."""
    values = [-3.0, -1.0, 2.0] * 10
    [series] = _read(tmp_path / "j", values).series.values()
    assert sorted(series.values) == sorted(values)
    assert quantile(series.sampled, 0.5) == -1
    board = Board()
    board.series(_KEY).add(-2.0)
    assert board.rows()[0].min == -2.0


def test_16_the_benchmark_runs_in_every_test_run() -> None:
    """The tiny campaign of the root tier takes samples by every module that there is, and is no long test."""
    path = _PROJECT / "tests/root/test_campaign_scenarios.py"
    found = importlib.util.spec_from_file_location("campaign_scenarios", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    tiny = plan.parse(tomllib.loads(module._CAMPAIGN))
    run_by = {SCENARIOS[cell.scenario].groups[EMBEDDED][0] for cell in tiny.cells}
    assert run_by == {each.groups[EMBEDDED][0] for each in SCENARIOS.values() if EMBEDDED in each.groups}
    assert not hasattr(module.test_every_scenario, "pytestmark")


def test_a_percentile_beyond_the_failures_is_not_hidden() -> None:
    failing = Sampled(tuple(float(value) for value in range(27)), 3)
    assert quantile(failing, 0.95) == math.inf
    found = interval(failing, 0.5)
    assert found is not None
    assert math.isfinite(found.high)


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ([], [], ""),
        (["mount /left"], [], "the host was not clean before: mount /left"),
        ([], ["process 7 (qemu)", "mount /mine"], "left behind: mount /mine, process 7 (qemu)"),
    ],
)
def test_the_host_is_looked_at_before_and_after_every_sample(
    monkeypatch: pytest.MonkeyPatch, before: list[str], after: list[str], problem: str
) -> None:
    looks = iter([frozenset(before), frozenset(after)])
    monkeypatch.setattr(census, "take", lambda _: frozenset())
    monkeypatch.setattr(census, "left", lambda *_: next(looks))
    stage, place, journal = (SimpleNamespace() for _ in range(3))
    with world.Embedded(stage, place, journal, 0, 60.0).clean() as found:  # type: ignore[arg-type]
        pass
    assert found.problem == problem
    assert next(looks, None) is None


def test_siblings_of_another_image_are_another_series() -> None:
    cell = Cell("siblings", "cache", "hello", 1, "embedded", "file", "", "nginx")
    assert starting.key(cell, "ready", None).scenario == "siblings, beside nginx"
