"""The sixteen defects of published harnesses (docs/evaluation.md lists them): for each the antidote is here, and a test that fails without it."""

from __future__ import annotations

import ast
import inspect
import json
import math
import os
from pathlib import Path

import pytest

import unikeel.bench
from unikeel.bench.campaign import embedded, plan
from unikeel.bench.campaign.embedded import acquire, burst, census, churn, memory, starting, world
from unikeel.bench.campaign.journal import Journal, Kind
from unikeel.bench.campaign.plan import Cell
from unikeel.bench.campaign.results import Results, read
from unikeel.bench.campaign.running import run
from unikeel.bench.evaluation import report, wording
from unikeel.bench.inference import Difference, Interval, Sampled, interval, quantile
from unikeel.bench.rows import Board, Key
from unikeel.bench.scenarios.acquire import judge
from unikeel.bench.scenarios.starts import NoSample, check
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


def test_4_the_number_of_a_sample_is_never_a_time() -> None:
    """A churn's samples are timed from the instant at which each was due, by the clock; a burst's from the beginning of all."""
    assert "(ready.end - due)" in inspect.getsource(churn)
    assert "(ready.end - begun)" in inspect.getsource(burst)


def test_5_nothing_is_as_coarse_as_a_pause_between_two_looks() -> None:
    """Readiness is an event in the guest's own output, stamped by the command; the bench itself never polls for it."""
    for module in (starting, burst, churn):
        tree = ast.parse(inspect.getsource(module))
        loops = [node for node in ast.walk(tree) if isinstance(node, ast.While)]
        assert loops == []
    assert check(_timeline(ready=300), "cache").ready == 300


@pytest.mark.parametrize(("ratio", "direction"), [(0.732, 1), (1 / 0.732, -1)])
def test_6_a_share_that_remains_is_never_called_a_reduction(tmp_path: Path, ratio: float, direction: int) -> None:
    [series] = _read(tmp_path / "j", [1.0]).series.values()
    other = series._replace(key=_KEY._replace(strategy="copy"))
    said = wording.difference(series, other, Difference(ratio, Interval(ratio, ratio), 0.001, direction))
    assert "takes 1.37 [1.37, 1.37] times as much as" in said
    assert "reduc" not in said
    assert "%" not in said


def test_7_clocks_count_nanoseconds_and_do_not_jump() -> None:
    """No module that takes samples reads the wall clock, but for the date in the environment."""
    for path in (_PROJECT / "src/unikeel/bench").rglob("*.py"):
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert not {"time_ns", "now", "utcnow", "perf_counter"} & names, path
        assert "time.time(" not in path.read_text(), path


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


def test_10_memory_is_that_of_everybody_with_the_guest_s_apart() -> None:
    source = inspect.getsource(memory)
    for part in (
        '"host"',
        '"monitor"',
        '"guest"',
        '"cached"',
        '"slab"',
        "helpers",
        "copies(stage)",
        "memory_files(keeper)",
    ):
        assert part in source


def test_11_the_harness_is_measured_first() -> None:
    """On a runtime whose latencies are known, the whole way from blocks to percentiles gives them back: test_bench_simulated."""
    assert os.path.exists(_PROJECT / "tests/unit/test_bench_simulated.py")


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
    text = (_PROJECT / "tests/root/test_campaign_scenarios.py").read_text()
    assert "def test_every_scenario" in text
    assert "long" not in text


def test_a_percentile_beyond_the_failures_is_not_hidden() -> None:
    failing = Sampled(tuple(float(value) for value in range(27)), 3)
    assert quantile(failing, 0.95) == math.inf
    found = interval(failing, 0.5)
    assert found is not None
    assert math.isfinite(found.high)


def test_the_host_is_looked_at_before_and_after_every_sample() -> None:
    assert inspect.getsource(world.Embedded.clean).count("census.left") == 2
    assert (
        starting.key(Cell("siblings", "cache", "hello", 1, "embedded", "file", "", "nginx"), "ready", None).scenario
        == "siblings, beside nginx"
    )
    assert acquire.__doc__
    assert census.__doc__
    assert embedded.__doc__
