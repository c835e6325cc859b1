"""Clones on XFS, which are not flushed before they are answered: what the power's end takes of them is made again, and nothing that was flushed into them is lost."""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import os
import signal
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import unikeel.records.failpoint
from file_store_process import EMPTY, OPS, FileStoreProcess
from snapshot_ops import Op, run
from unikeel.errors import BadContent
from unikeel.records.database import Database
from unikeel.snapshots.contract import How
from unikeel.snapshots.file_store import FileStore
from unikeel.testing.snapshot_suite import names
from unikeel.values import NamedTuple

_MIB = 1 << 20
#: fs/xfs/libxfs/xfs_fs.h: the file system ends at once, and what its log had not written is not written.
_GOING_DOWN = 0x8004587D
_NO_LOG_FLUSH = 2


class _Disk:
    """A file with XFS in it, mounted; its power can be cut."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._cuts = 0
        self._image = directory / "image"
        self.root = directory / "mounted"
        self.root.mkdir()
        with self._image.open("wb") as file:
            file.truncate(320 * _MIB)
        subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", self._image], check=True)
        self._mount()

    def _mount(self) -> None:
        subprocess.run(["mount", "-t", "xfs", "-o", "loop,nouuid", self._image, self.root], check=True)

    def cut(self) -> None:
        """What was not written is lost. What was goes on in a copy: another mount namespace may hold the file system a little longer."""
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.ioctl(fd, _GOING_DOWN, struct.pack("I", _NO_LOG_FLUSH))
        os.close(fd)
        self.close()
        self._cuts += 1
        copy = self._directory / f"image{self._cuts}"
        subprocess.run(["cp", "--sparse=always", self._image, copy], check=True)
        self._image.unlink()
        self._image = copy
        self._mount()

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", self.root], check=True)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Disk]:
    disk = _Disk(tmp_path_factory.mktemp("clones"))
    yield disk
    disk.close()


class _Place(NamedTuple):
    """Where a store's images and records are."""

    images: Path
    records: Path


@pytest.fixture
def place(disk: _Disk) -> _Place:
    there = Path(tempfile.mkdtemp(dir=disk.root))
    return _Place(there / "images", there / "records.db")


@pytest.fixture(params=["beside", "elsewhere"])
def places(request: pytest.FixtureRequest, place: _Place, tmp_path: Path) -> _Place:
    """With records on the same file system, and on another, which does not lose its power."""
    return place if request.param == "beside" else place._replace(records=tmp_path / "records.db")


class _Store(FileStore):
    """A store in a boot of its own, with its record store."""

    def __init__(self, place: _Place, boot: str) -> None:
        self.records = Database(str(place.records))
        super().__init__(str(place.images), self.records, consumer="test", owner="test", empty_size=EMPTY, boot=boot)

    def number(self, name: str) -> int:
        return self._metadata.find(name).id

    def close(self) -> None:
        super().close()
        self.records.close()


def _base(store: _Store, name: str = "base") -> None:
    def fill(fd: int) -> None:
        os.ftruncate(fd, 8 * _MIB)
        for at in range(0, 8, 2):
            os.pwrite(fd, name.encode() * 1000, at * _MIB)

    store.import_committed(name, {}, fill)


def _digest(store: FileStore, name: str) -> str:
    return hashlib.sha256(Path(store.disk(name).path).read_bytes()).hexdigest()


def _flushed(store: FileStore, name: str, text: bytes) -> None:
    """Write into a snapshot as a guest does that flushes."""
    fd = os.open(store.disk(name).path, os.O_RDWR)
    os.pwrite(fd, text, _MIB)
    os.fdatasync(fd)
    os.close(fd)


def _read(store: FileStore, name: str, length: int) -> bytes:
    with open(store.disk(name).path, "rb") as file:
        file.seek(_MIB)
        return file.read(length)


@pytest.mark.parametrize("by", ["reconcile", "mounts", "commit"])
def test_what_the_power_takes_is_made_again(disk: _Disk, places: _Place, by: str) -> None:
    """The file system's log is written now and then all by itself: so it is tried until something is lost."""
    for number in range(20):
        store = _Store(places, f"boot {number}")
        if "base" not in names(store):
            _base(store)
            store.records.reserve_log()
        taken = f"taken {number}"
        store.prepare(f"written {number}", "base")
        _flushed(store, f"written {number}", b"by the guest")
        store.prepare(taken, "base")
        assert store.disk(taken).how is How.REFLINK
        path = store.disk(taken).path
        disk.cut()
        store.close()  # only now: the record store's last process flushes the log of the file system
        lost = not os.path.exists(path)
        store = _Store(places, f"boot {number + 1}")
        if lost and by == "commit":
            store.commit("committed", taken)
            assert _digest(store, "committed") == _digest(store, "base")
        elif lost and by == "mounts":
            assert [mount.source for mount in store.mounts(taken)] == [path]
        assert store.reconcile() == ((), 0, ())
        if not (lost and by == "commit"):
            assert _digest(store, taken) == _digest(store, "base")
        for earlier in range(number + 1):
            assert _read(store, f"written {earlier}", 12) == b"by the guest"
        store.close()
        if lost:
            break
    else:
        pytest.fail("the cuts took nothing")
    disk.cut()  # what was made again is on the disk
    store = _Store(places, f"boot {number + 1}")
    assert store.reconcile() == ((), 0, ())
    assert os.path.exists(path)
    store.close()


