"""The power goes away: whatever a store had answered is there afterwards, of the one open call nothing or everything, and nothing is left that nobody knows.

Twice: on a disk whose every write is logged, cut at many places of the log (also between a write and the flush behind it), in one machine; and, in the long
form, by killing the machine in the middle of its work, with the disk kept.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.machine import Machine
from lab_support.dying import Background
from lab_support.power import disks, journal
from lab_support.waiting import PATIENCE, until
from lab_support.world import LONG

#: The short form has the store whose content device-mapper keeps; both have the same records. Cuts of XFS are tried without a machine, too (tests/root/test_snapshot_clones.py).
_KINDS = ("file", "xfs", "thin") if LONG else ("thin",)
#: Calls, and cuts, for each kind: a thin pool's take longer in the emulated machine.
_LOGGED = dict.fromkeys(_KINDS, (200, 60)) if LONG else {"thin": (12, 2)}
#: Calls that are answered before a machine is killed.
_ANSWERS = (10, 25, 60, 90)
_ENDLESS = 100_000
_DISK = "/dev/vdc"
_PYTHON = ["/opt/unikeel/bin/python", "-m", "lab_support.power"]
_ENVIRONMENT = {"PYTHONPATH": "/unikeel/tests"}
_JOURNAL = os.path.join(disks.MOUNT_POINT, "journal")
_SECONDS = 3600.0 if LONG else 900.0


def power(machine: Machine, *words: object) -> str:
    """``python -m lab_support.power`` in the machine; what it prints."""
    done = machine.run([*_PYTHON, *map(str, words)], env=_ENVIRONMENT, timeout=_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", _KINDS)
def test_cut_at_places_of_the_log_of_writes(machine: Machine, kind: str) -> None:
    steps, cuts = _LOGGED[kind]
    said = power(machine, "logs", kind, steps, 1, cuts)
    assert int(said.split()[0]) > steps, "hardly anything was written"


def answers(machine: Machine) -> int:
    """How many calls the journal in a machine has the answers to."""
    done = machine.run(["cat", _JOURNAL], check=False)
    return len(journal.read(done.stdout.splitlines(keepends=True)).answered)


@pytest.mark.long
@pytest.mark.parametrize("count", _ANSWERS)
@pytest.mark.parametrize("kind", _KINDS)
def test_the_machine_is_killed(tmp_path: Path, kind: str, count: int) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(disks.DISK_MIB << 20)
    with Machine(disks=[str(disk)]) as doomed:
        power(doomed, "setup", kind, _DISK)
        work = Background(lambda: power(doomed, "busy", kind, _DISK, _ENDLESS, count))
        until(lambda: not work.runs or answers(doomed) >= count, f"{count} answers", PATIENCE * doomed.slowness, 0.5)
        assert work.runs, "the work ended before the power was cut"
        doomed.close()
    with Machine(disks=[str(disk)]) as next_one:
        power(next_one, "look", kind, _DISK)
