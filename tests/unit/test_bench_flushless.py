"""Measuring without flushes: what is left out, that nothing stays left out, and that nobody but the benchmark can have it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import unikeel
from unikeel.bench import flushless
from unikeel.records.database import Database

_PACKAGE = Path(unikeel.__file__).parent


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The descriptors that really were flushed."""
    done: list[int] = []
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, done.append)
    return done


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = Database(str(tmp_path / "state.db"))
    found.migrate("test", ["CREATE TABLE things (name TEXT)"])
    yield found
    found.close()


def _add(database: Database) -> None:
    database.execute("INSERT INTO things VALUES ('one')")


def test_nothing_is_flushed_and_afterwards_everything_is(database: Database, flushed: list[int]) -> None:
    with flushless.without(database):
        _add(database)
        os.fsync(0)
        assert flushed == []
        assert database.query("PRAGMA synchronous") == [(0,)]
    assert database.query("PRAGMA synchronous") == [(1,)]
    assert database.query("SELECT count(*) FROM things") == [(1,)]
    _add(database)
    assert len(flushed) == 1


def test_a_failure_brings_the_flushes_back(database: Database, flushed: list[int]) -> None:
    with pytest.raises(ZeroDivisionError), flushless.without(database):
        raise ZeroDivisionError
    _add(database)
    assert len(flushed) == 1
    assert database.query("PRAGMA synchronous") == [(1,)]


def test_flushes_are_counted_and_happen(database: Database, flushed: list[int]) -> None:
    flushes = flushless.Flushes()
    with flushless.counted(flushes):
        _add(database)
        os.fsync(7)
    assert flushes.count == len(flushed) == 2
    _add(database)
    assert flushes.count == 2


@pytest.mark.parametrize("kept", [True, False])
def test_commands_differ_in_the_flushes_alone(kept: bool) -> None:
    interpreter, option, program = flushless.command(flushed=kept)
    before, entry = program.split("from unikeel")
    look = f"{before} os.fsync(-1)"
    done = subprocess.run([interpreter, option, look], capture_output=True, check=False)
    assert (done.returncode == 0) is not kept  # the kernel refuses -1, if it is asked
    assert entry == flushless.command(flushed=not kept)[2].split("from unikeel")[1]


def test_no_other_package_can_have_it() -> None:
    using = [
        path.relative_to(_PACKAGE).as_posix()
        for path in _PACKAGE.rglob("*.py")
        if "flushless" in path.read_text(encoding="utf-8")
    ]
    assert sorted(using) == ["bench/campaign/embedded/durability.py"]
