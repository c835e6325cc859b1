"""Thin pools with a real device-mapper, in the virtual machine: :mod:`lab_support.thin_pools` has what is tried."""

from __future__ import annotations

import os

import pytest

from lab.machine import Machine
from lab_support.thin_pools import LONG_ONES, SCENARIOS

_SECONDS = 1200.0


@pytest.mark.parametrize(
    "scenario", [pytest.param(name, marks=[pytest.mark.long] if name in LONG_ONES else []) for name in SCENARIOS]
)
def test_thin_pool(machine: Machine, scenario: str) -> None:
    words = ["/opt/unikeel/bin/python", "-m", "lab_support.thin_pools", scenario, "/var/lib"]
    environment = {"PYTHONPATH": "/unikeel/tests", "UNIKEEL_LONG": os.environ.get("UNIKEEL_LONG", "")}
    done = machine.run(words, env=environment, timeout=_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
