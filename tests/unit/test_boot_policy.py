"""The pure half of boot: identities, the order of strategies, the choice of victims."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unikeel.boot.contract import Choice, Limits, Parent
from unikeel.boot.policy import Kept, automatic, steps, victims
from unikeel.errors import InvalidArgument

ALL = frozenset(Choice) - {Choice.AUTO}
PARENT = Parent("engine", "default", "file", "sha256:a", 7, "ext4", trusted=True)


def test_key_is_stable() -> None:
    # printf '6:engine,7:default,4:file,8:sha256:a,1:7,' | sha256sum
    assert PARENT.key == "9f9958e9e879abb0f9491e918a957778c8f248d456c4d761a1121e0de86eaf8c"


@pytest.mark.parametrize(
    "other",
    [
        PARENT._replace(consumer="containerd"),
        PARENT._replace(namespace="k8s.io"),
        PARENT._replace(snapshotter="thin"),
        PARENT._replace(name="sha256:b"),
        PARENT._replace(created_ns=8),
        PARENT._replace(consumer="enginedefault", namespace=""),
        PARENT._replace(consumer="engine,7:default", namespace=""),
    ],
)
def test_identity_is_in_the_key(other: Parent) -> None:
    assert other.key != PARENT.key


@pytest.mark.parametrize("other", [PARENT._replace(fstype=""), PARENT._replace(trusted=False)])
def test_the_rest_is_not(other: Parent) -> None:
    assert other.key == PARENT.key


@pytest.mark.parametrize(
    ("choice", "order"),
    [
        (Choice.CACHE, "cache shared-view copy"),
        (Choice.SHARED_VIEW, "shared-view copy"),
        (Choice.VIEW, "view copy"),
        (Choice.COPY, "copy"),
    ],
)
def test_order(choice: Choice, order: str) -> None:
    planned = steps(choice, trusted=True, available=ALL)
    assert " ".join(step.choice.value for step in planned) == order
    assert not any(step.refusal for step in planned)


def test_only_the_cache_touches_what_is_not_trusted() -> None:
    refused = {step.choice: bool(step.refusal) for step in steps(Choice.CACHE, trusted=False, available=ALL)}
    assert refused == {Choice.CACHE: False, Choice.SHARED_VIEW: True, Choice.COPY: True}


def test_what_is_not_there_is_refused() -> None:
    planned = steps(Choice.CACHE, trusted=True, available={Choice.COPY})
    assert [step.choice for step in planned if not step.refusal] == [Choice.COPY]


@pytest.mark.parametrize(
    ("fstype", "trusted", "available", "chosen"),
    [
        ("ext4", True, ALL, Choice.CACHE),
        ("erofs", True, ALL, Choice.CACHE),
        ("ext4", False, ALL, Choice.CACHE),
        ("xfs", True, ALL, Choice.SHARED_VIEW),
        ("xfs", False, ALL, Choice.CACHE),
        ("ext4", True, ALL - {Choice.CACHE}, Choice.SHARED_VIEW),
        ("ext4", True, {Choice.COPY}, Choice.COPY),
        ("ext4", False, {Choice.COPY}, Choice.CACHE),
    ],
)
def test_automatic(fstype: str, *, trusted: bool, available: frozenset[Choice], chosen: Choice) -> None:
    assert automatic(fstype, trusted=trusted, available=available) is chosen


def test_limits() -> None:
    limits = Limits(kernel_size=1, initrd_size=2, config_size=3)
    assert [limits.of(role) for role in ("kernel", "initrd", "config")] == [1, 2, 3]
    with pytest.raises(InvalidArgument):
        limits.of("firmware")


_KEPT = st.builds(
    Kept,
    st.uuids().map(str),
    st.integers(0, 100),
    st.integers(0, 50),
    st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_KEPT, max_size=12), st.integers(0, 400))
def test_victims(kept: list[Kept], room: int) -> None:
    gone = victims(kept, room)
    rest = [entry for entry in kept if entry not in gone]
    assert not any(entry.used for entry in gone)
    assert sum(entry.size for entry in rest) <= room or all(entry.used for entry in rest)
    if gone:  # none too many, and the oldest ones
        assert sum(entry.size for entry in rest) + gone[-1].size > room
        youngest = max(entry.last_used_ns for entry in gone)
        assert all(entry.last_used_ns >= youngest for entry in rest if not entry.used)
