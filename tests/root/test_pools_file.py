"""Pools of the kind ``file``: XFS in a file, made, used, grown, killed at every step, taken away."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import unikeel.records.failpoint
from unikeel.cli.main import entry
from unikeel.errors import BadContent, FailedPrecondition, NotFound, UnikeelError
from unikeel.kernel import xfs
from unikeel.records.database import Database
from unikeel.records.owners import Owner
from unikeel.snapshots.catalog import Catalog
from unikeel.snapshots.contract import How
from unikeel.snapshots.pools import lifecycle
from unikeel.snapshots.pools.definition import Pool, PoolKind, new_uuid
from unikeel.snapshots.pools.file_pool import FilePool
from unikeel.snapshots.pools.opening import open_pool
from unikeel.snapshots.pools.planning import Request, plan_creation
from unikeel.snapshots.pools.registry import Registry
from unikeel.snapshots.stores import StorePlace, open_store

MIB = 1 << 20
SIZE = 320 * MIB
Call = Callable[[Path], object]
Captured = pytest.CaptureFixture[str]


def registry(root: Path) -> Registry:
    return Registry(str(root / "pools"))


def planned(name: str = "fast") -> Pool:
    """A pool that takes little room until it is used."""
    return plan_creation(Request(name, PoolKind.FILE, size=SIZE, sparse=True), new_uuid(), 1).pool


def create(root: Path) -> None:
    lifecycle.create(registry(root), planned())


def grow(root: Path) -> None:
    found = registry(root)
    lifecycle.grow(found, found.find("fast")._replace(size=2 * SIZE))


def destroy(root: Path) -> None:
    lifecycle.destroy(registry(root), "fast", lambda _pool: None, lambda _store: None)


def mounted(root: Path) -> list[str]:
    """What is mounted below a directory."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        points = [line.split(" ")[4] for line in file]
    return [point for point in points if point.startswith(f"{root}/")]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state root; nothing is left mounted there."""
    root = tmp_path / "root"
    for directory in (root, root / "owners", root / "snapshots"):
        directory.mkdir()
    monkeypatch.setenv("UNIKEEL_ROOT", str(root))
    yield root
    for name in registry(root).names():
        destroy(root) if name == "fast" else pytest.fail(f"pool {name} is left")
    assert mounted(root) == []


def test_snapshots_share_blocks_in_it(root: Path) -> None:
    create(root)
    owner, database = Owner(str(root / "owners")), Database(str(root / "state.db"))
    place = StorePlace(
        str(root / "snapshots"), database, owner.token, owner.is_dead, 1 << 24, pools=str(root / "pools")
    )
    store = open_store("fast", place, "engine")
    store.import_committed("base", {}, lambda fd: os.pwrite(fd, os.urandom(4 * MIB), 0))
    store.prepare("key", "base")
    assert store.disk("key").how is How.REFLINK
    assert store.disk("key").path.startswith(str(root / "pools" / "fast" / "mounted"))
    assert [found.store for found in Catalog(database).entries()] == ["pool:fast"] * 2
    with pytest.raises(FailedPrecondition, match="in use by a store"):
        destroy(root)
    with pytest.raises(NotFound, match="there is no pool 'slow'"):
        open_store("slow", place, "engine")
    grow(root)
    store.close()
    with open_pool(registry(root), "fast") as pool:
        assert pool.watch.look().data.total > SIZE
    lifecycle.deactivate(registry(root), "fast")
    assert mounted(root) == []
    store = open_store("fast", place, "engine")
    assert [info.name for info in store.list()] == ["base", "key"]
    store.close()
    database.close()
    owner.close()


def test_the_commands(root: Path, capsys: Captured) -> None:
    assert entry(["pool", "create", "fast", "--type", "file", "--size", "320MiB", "--sparse"]) == 0
    assert "its files are sparse" in capsys.readouterr().err
    assert entry(["pool", "create", "fast", "--type", "file", "--size", "320MiB"]) == 73
    assert entry(["pool", "status", "nothing"]) == 66
    assert entry(["pool", "grow", "fast", "--size", "1MiB"]) == 2
    capsys.readouterr()
    assert entry(["pool", "status"]) == 0
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()[1:]] == [["fast", "file", "active"]]
    assert entry(["pool", "grow", "fast", "--size", "400MiB"]) == 0
    assert capsys.readouterr().out == "fast: data from 335544320 to 419430400 bytes\n"
    assert entry(["pool", "check"]) == 0
    assert capsys.readouterr().out == "the pool and its records agree\n"
    assert entry(["__complete", "--", "pool", "grow", "f"]) == 0
    assert capsys.readouterr().out == "fast\n"
    held = open(registry(root).mounted("fast") + "/held", "wb")  # noqa: SIM115 - closed below
    assert entry(["pool", "destroy", "fast"]) == 75
    assert "is in use" in capsys.readouterr().err
    held.close()
    assert entry(["pool", "destroy", "fast"]) == 0
    assert registry(root).names() == []


def test_a_pool_that_the_records_lost_is_emptied_only_by_a_repair(root: Path, capsys: Captured) -> None:
    create(root)
    with open_pool(registry(root), "fast") as pool:
        directory = Path(pool.directory)
    (directory / "7.img").write_bytes(b"x")
    assert entry(["pool", "check"]) == 1
    assert "repair 1: delete 1 snapshot from the pool for good (ids 7" in capsys.readouterr().out
    assert entry(["pool", "check", "--repair"]) == 2
    assert "asked about on a terminal" in capsys.readouterr().err
    assert (directory / "7.img").exists()
    assert entry(["pool", "check", "--repair", "--yes"]) == 0
    assert capsys.readouterr().out.endswith("fast: done\n")
    assert sorted(path.name for path in directory.iterdir()) == ["store-id"]
    assert entry(["pool", "check"]) == 0


def test_a_damaged_record_store_changes_nothing(root: Path, capsys: Captured) -> None:
    create(root)
    with open_pool(registry(root), "fast") as pool:
        image = Path(pool.directory) / "7.img"
    image.write_bytes(b"x")
    (root / "state.db").write_bytes(b"not a database" * 1000)
    for words in (["pool", "check"], ["pool", "check", "--repair", "--yes"]):
        assert entry(words) == 1
        said = capsys.readouterr().out
        assert "is damaged" in said
        assert "the pool itself is intact and holds 1 snapshot (ids 7)" in said
    assert entry(["pool", "status"]) == 0
    assert "is damaged" in capsys.readouterr().err
    assert image.exists()


def test_another_file_in_its_place_is_not_touched(root: Path) -> None:
    create(root)
    lifecycle.deactivate(registry(root), "fast")
    data = registry(root).data_file("fast")
    os.rename(data, data + ".own")
    with pytest.raises(BadContent, match="is missing"):
        FilePool(registry(root), registry(root).find("fast")._replace(size=0)).activate()
    subprocess.run(["mkfs.xfs", "-q", "-d", f"file,name={data},size={SIZE}"], check=True)
    with pytest.raises(BadContent, match=r"holds the file system [0-9a-f]{32} instead of pool 'fast'"):
        open_pool(registry(root), "fast")
    os.rename(data + ".own", data)
    open_pool(registry(root), "fast").close()


def _child(root: Path, call: Call, **environment: str) -> int:
    """Run a call in a process of its own, with fail points set; its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.environ.update(environment)
        importlib.reload(unikeel.records.failpoint)
        for module in (lifecycle, importlib.import_module("unikeel.snapshots.pools.file_pool")):
            vars(module)["failpoint"] = unikeel.records.failpoint.failpoint
        call(root)
        status = 0
    except Exception:  # noqa: BLE001 - a child must not return into the test
        traceback.print_exc()
    finally:
        os._exit(status)


