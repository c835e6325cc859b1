"""Campaigns: their files, the journal that loses nothing, and runs that are interrupted and go on."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unikeel.bench.campaign import plan
from unikeel.bench.campaign.journal import Journal, Kind, kind_of
from unikeel.bench.campaign.results import read
from unikeel.bench.campaign.running import run
from unikeel.bench.campaign.scenarios import SCENARIOS
from unikeel.bench.rows import problems
from unikeel.errors import BadContent, FailedPrecondition, NotFound
from unikeel.testing.synthetic_bench import MESSAGES, Synthetic, Truth, campaign, key

_TRUTHS = {"cache": Truth(1, 0.1), "copy": Truth(2, 0.1, {Kind.FAILURE: 0.2})}


@pytest.mark.parametrize("name", plan.names())
def test_campaigns_that_come_with_unikeel(name: str) -> None:
    found = plan.load(name)
    assert found.name == name
    assert found.about
    assert found.warm_up >= 1
    names = [cell.name for cell in found.cells]
    assert len(names) == len(set(names))
    blocks = found.blocks()
    assert len({block.name for block in blocks}) == len(blocks)
    for number, table in enumerate(found.tables):
        for cell in table.cells:
            rounds = [block.rounds for block in blocks if block.number == number and cell in block.cells]
            assert sum(rounds) == table.samples


def test_the_default_is_thirty_samples() -> None:
    assert plan.parse({"name": "x", "cells": [{"scenario": "sequential"}]}).tables[0].samples == 30


def test_every_combination_is_a_cell_and_strategies_are_neighbours() -> None:
    found = plan.parse(
        {
            "name": "x",
            "cells": [{"scenario": "siblings", "levels": [0, 5], "strategies": ["cache", "copy"], "beside": "nginx"}],
        }
    )
    assert [(cell.level, cell.strategy, cell.beside) for cell in found.cells] == [
        (0, "cache", "nginx"), (0, "copy", "nginx"), (5, "cache", "nginx"), (5, "copy", "nginx"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "needs a name and cells"),
        ({"name": "x", "cells": []}, "needs a name and cells"),
        ({"name": "x", "colour": 1, "cells": [{}]}, "no key 'colour'"),
        ({"name": 3, "cells": [{}]}, "name must be of the type str"),
        ({"name": "x", "samples": True, "cells": [{"scenario": "sequential"}]}, "samples must be of the type int"),
        ({"name": "x", "samples": 0, "cells": [{"scenario": "sequential"}]}, "samples must be a whole number"),
        ({"name": "x", "cells": [{"scenario": "fast"}]}, "no scenario 'fast'"),
        ({"name": "x", "cells": [{"scenario": "churn", "where": "snapshotter"}]}, "churn cannot run at 'snapshotter'"),
        ({"name": "x", "cells": [{"scenario": "burst", "levels": ["many"]}]}, "levels must be a list of whole numbers"),
        ({"name": "x", "cells": [{"scenario": "burst", "strategies": ["magic"]}]}, "strategies must be a list"),
        ({"name": "x", "cells": [{"scenario": "burst", "level": 3}]}, "no key 'level'"),
        ({"name": "x", "cells": ["burst"]}, "is not a table"),
    ],
)
def test_a_wrong_file_is_refused_and_the_message_says_where(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadContent, match=message):
        plan.parse(values)


def test_files(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="laptop"):
        plan.load("nonsense")
    (tmp_path / "c.toml").write_text("name = ")
    with pytest.raises(BadContent, match=r"c\.toml"):
        plan.load(str(tmp_path / "c.toml"))
    (tmp_path / "c.toml").write_bytes(b"\xff")
    with pytest.raises(BadContent, match=r"c\.toml"):
        plan.load(str(tmp_path / "c.toml"))


def test_scenarios_are_those_that_were_asked_for() -> None:
    wanted = {
        "sequential", "siblings", "burst", "churn", "image-size", "boot-size", "cold", "prepare", "view", "memory", "writes",
    }  # fmt: skip
    assert wanted <= set(SCENARIOS)
    assert all(found.question.endswith("?") and found.groups for found in SCENARIOS.values())


@pytest.mark.parametrize("kind", list(Kind))
def test_what_a_failure_is_about(kind: Kind) -> None:
    assert kind_of(MESSAGES[kind]) is kind


# -- the journal -----------------------------------------------------------------------------------------------------


@given(st.integers(0, 400))
def test_a_journal_that_was_cut_anywhere_goes_on_with_every_whole_sample(cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        path, asked = os.path.join(directory, "j.jsonl"), campaign(["cache"], 3)
        with Journal(path, asked) as journal:
            begin = os.path.getsize(path)
            for value in (1.0, 2.0, 3.0):
                journal.sample(key(asked.cells[0]), value)
        with open(path, "r+b") as file:
            whole = file.read()
            size = min(len(whole), begin + cut)
            file.truncate(size)
        expected = whole[:size].count(b"\n") - 1
        with Journal(path, asked) as journal:
            journal.sample(key(asked.cells[0]), 9.0)
        [series] = read([path]).series.values()
        assert series.values == (*(1.0, 2.0, 3.0)[:expected], 9.0)


def test_a_journal_of_another_campaign_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "j.jsonl")
    Journal(path, campaign(["cache"], 3)).close()
    with pytest.raises(FailedPrecondition, match="another campaign"):
        Journal(path, campaign(["cache"], 4))
    with Journal(path, campaign(["cache"], 3)), pytest.raises(FailedPrecondition, match="another run"):
        Journal(path, campaign(["cache"], 3))


def test_what_is_no_journal_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    for data in (
        b"",
        b"{}\n",
        b"nonsense\n",
        b'{"campaign": {}}\n{"key": [1]}\n',
        b'{"campaign": {}}\n[]\n',
        b"\x1f\x8bxx",
    ):
        path.write_bytes(data)
        with pytest.raises(BadContent, match=r"j\.jsonl"):
            read([str(path)])
    with pytest.raises(NotFound):
        read([str(tmp_path / "none")])


# -- runs ------------------------------------------------------------------------------------------------------------


def test_an_interrupted_run_loses_nothing_and_goes_on(tmp_path: Path) -> None:
    path, asked = str(tmp_path / "j.jsonl"), campaign(list(_TRUTHS), 20)

    def interrupted(taken: int) -> None:
        if taken == 23:
            raise KeyboardInterrupt

    with Journal(path, asked) as journal:
        first = run(asked, journal, Synthetic(_TRUTHS, 1, interrupted).opened)
    before = read([path])
    taken = sum(series.sampled.attempts for series in before.series.values())
    assert (first.left, first.incomplete, taken) == (2, False, 23)
    assert first.interrupted
    world = Synthetic(_TRUTHS, 2)
    with Journal(path, asked) as journal:
        second = run(asked, journal, world.opened)
    after = read([path])
    assert (second.left, world.taken) == (0, 20)
    for name, series in before.series.items():
        assert after.series[name].values[: len(series.values)] == series.values
        assert after.series[name].sampled.attempts >= 20
    with Journal(path, asked) as journal:
        assert run(asked, journal, world.opened).left == 0
    assert world.taken == 20, "a complete campaign is not measured again"


def test_a_killed_run_has_every_sample_that_it_took(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    code = (
        "import os, sys; from unikeel.testing.synthetic_bench import *; from unikeel.bench.campaign.running import run\n"
        "def ends(taken):\n    if taken == 17: os.kill(os.getpid(), 9)\n"
        "asked = campaign(['cache'], 30)\n"
        f"with Journal({str(path)!r}, asked) as journal: run(asked, journal, Synthetic({{'cache': Truth(1, .1)}}, 1, ends).opened)"
    )
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    assert done.returncode == -9
    [series] = read([str(path)]).series.values()
    assert len(series.values) == 17


def test_minutes_end_a_run_at_a_block(tmp_path: Path) -> None:
    asked, world = campaign(["cache"], 20), Synthetic(_TRUTHS, 1)
    with Journal(str(tmp_path / "j.jsonl"), asked) as journal:
        assert run(asked, journal, world.opened, minutes=1e-9).left == 4
    assert world.taken == 0


def test_results_add_up_compressed_or_not_and_are_rows_of_the_one_format(tmp_path: Path) -> None:
    path, asked = tmp_path / "j.jsonl", campaign(list(_TRUTHS), 20)
    with Journal(str(path), asked) as journal:
        run(asked, journal, Synthetic(_TRUTHS, 1).opened)
    packed = tmp_path / "j.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    once, twice = read([str(packed)]), read([str(path), str(packed)])
    assert all(len(twice.series[name].values) == 2 * len(each.values) for name, each in once.series.items())
    document = json.loads(once.document().to_text())
    assert problems(document) == []
    assert {"kernel", "cpu", "cores", "load", "commit", "load_after", "unikeel"} <= set(document["environment"])
