"""Which question a series answers. Campaigns' series have the scenario's name; those out of the lab have the names of the benchmarks that took them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from unikeel.bench.campaign.results import Series
from unikeel.bench.campaign.scenarios import SCENARIOS
from unikeel.bench.rows import Key

#: Scenario in the lab → question, where its metric does not say more.
_LAB: Final[Mapping[str, str]] = {
    "first-copy": "first", "crowd": "burst", "hundred": "prepare", "idle": "memory", "idle-network": "memory", "beside-monitor": "memory",
    "monitor": "memory", "shim": "memory", "end": "sequential", "start": "sequential", "serial": "prepare", "socket": "prepare", "collected": "prepare",
    "daemon": "writes",
}  # fmt: skip
_SIZE: Final = re.compile(r"(?:boot|image)-([1-9][0-9]*)M")
_LEVEL: Final = re.compile(r", ([0-9]+) ")
#: Shown first in a question's table, and compared.
_VIEWS: Final = ("view", "view_first", "remove")


def question_of(key: Key) -> str:
    """The scenario whose question a series answers; empty: none that is known."""
    scenario = key.scenario.partition(",")[0]
    if scenario in SCENARIOS:
        return scenario
    if scenario == "warm":
        return "sequential" if key.metric.startswith(("task_", "daemon_", "exec", "ready", "import")) else "boot-size"
    if key.metric.endswith("_bytes") or (scenario == "serial" and key.metric == "daemon_cpu"):
        return "writes"
    if scenario == "crowd" and key.metric.startswith("prepare"):
        return "prepare"
    if scenario in ("serial", "socket") and key.metric in _VIEWS:
        return "view"
    return _LAB.get(scenario, "")


def headline(key: Key) -> bool:
    """Whether a series is one of those that its question is about."""
    question = question_of(key)
    return bool(question) and key.metric in SCENARIOS[question].headline


def size_of(key: Key) -> int | None:
    """The megabytes that an image's name says; None: it says none."""
    found = _SIZE.fullmatch(key.image or "")
    return int(found[1]) if found else None


def level_of(key: Key) -> int:
    """The number that a scenario's name ends with (``base-size, 10 GB``); 0: there is none."""
    found = _LEVEL.search(key.scenario)
    return int(found[1]) if found else 0


def by_question(series: Iterable[Series]) -> dict[str, list[Series]]:
    """The series of each question, in the order of the scenarios; those of none at the end, under an empty name."""
    found: dict[str, list[Series]] = {name: [] for name in (*SCENARIOS, "")}
    for each in series:
        found[question_of(each.key)].append(each)
    return {name: sorted(those, key=_order) for name, those in found.items() if those}


def _order(series: Series) -> tuple[object, ...]:
    key = series.key
    return (
        not headline(key), key.metric, key.scenario, key.snapshotter or "", key.runtime or "", size_of(key) or 0, key.image or "",
        key.concurrency or 0, key.siblings or 0, key.strategy or "",
    )  # fmt: skip
