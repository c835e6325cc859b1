"""Knative's proxy is told where its guest is, and nobody else is told anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unikeel.errors import InvalidArgument, NotFound
from unikeel.shim import knative
from unikeel.shim.ocispec import Spec

NAME = "io.kubernetes.cri.container-name"


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({NAME: "queue-proxy"}, True),
        ({NAME: "queue-proxy", "org.unikeel.network": "static"}, True),
        ({NAME: "queue-proxy", "org.unikeel.network": "user"}, False),
        ({NAME: "user-container"}, False),
        ({}, False),
    ],
)
def test_who_is_one(annotations: dict[str, str], expected: bool) -> None:
    assert knative.is_proxy(Spec(annotations=annotations)) is expected


def test_its_probe_and_its_requests_lead_to_the_guest(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    probe = {"tcpSocket": {"port": 8080, "host": "127.0.0.1"}, "successThreshold": 1}
    several = [{"httpGet": {"path": "/", "port": 80}}, {"exec": {"command": ["x"]}}]
    for given in (probe, several):
        environment = ["A=1", f"SERVING_READINESS_PROBE={json.dumps(given)}", "REDIRECT_IP=10.0.0.1"]
        path.write_text(json.dumps({"process": {"env": environment, "cwd": "/"}, "hostname": "h"}))
        path.chmod(0o640)
        knative.lead(str(tmp_path))
        written = path.read_bytes()
        found = json.loads(written)
        assert (found["hostname"], found["process"]["cwd"], path.stat().st_mode & 0o777) == ("h", "/", 0o640)
        first, changed, last = found["process"]["env"]
        assert (first, last) == ("A=1", "REDIRECT_IP=172.16.1.2")
        told = json.loads(changed.partition("=")[2])
        assert [part["host"] for part in _asks(told)] == ["172.16.1.2"]
        knative.lead(str(tmp_path))
        assert path.read_bytes() == written
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["config.json"]


def _asks(told: Any) -> list[dict[str, str]]:
    probes: list[Any] = told if isinstance(told, list) else [told]
    return [probe[kind] for probe in probes for kind in ("httpGet", "tcpSocket") if kind in probe]


@pytest.mark.parametrize("value", ["", "{", "[1, null]", '{"tcpSocket": 1}', "[" * 100000])
def test_a_probe_that_is_none_stays(tmp_path: Path, value: str) -> None:
    variable = f"SERVING_READINESS_PROBE={value}"
    (tmp_path / "config.json").write_text(json.dumps({"process": {"env": [variable]}}))
    knative.lead(str(tmp_path))
    found = json.loads((tmp_path / "config.json").read_text())["process"]["env"]
    assert [found[0].replace(" ", ""), *found[1:]] == [variable.replace(" ", ""), "REDIRECT_IP=172.16.1.2"]


def test_a_bundle_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        knative.lead(str(tmp_path))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InvalidArgument):
        knative.lead(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    knative.lead(str(tmp_path))
