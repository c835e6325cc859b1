"""The engine's pure parts: readiness, timeline, settings, decoding of ends."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unikeel.engine import ready
from unikeel.engine.settings import Settings, whole_mib
from unikeel.engine.timeline import Timeline
from unikeel.errors import InvalidArgument
from unikeel.model.image_fields import GuestConfig
from unikeel.model.volumes import Volume
from unikeel.network.ports import Port

_TEXT = st.text(max_size=12)
_GUEST = st.builds(
    GuestConfig,
    type=st.sampled_from(["linux", "generic"]),
    monitor=st.just("qemu"),
    binary=_TEXT,
    cmdline=_TEXT,
)
_SETTINGS = st.builds(
    Settings,
    guest=_GUEST,
    args=st.lists(_TEXT, max_size=3).map(tuple),
    env=st.lists(_TEXT, max_size=3).map(tuple),
    memory_mib=st.integers(16, 4096),
    cpus=st.integers(1, 64),
    boot_files=st.sampled_from(["auto", "copy"]),
    ports=st.lists(st.builds(Port, _TEXT, st.integers(1, 9), st.integers(1, 9), st.just("tcp")), max_size=3).map(tuple),
    network=st.sampled_from(["none", "user"]),
    machine=_TEXT,
    accel=_TEXT,
    sandbox=st.booleans(),
    disk=st.booleans(),
    initrd=st.booleans(),
    volumes=st.lists(st.builds(Volume, _TEXT, _TEXT, st.booleans()), max_size=3).map(tuple),
)


@given(_SETTINGS)
def test_settings_are_read_back(settings: Settings) -> None:
    assert Settings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


@pytest.mark.parametrize(("size", "mib"), [(0, 0), (1, 1), (1 << 20, 1), ((1 << 20) + 1, 2)])
def test_whole_mib(size: int, mib: int) -> None:
    assert whole_mib(size) == mib


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("first-output", "first-output", ""),
        ("console:login: $", "console", "login: $"),
        ("console:a:b", "console", "a:b"),
        ("port:80", "port", "80"),
    ],
)
def test_readiness(text: str, kind: str, value: str) -> None:
    assert ready.parse(text) == ready.Ready(kind, value)


@pytest.mark.parametrize(
    "text", ["", "first", "console:", "console:(", "port:", "port:0", "port:65536", "port:x", "port:٣"]
)
def test_wrong_readiness(text: str) -> None:
    with pytest.raises(InvalidArgument):
        ready.parse(text)


def test_readiness_by_a_port_needs_it_published() -> None:
    ready.check(ready.Ready("port", "80"), (Port("", 8080, 80, "tcp"),))
    ready.check(ready.Ready("first-output", ""), ())
    for ports in ((), (Port("", 80, 8080, "tcp"),), (Port("", 8080, 80, "udp"),)):
        with pytest.raises(InvalidArgument, match="not published"):
            ready.check(ready.Ready("port", "80"), ports)


def test_a_timeline() -> None:
    timeline = Timeline(start=10)
    with timeline.span("outer", strategy="cache") as outer:
        timeline.add("inner", 20, 30, {"bytes": 4})
        with timeline.span("nested"):
            pass
        outer.attributes["hit"] = True
    with pytest.raises(ValueError, match="broken"), timeline.span("failing"):
        raise ValueError("broken")
    assert [(span.name, span.parent) for span in timeline.spans] == [
        ("outer", ""),
        ("inner", "outer"),
        ("nested", "outer"),
        ("failing", ""),
    ]
    assert all(span.end >= span.start for span in timeline.spans)
    found = timeline.find("outer")
    assert found is not None
    assert found.attributes == {"strategy": "cache", "hit": True}
    assert timeline.find("none") is None
    inner = timeline.find("inner")
    assert inner is not None
    assert inner.milliseconds == 1e-5
    again = Timeline.from_json(json.loads(json.dumps(timeline.to_json())))
    assert again.to_json() == timeline.to_json()
    assert again.milliseconds == timeline.milliseconds
    assert Timeline(5).milliseconds == 0
