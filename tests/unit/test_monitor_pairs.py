"""The table of pairs: what the documentation, validation and doctor tell is one thing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unikeel import guests, monitors
from unikeel.config import defaults
from unikeel.doctor import programs
from unikeel.doctor.findings import Level
from unikeel.errors import BadContent
from unikeel.model.names import GUESTS, MONITORS, PAIRS, check_pair
from unikeel.monitors.pairs import Proof, pairs
from unikeel.monitors.reference import reference

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def test_the_documentation_is_that_of_the_tables() -> None:
    with open(os.path.join(ROOT, "docs/monitors.md"), encoding="utf-8") as file:
        assert file.read() == reference(), "python -m unikeel.monitors.reference > docs/monitors.md"


def test_every_pair_that_validation_lets_pass_has_a_proof_and_no_other() -> None:
    table = {(pair.monitor, pair.guest): pair for pair in pairs()}
    assert list(table) == [(monitor, guest) for monitor, found in PAIRS.items() for guest in found]
    for monitor in MONITORS:
        for guest in GUESTS:
            if (monitor, guest) in table:
                check_pair(guest, monitor, "x")
            else:
                with pytest.raises(BadContent):
                    check_pair(guest, monitor, "x")


def test_what_is_not_offered_is_what_the_registries_lack() -> None:
    for pair in pairs():
        offered = pair.monitor in monitors.offered() and pair.guest in guests.offered()
        assert offered is (pair.proof is not Proof.NOT_OFFERED)
        assert pair.remark


def test_doctor_tells_of_each_monitor_which_guests_it_runs(tmp_path: Path) -> None:
    program = tmp_path / "p"
    program.write_text("#!/bin/sh\necho v99.1.2\n")
    program.chmod(0o755)
    config = defaults()._replace(monitor_uml_path=str(program), monitor_spt_path="/nonexistent/spt")
    findings = {finding.check: finding for finding in programs.others(config, "")}
    assert set(findings) == {f"monitor-{name}" for name in monitors.offered() if name != "qemu"}
    assert all(finding.level is Level.OK for finding in findings.values())
    assert findings["monitor-uml"].message == f"uml 99.1.2 ({program}) runs linux"
    spt = findings["monitor-spt"]
    assert spt.message.startswith("not there, needed for rumprun, mirage only: /nonexistent/spt cannot be used")
    assert spt.mend.startswith("build Solo5")
