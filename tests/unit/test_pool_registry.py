"""Pools written down in files: who may do what at the same time, and what a kill leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unikeel.doctor.findings import Level
from unikeel.doctor.storage import pools
from unikeel.errors import AlreadyExists, BadContent, FailedPrecondition, InvalidArgument, NotFound
from unikeel.snapshots.pools.definition import Pool, PoolKind, PoolState
from unikeel.snapshots.pools.lifecycle import settle, unsettled
from unikeel.snapshots.pools.registry import Registry, choose

POOL = Pool("main", "89d120363b88400780d2368fe75a6fc9", PoolKind.FILE, PoolState.READY, 1, size=1 << 30)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(str(tmp_path / "pools"))
    with registry.changing():
        registry.add(POOL)
    return registry


def test_looking_makes_nothing(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path / "pools"))
    assert registry.names() == []
    with pytest.raises(NotFound, match="make one with"):
        registry.find("main")
    with pytest.raises(NotFound):
        registry.use("main")
    assert list(tmp_path.iterdir()) == []


def test_a_pool_is_found_again(registry: Registry) -> None:
    assert registry.find("main") == POOL
    assert registry.names() == ["main"]
    with registry.changing(), pytest.raises(AlreadyExists):
        registry.add(POOL)
    with pytest.raises(NotFound, match="known: main"):
        registry.find("other")
    with pytest.raises(InvalidArgument):
        registry.find("../main")


def test_all_is_private(registry: Registry) -> None:
    for directory, _, files in os.walk(registry.directory):
        assert os.stat(directory).st_mode & 0o077 == 0
        assert all(os.stat(os.path.join(directory, name)).st_mode & 0o077 == 0 for name in files)


def test_a_pool_in_use_is_not_taken_away_and_one_that_goes_is_not_used(registry: Registry) -> None:
    with registry.use("main"), registry.use("main"), pytest.raises(FailedPrecondition, match="in use by a store"):
        registry.alone("main")
    with registry.alone("main"), pytest.raises(FailedPrecondition, match="being repaired or taken away"):
        registry.use("main")
    registry.use("main").close()


def test_a_damaged_definition_names_its_file(registry: Registry) -> None:
    path = Path(registry.place("main")) / "definition.json"
    path.write_text("{")
    with pytest.raises(BadContent, match=f"{path} is not the definition"):
        registry.find("main")
    assert unsettled(registry) == []


def test_a_definition_of_another_name_is_none(registry: Registry) -> None:
    os.rename(registry.place("main"), registry.place("other"))
    with pytest.raises(BadContent, match="definition of another pool"):
        registry.find("other")


@pytest.mark.parametrize("state", [PoolState.CREATING, PoolState.DESTROYING])
def test_what_a_kill_left_is_cleared_up(registry: Registry, state: PoolState) -> None:
    registry.write(POOL._replace(state=state))
    Path(registry.data_file("main")).write_bytes(b"x")
    with pytest.raises(FailedPrecondition, match=r"is being (made|taken away) \(if nobody does, `unikeel reconcile`"):
        registry.find("main")
    forgotten: list[str] = []
    assert unsettled(registry) == ["main"]
    (sentence,) = settle(registry, forgotten.append)
    assert sentence.startswith("took away pool main, which ")
    assert forgotten == ([] if state is PoolState.CREATING else ["pool:main"])
    assert registry.names() == []
    assert settle(registry, forgotten.append) == []


def test_a_directory_without_a_definition_is_cleared_up(registry: Registry) -> None:
    os.unlink(os.path.join(registry.place("main"), "definition.json"))
    assert settle(registry, lambda _store: None) == ["cleared the directory of a pool main that was never made"]
    assert registry.names() == []


def test_the_only_pool_need_not_be_named(registry: Registry) -> None:
    assert choose(registry, "") == "main"
    assert choose(registry, "x") == "x"
    with registry.changing():
        registry.add(POOL._replace(name="second"))
    with pytest.raises(InvalidArgument, match="name one of main, second"):
        choose(registry, "")
    with pytest.raises(NotFound):
        choose(Registry("/nonexistent"), "")


def test_the_doctor_tells_of_pools(registry: Registry, tmp_path: Path) -> None:
    with registry.changing():
        registry.add(POOL._replace(name="second", state=PoolState.CREATING))
    Path(registry.data_file("main")).write_bytes(b"x")
    fine, half = pools(str(tmp_path))
    assert (fine.level, fine.message) == (Level.OK, "main: not active now")
    assert (half.level, half.mend) == (Level.WARNING, "see `unikeel pool status second`")
    assert "is being made" in half.message
    assert pools("/nonexistent") == []
