"""The store of thin devices in the virtual machine, where there is device-mapper: the modules of tests/machine, run there."""

from __future__ import annotations

import os

import pytest

from lab.machine import Machine
from lab_support.inside import run_inside

_POOL = "tried"
_CONFIG = f'[snapshotter]\nstore = "{_POOL}"\nempty_size = "256MiB"\n'
_SECONDS = 600.0
_LONG = os.environ.get("UNIKEEL_LONG") == "1"
#: What the short form tries: a call of each kind, and what is a thin device's own matter. The rest are questions to the records, which every store has, and
#: to a mounted file system; without device-mapper they are asked in the short form, too.
_SHORT = (
    "basic or siblings or commit_refuses or mounts_are or intermediate_fails or disks or import or usage or cleanup or reconciling or reopened"
    " or consumers or close_twice or views_are or root_of or two_views"
)


def test_the_suites_of_every_store(machine: Machine) -> None:
    assert " passed" in run_inside(machine, "test_thin_suite.py", *(() if _LONG else ("-k", _SHORT)))


def test_killed_at_every_step(machine: Machine) -> None:
    assert " passed" in run_inside(machine, "test_thin_kills.py")


@pytest.mark.long
def test_containerds_checks() -> None:
    """Through a containerd of a machine of their own, whose snapshotter is ours."""
    with Machine() as place:
        place.run(["unikeel", "pool", "create", _POOL, "--size", "2GiB", "--sparse"], timeout=_SECONDS)
        place.put("/etc/unikeel/config.toml", _CONFIG.encode())
        place.start_containerd("unikeel", cri=False)
        assert "21 passed" in run_inside(place, "test_thin_containerd.py", patience=_SECONDS)


@pytest.mark.long
def test_something_is_wrong(machine: Machine) -> None:
    assert " passed" in run_inside(machine, "test_thin_faults.py")


@pytest.mark.long
def test_any_sequence_of_calls(machine: Machine) -> None:
    assert " passed" in run_inside(machine, "test_thin_sequences.py")
