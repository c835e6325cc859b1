"""The store of thin devices is killed at every step of every call: the next process finds a pool and records that agree, and loses nothing."""

from __future__ import annotations

import hashlib
import importlib
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import unikeel.records.failpoint
from thin_world import Pool, Process, made_pool, remove_all
from unikeel.errors import NotFound
from unikeel.snapshots.contract import Kind
from unikeel.snapshots.thin.devices import ThinDevices
from unikeel.snapshots.thin.store import ThinStore
from unikeel.testing.snapshot_suite import names, read_content, write_content

Call = Callable[[ThinStore], object]

#: In the short form only each eighth point of a call is tried, and the last.
_LONG = os.environ.get("UNIKEEL_LONG") == "1"


def _fill_base(fd: int) -> None:
    os.ftruncate(fd, 1 << 20)
    os.pwrite(fd, os.urandom(1 << 18), 0)


class _World:
    """A pool and a record store with a committed base in it."""

    def __init__(self, root: Path, pool: Pool) -> None:
        self.root, self.pool = root, pool
        process = self.process()
        process.store.import_committed("base", {}, _fill_base)
        process.store.view("empty", "")
        process.store.remove("empty")
        process.close()
        self.digest = self.base_digest()

    def process(self) -> Process:
        return Process(self.root, self.pool.ref)

    def base_digest(self) -> str:
        process = self.process()
        with open(process.store.disk("base").path, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        process.close()
        return digest

    def check(self) -> None:
        """What must hold after reconciling, whatever happened before."""
        process = self.process()
        assert process.store.reconcile().faulty == ()
        again = process.store.reconcile()
        assert (again.undone, again.files, again.faulty) == ((), 0, ())
        database = process.database
        own = {int(str(row[0])) for row in database.query("SELECT id FROM snapshots WHERE how != 'parent'")}
        assert database.query("SELECT id FROM snapshots WHERE state != 'ready'") == []
        assert database.query("SELECT id FROM snapshot_trash") == []
        devices = ThinDevices(self.pool.ref, str(self.root / "lock"))
        assert devices.numbers() == own | {0}
        devices.close()
        assert set(self.pool.devices()) <= own
        for info in process.store.list():
            disk = process.store.disk(info.name)
            assert disk.read_only == (info.kind is not Kind.ACTIVE)
            if info.kind is Kind.ACTIVE:
                (mount,) = process.store.mounts(info.name)
                write_content(mount, read_content(mount.source))
        process.close()
        assert self.base_digest() == self.digest


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_World]:
    directory = tmp_path_factory.mktemp("kills")
    with made_pool(directory / "pool") as pool:
        yield _World(directory, pool)


def _child(world: _World, call: Call, **environment: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.environ.update(environment)
        importlib.reload(unikeel.records.failpoint)
        process = world.process()
        call(process.store)
        process.close()
        status = 0
    except Exception:  # noqa: BLE001 (a child must not return into the test)
        traceback.print_exc()
    finally:
        os._exit(status)


def _points(world: _World, call: Call) -> list[str]:
    trace = world.root / "trace"
    trace.write_text("")
    _, status = os.waitpid(_child(world, call, UNIKEEL_FAILPOINT_TRACE=str(trace)), 0)
    assert status == 0
    return list(dict.fromkeys(trace.read_text().split()))


@contextmanager
def _stopped_at(world: _World, call: Call, point: str) -> Iterator[int]:
    pid = _child(world, call, UNIKEEL_FAILPOINT=point)
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), f"{point} was not reached"
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


class _Case:
    """A call that is killed: what there is before, and what must be there after."""

    def __init__(self, title: str, call: Call, before: Call = lambda _store: None, *, holds: bool = False) -> None:
        self.title, self.call, self.before, self.holds = title, call, before, holds


def _active(store: ThinStore) -> None:
    (mount,) = store.prepare("active", "base")
    write_content(mount, "by the guest")


def _hidden(store: ThinStore) -> None:
    """The base's device rests, as after a reboot."""
    assert store._devices.hide(store._metadata.find("base").id)


def _removed(store: ThinStore) -> None:
    _active(store)
    store.remove("active")


def _spare(store: ThinStore) -> None:
    store.make_spares("base", 1)


_CASES = [
    _Case("prepare", lambda store: store.prepare("new", "base", {"l": "1"})),
    _Case("prepare-empty", lambda store: store.prepare("new", "")),
    _Case("prepare-of-a-spare", lambda store: store.prepare("new", "base"), _spare),
    _Case("spare", _spare),
    _Case("view", lambda store: store.view("new", "base"), _hidden),
    _Case("import", lambda store: store.import_committed("new", {}, lambda fd: os.ftruncate(fd, 1 << 20))),
    _Case("commit", lambda store: store.commit("new", "active"), _active),
    _Case("commit-in-use", lambda store: store.commit("new", "active"), _active, holds=True),
    _Case("remove", lambda store: store.remove("active"), _active),
    _Case("cleanup", lambda store: store.cleanup(), _removed),
]


def _tried(points: list[str]) -> list[str]:
    return points if _LONG else list(dict.fromkeys([*points[1:-1:8], points[-1]]))


@pytest.mark.parametrize("case", _CASES, ids=lambda case: case.title)
def test_killed_at_every_step(world: _World, case: _Case) -> None:
    with _prepared(world, case):
        points = _points(world, case.call)
    for point in _tried(points):
        with _prepared(world, case):
            with _stopped_at(world, case.call, point):
                pass
            _after(world, case, point)


@contextmanager
def _prepared(world: _World, case: _Case) -> Iterator[None]:
    """What a case needs; all but the base is gone again afterwards."""
    process = world.process()
    case.before(process.store)
    held = os.open(process.store.disk("active").path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC) if case.holds else -1
    process.close()
    try:
        yield
    finally:
        if held >= 0:
            os.close(held)
    process = world.process()
    for info in process.store.list(["kind!=committed", "name==new"]):
        with suppress(NotFound):
            process.store.remove(info.name)
    process.store._spares.give_back()
    process.store.cleanup()
    assert names(process.store) == {"base"}
    process.close()


def _after(world: _World, case: _Case, point: str) -> None:
    if not case.holds:
        world.check()
    process = world.process()
    process.store.reconcile()
    present = names(process.store)
    if case.title.startswith("commit"):
        assert len(present & {"active", "new"}) == 1
        (name,) = present & {"active", "new"}
        assert read_content(process.store.disk(name).path) == "by the guest"
        assert process.store.disk(name).read_only == (name == "new")
    if case.title in ("prepare", "prepare-empty", "prepare-of-a-spare", "view", "import"):
        if point.endswith("prepare.done") or "new" not in present:
            assert ("new" in present) == point.endswith(".done")
        if "new" not in present:
            case.call(process.store)
            assert "new" in names(process.store)
    if case.title == "remove":
        assert ("active" in present) != point.endswith(".done")
    process.close()


def test_all_is_gone_at_the_end(world: _World) -> None:
    process = world.process()
    remove_all(process.store)
    process.store.cleanup()
    process.close()
    assert set(world.pool.devices()) <= {2}  # the empty file system