def _points(root: Path, call: Call) -> list[str]:
    trace = root / "trace"
    _, status = os.waitpid(_child(root, call, UNIKEEL_FAILPOINT_TRACE=str(trace)), 0)
    assert status == 0
    points = trace.read_text().split()
    trace.unlink()
    return list(dict.fromkeys(points))


def _kill(root: Path, call: Call, point: str) -> None:
    pid = _child(root, call, UNIKEEL_FAILPOINT=point)
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), f"{point} was not reached"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_killed_at_every_step(root: Path) -> None:
    """After it, the pool is as before or as wanted, or was never there; and what comes next works."""
    found = registry(root)
    points = _points(root, create)
    assert len(points) >= 6
    for point in points:
        if found.names():
            destroy(root)
        _kill(root, create, point)
        lifecycle.settle(found, lambda _store: None)
        assert found.names() == (["fast"] if point == "pools.create.done" else [])
        if point != "pools.create.done":
            assert mounted(root) == []
    for point in _points(root, grow):
        destroy(root)
        create(root)
        _kill(root, grow, point)
        assert lifecycle.settle(found, lambda _store: None) == []
        with open_pool(found, "fast") as pool:
            size = found.find("fast").size
            assert size == 2 * SIZE
            assert os.stat(found.data_file("fast")).st_size == size
            with open(found.data_file("fast"), "rb") as file:
                assert xfs.uuid_of(file.fileno()) == pool.pool.uuid
            assert pool.watch.look().data.total > SIZE
    for point in _points(root, destroy):
        if not found.names():
            create(root)
        _kill(root, destroy, point)
        lifecycle.settle(found, lambda _store: None)
        assert found.names() == []
        assert mounted(root) == []


def test_what_fails_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unikeel.snapshots.pools.file_pool.find_program", lambda _name: "")
    with pytest.raises(UnikeelError, match=r"mkfs.xfs is not installed \(install xfsprogs\)"):
        create(root)
    assert registry(root).names() == []
