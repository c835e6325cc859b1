"""A guest's memory and processors from a container's limits."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unikeel.errors import InvalidArgument
from unikeel.model.resources import LEAST_MIB, MIB, MOST_CPUS, Memory, count, memory, processors
from unikeel.sandbox import cgroups

ALLOWANCE = 128 * MIB


@pytest.mark.parametrize(
    ("limit", "room", "expected"),
    [
        (256 * MIB, None, Memory(256, ALLOWANCE, ALLOWANCE)),
        (256 * MIB + 5, None, Memory(256, ALLOWANCE, ALLOWANCE)),
        # A pod whose overhead covers the monitor, to the byte.
        (256 * MIB, 384 * MIB, Memory(256, ALLOWANCE, ALLOWANCE)),
        # One byte less, and both must live within the limit.
        (256 * MIB, 384 * MIB - 1, Memory(128, ALLOWANCE, 0)),
        (256 * MIB, 256 * MIB, Memory(128, ALLOWANCE, 0)),
        (256 * MIB + 5, 256 * MIB + 5, Memory(128, ALLOWANCE + 5, 0)),
    ],
)
def test_memory(limit: int, room: int | None, expected: Memory) -> None:
    assert memory(limit, ALLOWANCE, room) == expected


@given(st.integers(16 * MIB, 1 << 45), st.integers(0, 1 << 32), st.none() | st.integers(0, 1 << 46))
def test_a_guest_never_gets_more_than_its_limit_nor_the_cgroup_more_than_there_is(
    limit: int, allowance: int, room: int | None
) -> None:
    try:
        found = memory(limit, allowance, room)
    except InvalidArgument:
        assert room is not None
        assert limit - allowance < LEAST_MIB * MIB
        return
    cgroup = found.guest_mib * MIB + found.allowance
    assert LEAST_MIB <= found.guest_mib <= limit // MIB
    assert found.allowance >= allowance
    assert cgroup <= limit + found.on_top
    if room is not None and room >= limit:
        assert cgroup <= room


def test_too_little_memory_says_how_much_it_takes() -> None:
    with pytest.raises(InvalidArgument, match="15 MiB of memory are too little") as caught:
        memory(16 * MIB - 1, ALLOWANCE)
    assert caught.value.hint == "give at least 16 MiB"
    with pytest.raises(InvalidArgument, match="0 MiB of memory are too little") as caught:
        memory(64 * MIB, ALLOWANCE, 64 * MIB)
    assert caught.value.hint == "give at least 144 MiB, or the pod an overhead of 128 MiB (its RuntimeClass)"


@pytest.mark.parametrize(
    ("quota", "period", "cpuset", "expected"),
    [
        (0, 0, "", 0),
        (-1, 100_000, "", 0),
        (150_000, 100_000, "", 2),
        (100_000, 0, "", 1),
        (1, 100_000, "", 1),
        (0, 0, "0-3,8", 5),
        (300_000, 100_000, "2,3", 2),
        (100_000, 100_000, "0-7", 1),
        (1 << 40, 1000, "", MOST_CPUS),
        (0, 0, " 0 ,1\n", 2),
    ],
)
def test_processors(quota: int, period: int, cpuset: str, expected: int) -> None:
    assert processors(quota, period, cpuset) == expected


@pytest.mark.parametrize("cpuset", ["x", "1-", "-1", "3-1", "0-99999999", "0,,1", "²"])
def test_what_is_no_set_of_processors_is_refused(cpuset: str) -> None:
    with pytest.raises(InvalidArgument, match="no set of processors"):
        processors(0, 0, cpuset)


@given(st.sets(st.integers(0, 300), min_size=1))
def test_a_set_is_counted_whatever_its_form(found: set[int]) -> None:
    assert count(",".join(map(str, sorted(found)))) == len(found)


@pytest.mark.parametrize(
    ("cgroup", "file", "text", "expected"),
    [
        ("/kubepods/pod1/c", "kubepods/pod1", "1048576\n", MIB),
        ("/kubepods/pod1/c", "kubepods/pod1", "max\n", None),
        ("/kubepods/pod1/c", "kubepods/pod1", "9223372036854771712\n", None),
        (
            "kubepods-burstable-podx.slice:cri-containerd:c",
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx.slice",
            "7\n",
            7,
        ),
        ("/default/c", "elsewhere", "7\n", None),
        ("/c", "x", "7\n", None),
        ("", "x", "7\n", None),
    ],
)
@pytest.mark.parametrize("unified", [True, False])
def test_the_limit_above_a_cgroup(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cgroup: str,
    file: str,
    text: str,
    expected: int | None,
    *,
    unified: bool,
) -> None:
    monkeypatch.setattr(cgroups, "ROOT", str(tmp_path))
    monkeypatch.setattr(cgroups, "is_unified", lambda: unified)
    place = tmp_path / file if unified else tmp_path / "memory" / file
    place.mkdir(parents=True)
    (place / ("memory.max" if unified else "memory.limit_in_bytes")).write_text(text)
    assert cgroups.limit_above(cgroup) == expected
