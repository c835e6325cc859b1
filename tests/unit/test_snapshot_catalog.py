"""All snapshots of a record store, and the commands that show them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from unikeel.cli.main import entry
from unikeel.records.database import Database
from unikeel.snapshots.catalog import Catalog
from unikeel.snapshots.file_store import FileStore

Captured = pytest.CaptureFixture[str]


def store(root: Path, database: Database, consumer: str, name: str = "file") -> FileStore:
    directory = root / ("snapshots" if name == "file" else "other")
    return FileStore(str(directory), database, consumer=consumer, owner="x", empty_size=1 << 24, store=name)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state root with snapshots of two consumers, a store's own, and another store."""
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setenv("UNIKEEL_ROOT", str(root))
    database = Database(str(root / "state.db"))
    engine = store(root, database, "engine")
    engine.import_committed("base", {"a": "b"}, lambda fd: os.write(fd, bytes(range(256)) * 64))
    engine.prepare("key", "base")
    engine.view("look", "base")
    other = store(root, database, "socket:main")
    other.import_committed("base", {}, lambda fd: os.write(fd, b"x" * 4096))
    own = store(root, database, "@spare")
    own.import_committed("hidden", {}, lambda fd: os.write(fd, b"x"))
    elsewhere = store(root, database, "engine", "pool:x")
    elsewhere.import_committed("far", {}, lambda fd: os.write(fd, b"x"))
    elsewhere.import_committed("gone", {}, lambda fd: os.write(fd, b"x"))
    elsewhere.remove("gone")
    for opened in (engine, other, own, elsewhere):
        opened.close()
    yield root
    database.close()


def test_the_catalog(root: Path) -> None:
    database = Database(str(root / "state.db"))
    catalog = Catalog(database)
    names = [(found.store, found.consumer, found.info.name) for found in catalog.entries()]
    assert names == [
        ("file", "engine", "base"),
        ("file", "engine", "key"),
        ("file", "engine", "look"),
        ("file", "socket:main", "base"),
        ("pool:x", "engine", "far"),
    ]
    assert [found.info.name for found in catalog.entries(own=True, consumer="@spare")] == ["hidden"]
    assert [found.consumer for found in catalog.entries(name="base")] == ["engine", "socket:main"]
    counts = catalog.counts("file")
    assert (counts.committed, counts.active, counts.views, counts.spares) == (2, 1, 1, 1)
    assert counts.consumers == ("engine", "socket:main")
    assert (catalog.counts("pool:x").removed, len(catalog.trash("pool:x"))) == (1, 1)
    assert catalog.mark("file") != catalog.mark("pool:x") != ""
    catalog.forget("file")
    assert [found.info.name for found in catalog.entries(own=True)] == ["far"]
    assert (catalog.mark("file"), catalog.counts("file").committed) == ("", 0)
    database.close()


def test_many_snapshots_are_read_in_pages(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "state.db"))
    catalog = Catalog(database)
    with database.write() as cursor:
        cursor.executemany(
            "INSERT INTO snapshots (store, consumer, name, kind, state, owner, created_ns, updated_ns, labels, how, virtual_size, used_size, used_inodes)"
            " VALUES ('file', 'engine', ?, 'committed', 'ready', '', 1, 1, '{}', 'filled', 1, 1, 1)",
            [(f"n{number}",) for number in range(2500)],
        )
    assert [found.info.name for found in catalog.entries()] == [f"n{number}" for number in range(2500)]
    database.close()


@pytest.mark.usefixtures("root")
def test_ls(capsys: Captured) -> None:
    assert entry(["snapshot", "ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "KIND", "PARENT", "STORE", "CONSUMER", "HOW", "SIZE", "CREATED"]
    assert [line.split()[:2] for line in lines[1:3]] == [["base", "committed"], ["key", "active"]]
    assert entry(["snapshot", "ls", "--consumer", "engine", "--store", "pool:x", "-q"]) == 0
    assert capsys.readouterr().out == "far\n"
    assert entry(["snapshot", "ls", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)[0]
    assert (first["name"], first["labels"], first["size"]) == ("base", {"a": "b"}, 16384)


@pytest.mark.usefixtures("root")
def test_inspect(capsys: Captured) -> None:
    assert entry(["snapshot", "inspect", "base", "key"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(item["name"], item["consumer"]) for item in found] == [
        ("base", "engine"),
        ("base", "socket:main"),
        ("key", "engine"),
    ]
    assert found[2]["mounts"][0]["options"] == ["loop", "rw"]
    assert (found[0]["mounts"], found[0]["disk"]["read_only"], found[0]["problem"]) == ([], True, "")
    assert entry(["snapshot", "inspect", "far"]) == 0
    assert "there is no pool 'x'" in json.loads(capsys.readouterr().out)[0]["problem"]
    assert entry(["snapshot", "inspect", "nothing"]) == 66
    assert capsys.readouterr().err == "unikeel: snapshot 'nothing' does not exist (`unikeel snapshot ls` shows all)\n"


@pytest.mark.usefixtures("root")
def test_usage(capsys: Captured) -> None:
    assert entry(["snapshot", "usage", "base", "--consumer", "engine"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "total 16.4 kB"
    assert entry(["snapshot", "usage", "--store", "file", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["name"] for item in found["snapshots"]] == ["base", "key", "look", "base"]
    assert found["size"] == sum(item["size"] for item in found["snapshots"])


def test_without_a_state_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setenv("UNIKEEL_ROOT", str(tmp_path / "missing"))
    assert entry(["snapshot", "ls"]) == 66
    assert "there is no state root" in capsys.readouterr().err
    assert entry(["pool", "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert list(tmp_path.iterdir()) == []
