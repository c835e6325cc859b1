"""What is found out about the monitors beside QEMU: program, version, and the files that remember it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unikeel import monitors
from unikeel.config import defaults
from unikeel.errors import Unavailable
from unikeel.model.names import MONITORS
from unikeel.monitors.probing import Wanted, parse_version, program_facts

WANTED = Wanted("spt", "solo5-spt", (0, 6), "monitor.spt_path", "build it")


def program(directory: Path, script: str, name: str = "solo5-spt") -> str:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("output", "version"),
    [
        # As they say it themselves: Firecracker 1.7, Cloud Hypervisor 50, Solo5 0.12, user-mode Linux 6.1.
        ("Firecracker v1.7.0\n\nSupported snapshot data format versions: v2.0.0\n", (1, 7, 0)),
        ("cloud-hypervisor v50.0.0\n", (50, 0, 0)),
        ("solo5-spt tender, version v0.12.1-7-g469c1a8\nABI version 2\n", (0, 12, 1)),
        ("6.1.176\n", (6, 1, 176)),
        ("x 7.2", (7, 2)),
    ],
)
def test_version(output: str, version: tuple[int, ...]) -> None:
    assert parse_version(output, "p", WANTED) == version


@pytest.mark.parametrize("output", ["", "version", "version 7", "a.b.c", "x86_64", "1234567.8"])
def test_what_says_no_version_is_not_available(output: str) -> None:
    with pytest.raises(Unavailable, match="does not say its version"):
        parse_version(output, "p", WANTED)


def test_the_program_is_asked_once_until_it_is_replaced(tmp_path: Path) -> None:
    log = tmp_path / "log"
    path = program(tmp_path, f"echo asked >> {log}; echo tender, version v0.9.3 >&2")
    for _ in range(3):
        facts = program_facts(WANTED, path, str(tmp_path / "cache"))
        assert (facts.version, facts.path, facts.binds[0]) == ((0, 9, 3), path, path)
    program(tmp_path, f"echo asked >> {log}; echo v0.10.12")
    assert program_facts(WANTED, path, str(tmp_path / "cache")).version == (0, 10, 12)
    assert log.read_text() == "asked\nasked\n"


def test_it_is_looked_for_in_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path, "echo v1.2")
    monkeypatch.setenv("PATH", f"relative:{tmp_path}")
    assert program_facts(WANTED, "", "").path == path
    os.unlink(path)
    with pytest.raises(Unavailable, match="the monitor solo5-spt is not installed") as caught:
        program_facts(WANTED, "", "")
    assert caught.value.hint == "build it"


@pytest.mark.parametrize(
    ("path", "script", "message"),
    [
        ("relative", "", "must be absolute"),
        ("/nonexistent/x", "", "cannot be used"),
        ("", "echo v0.5.9", "too old: 0.6 is the least"),
        ("", "exit 1", "does not say its version"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, path: str, script: str, message: str) -> None:
    with pytest.raises(Unavailable, match=message):
        program_facts(WANTED, path or program(tmp_path, script), "")


@pytest.mark.parametrize("name", [name for name in MONITORS if name not in ("qemu", "hyperlight-unikraft")])
def test_each_has_a_key_for_its_path(name: str, tmp_path: Path) -> None:
    path = program(tmp_path, "echo v99.0.0", "p")
    config = defaults()._replace(**{f"monitor_{name.replace('-', '_')}_path": path})  # type: ignore[arg-type]
    assert config.monitor_path(name) == path
    assert monitors.monitor(name).probe(path, "").version == (99, 0, 0)
    with pytest.raises(Unavailable, match="absolute"):
        monitors.monitor(name).probe("relative", "")
