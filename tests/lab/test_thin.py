"""The store of thin devices in the virtual machine, where there is device-mapper: the modules of tests/machine, run there."""

from __future__ import annotations

import os

import pytest

from lab.machine import Machine
from lab_support.inside import run_inside

_LONG = os.environ.get("UNIKEEL_LONG") == "1"
#: Tests that mount very often, which takes long there; the short form has them without device-mapper.
_WITHOUT_MANY_MOUNTS = () if _LONG else ("-k", "not many_layers and not file_updates")


def test_the_suites_of_every_store(machine: Machine) -> None:
    assert " passed" in run_inside(machine, "test_thin_suite.py", *_WITHOUT_MANY_MOUNTS)


def test_killed_at_every_step(machine: Machine) -> None:
    assert " passed" in run_inside(machine, "test_thin_kills.py")


@pytest.mark.long
def test_something_is_wrong(machine: Machine) -> None:
    assert " passed" in run_inside(machine, "test_thin_faults.py")


@pytest.mark.long
def test_any_sequence_of_calls(machine: Machine) -> None:
    assert " passed" in run_inside(machine, "test_thin_sequences.py")
