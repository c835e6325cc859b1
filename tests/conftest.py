"""Tiers that cannot lie: ``UNIKEEL_TIER=root`` asks for a tier, and what is asked for may not be skipped.

Without the variable a developer may skip what the machine at hand cannot do. With it a skip is a failure, of a test and
of a whole module, so that a green run means that everything ran. Tests marked ``long`` only run with ``UNIKEEL_LONG=1``; without it
they are deselected, not skipped, and pytest counts them.

Property-based tests try the same examples in every short run, so that a green one stays green; new ones are tried by ``make test-full`` and
by ``pytest --hypothesis-seed=N``.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

TIER = os.environ.get("UNIKEEL_TIER", "")
LONG = os.environ.get("UNIKEEL_LONG") == "1"

_Report = TypeVar("_Report", pytest.TestReport, pytest.CollectReport)


def pytest_configure(config: pytest.Config) -> None:
    """The same examples every time, unless new ones are asked for; however long one takes, since the machine may be busy."""
    patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("new", patient)
    settings.register_profile("the same", patient, derandomize=True)
    is_same = not LONG and config.getoption("--hypothesis-seed", default=None) is None
    settings.load_profile("the same" if is_same else "new")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long tests."""
    long = [] if LONG else [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skipped test of an asked-for tier has failed. An expected failure is reported as skipped, too: that one stays."""
    report = yield
    return report if hasattr(report, "wasxfail") else _without_skip(report, item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself."""
    return _without_skip((yield), collector.nodeid)


def _without_skip(report: _Report, name: str) -> _Report:
    if TIER and report.outcome == "skipped":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{name}: the tier {TIER} was asked for and may not skip anything: {reason}"
    return report