def test_garbage_of_the_same_name_never_comes_back(disk: _Disk, places: _Place) -> None:
    """A file whose record went with a transaction that came to nothing, on the disk; its id is used again."""
    store = _Store(places, "boot 1")
    _base(store)
    (places.images / "2.img").write_bytes(b"another parent's")
    os.sync()
    store.prepare("key", "base")
    assert store.number("key") == 2
    disk.cut()
    store.close()
    store = _Store(places, "boot 2")
    assert store.reconcile() == ((), 0, ())
    assert _digest(store, "key") == _digest(store, "base")
    store.close()


def test_what_somebody_else_took_is_faulty(place: _Place) -> None:
    """In the same boot; in a later one, when it had been seen after its own; and where the parent is gone, too."""
    store = _Store(place, "boot 1")
    _base(store)
    _base(store, "lost")
    for key, parent in (("now", "base"), ("seen", "base"), ("orphan", "lost")):
        store.prepare(key, parent)
    (place.images / f"{store.number('now')}.img").unlink()
    assert store.reconcile().faulty == ("now",)
    with pytest.raises(BadContent, match="missing"):
        store.mounts("now")
    store.remove("now")
    (place.images / f"{store.number('orphan')}.img").unlink()
    (place.images / f"{store.number('lost')}.img").unlink()
    store.close()
    store = _Store(place, "boot 2")
    assert sorted(store.reconcile().faulty) == ["lost", "orphan"]
    (place.images / f"{store.number('seen')}.img").unlink()
    store.close()
    store = _Store(place, "boot 3")
    assert sorted(store.reconcile().faulty) == ["lost", "orphan", "seen"]
    store.close()


def _points(call: Callable[[], object], trace: Path) -> list[str]:
    _, status = os.waitpid(_child(call, UNIKEEL_FAILPOINT_TRACE=str(trace)), 0)
    assert status == 0
    return trace.read_text().split()


def _child(call: Callable[[], object], **environment: str) -> int:
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.environ.update(environment)
            importlib.reload(unikeel.records.failpoint)
            call()
            status = 0
        finally:
            os._exit(status)
    return pid


def _kill_at(call: Callable[[], object], point: str) -> None:
    pid = _child(call, UNIKEEL_FAILPOINT=point)
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), f"{point} was not reached"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_killed_at_every_step(place: _Place, tmp_path: Path) -> None:
    """A Prepare is done or nothing of it is there; a clone without its name goes with its process."""
    store = _Store(place, "boot 1")
    _base(store)
    store.close()

    def prepare() -> None:
        _Store(place, "boot 1").prepare("new", "base")

    points = _points(prepare, tmp_path / "trace")
    assert points == [f"snapshots.prepare.{step}" for step in ("cloned", "named", "recorded", "done")]
    for point in points:
        store = _Store(place, "boot 1")
        if "new" in names(store):
            store.remove("new")
        store.cleanup()
        store.close()
        _kill_at(prepare, point)
        store = _Store(place, "boot 1")
        assert store.reconcile(lambda _token: True) == ((), 1 if point.endswith("named") else 0, ())
        there = point.split(".")[-1] in ("recorded", "done")
        assert names(store) == ({"base", "new"} if there else {"base"})
        assert len(list(place.images.glob("*.img"))) == len(names(store))
        if there:
            assert _digest(store, "new") == _digest(store, "base")
        store.close()


def test_killed_while_making_again(place: _Place) -> None:
    store = _Store(place, "boot 1")
    _base(store)
    store.prepare("key", "base")
    os.unlink(store.disk("key").path)
    store.close()
    for point in ("snapshots.again.made", "snapshots.again.synced"):
        _kill_at(lambda: _Store(place, "boot 2").reconcile(), point)
    store = _Store(place, "boot 2")
    assert store.reconcile() == ((), 0, ())
    assert _digest(store, "key") == _digest(store, "base")
    store.close()


def test_a_name_within_a_transaction_is_no_garbage(place: _Place) -> None:
    """Others look for garbage while snapshots get their names."""
    first = _Store(place, "boot 1")
    _base(first)
    ended = threading.Event()
    found = []

    def look() -> None:
        store = _Store(place, "boot 1")
        while not ended.is_set():
            found.append(store.reconcile())
        store.close()

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for number in range(40):
            first.prepare(f"key {number}", "base")
    finally:
        ended.set()
        looker.join()
    assert set(found) == {((), 0, ())}
    assert first.reconcile() == ((), 0, ())
    first.close()


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(OPS, min_size=8, max_size=25))
def test_any_sequence_with_any_kill(disk: _Disk, ops: list[Op]) -> None:
    directory = Path(tempfile.mkdtemp(dir=disk.root))
    run(lambda: FileStoreProcess(directory), ops, EMPTY)
