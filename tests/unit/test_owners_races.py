"""Who looks at records while others finish their work: a living owner never loses its file, and what was finished after it was read is never undone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unikeel.engine import reconcile, starting
from unikeel.engine.containers import Containers, NewContainer
from unikeel.errors import AlreadyExists
from unikeel.model.states import ContainerState
from unikeel.records import owners
from unikeel.records.database import Database
from unikeel.records.intents import Intents
from unikeel.records.owners import Owner
from unikeel.snapshots.contract import How, Kind, Usage
from unikeel.snapshots.file_store import FileStore


def test_a_file_is_swept_under_its_own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner that has made its file and does not have the lock yet would lose it otherwise, and live without one."""
    (tmp_path / f"1-left{owners.SUFFIX}").touch()
    swept = []

    def unlink(path: str) -> None:
        with open(path, encoding="ascii") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        swept.append(path)
        os.remove(path)

    monkeypatch.setattr(os, "unlink", unlink)
    owners.sweep(str(tmp_path))
    monkeypatch.undo()
    assert len(swept) == 1
    assert list(tmp_path.iterdir()) == []


def test_whoever_loses_its_new_file_to_a_sweeper_makes_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = fcntl.flock, 0

    def flock(file: int, how: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:  # the owner's first: the sweeper was quicker
            owners.sweep(str(tmp_path))
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with Owner(str(tmp_path)) as owner:
        assert os.listdir(tmp_path) == [owner.token + owners.SUFFIX]
        assert not owners.owner_is_dead(str(tmp_path), owner.token)


class _Finishing:
    """An owner that is about to end: whoever asks whether it is dead learns so, after it has done its work."""

    token = "mine"

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work

    def is_dead(self, _token: str) -> bool:
        self._work()
        return True


@pytest.fixture
def database(tmp_path: Path) -> Any:
    found = Database(str(tmp_path / "state.db"))
    yield found
    found.close()


def test_an_intent_that_was_carried_out_meanwhile_is_not_abandoned(database: Database) -> None:
    other: Any = SimpleNamespace(token="other")
    number = Intents(database, other).begin("kind", "subject")
    finishing: Any = _Finishing(lambda: Intents(database, other).done(number))
    assert Intents(database, finishing).abandoned() == []


def test_a_snapshot_that_was_finished_meanwhile_is_not_undone(tmp_path: Path, database: Database) -> None:
    def opened(owner: str, is_dead: Callable[[str], bool]) -> FileStore:
        return FileStore(
            str(tmp_path / "images"), database, consumer="test", owner=owner, is_dead=is_dead, empty_size=1 << 20
        )

    other = opened("other", lambda _: False)
    for name, again in (("one", False), ("two", True)):
        record = other._metadata.begin(name, "", Kind.ACTIVE, {})
        os.close(other._files.create(record.id))

        def finished(_token: str, record: Any = record) -> bool:
            if other._metadata.is_unfinished(record.id):
                other._metadata.finish(record, How.EMPTY, 0, Usage(0, 0))
            return True

        store = opened("mine", finished)
        if again:
            with pytest.raises(AlreadyExists):
                store.prepare(name, "")
        else:
            assert store.reconcile().undone == ()
        assert other.stat(name).name == name
        assert other.mounts(name)
        store.close()
    other.close()


@pytest.mark.parametrize("finished", [True, False])
def test_a_start_that_was_finished_meanwhile_is_not_undone(
    database: Database, finished: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that starts a container ends, well, after its record was read and before its owner is asked for."""
    records = Containers(database, "other", 4)
    new = records.add(NewContainer("web", "image", "sha256:1", "sha256:2", {}, auto_remove=False))
    records.move(new, ContainerState.CREATED)
    read = records.move(new, ContainerState.STARTING, owner="other")

    def work() -> None:
        if finished and records.get(read.id).state is ContainerState.STARTING:
            records.move(read, ContainerState.RUNNING, owner="")

    undone: list[str] = []
    monkeypatch.setattr(starting, "undo_start", lambda _services, container, _why: undone.append(container.name))
    services: Any = SimpleNamespace(containers=records, owner=_Finishing(work), notice=lambda _: None)
    reconcile._one(services, read, frozenset())
    assert undone == ([] if finished else ["web"])
