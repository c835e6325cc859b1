"""The file store on file systems that share blocks: XFS and btrfs in loop files."""

from __future__ import annotations

import importlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import unikeel.records.failpoint
from unikeel.kernel.reflink import shared_bytes
from unikeel.records.database import Database
from unikeel.snapshots.contract import RAW_OR_QCOW2, How, SnapshotStore
from unikeel.snapshots.file_store import FileStore
from unikeel.snapshots.spares import SpareLimits
from unikeel.testing.mounted_snapshot_suite import MountedSnapshotSuite
from unikeel.testing.snapshot_suite import PersistentSnapshotSuite

MAKE = {"xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"), "btrfs": ("mkfs.btrfs", "-q")}


@pytest.fixture(scope="module", params=MAKE)
def sharing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Such a file system, mounted."""
    kind = request.param
    directory = tmp_path_factory.mktemp(kind)
    image, target = directory / "image", directory / "mounted"
    with image.open("wb") as file:
        file.truncate(1 << 30)
    target.mkdir()
    subprocess.run([*MAKE[kind], image], check=True)
    subprocess.run(["mount", "-t", kind, "-o", "loop", image, target], check=True)
    yield target
    # Loop devices of images on it go with the last mount namespace that was copied while a test had them mounted, perhaps somebody else's.
    end = time.monotonic() + 60
    while subprocess.run(["umount", target], check=False).returncode:
        if time.monotonic() > end:
            subprocess.run(["umount", "--lazy", target], check=True)
            pytest.fail("something was left open on the file system")
        time.sleep(0.2)


@pytest.fixture
def tmp_path(sharing: Path) -> Path:
    """A directory for each test, on such a file system instead of where pytest has it."""
    return Path(tempfile.mkdtemp(dir=sharing))


class _Store(FileStore):
    """A file store that closes its record store, too, so that the file system can be unmounted."""

    def __init__(
        self, directory: str, consumer: str, spares: SpareLimits | None = None, scarce: Callable[[], bool] | None = None
    ) -> None:
        self._records = Database(os.path.join(directory, "records.db"))
        images = os.path.join(directory, "snapshots")
        super().__init__(
            images,
            self._records,
            consumer=consumer,
            owner="suite",
            is_dead=lambda _token: True,
            empty_size=1 << 24,
            spares=spares,
            scarce=scarce,
        )

    def spares(self) -> dict[int, int]:
        """The spares that there are."""
        return self._metadata.spares().all()

    def numbers(self) -> set[int]:
        """The files that there are."""
        return self._files.numbers()

    def close(self) -> None:
        super().close()
        self._records.close()


class TestSharing(PersistentSnapshotSuite):
    def open_store(self, directory: str, consumer: str) -> SnapshotStore:
        return _Store(directory, consumer)


class TestMountedSharing(MountedSnapshotSuite):
    def open_store(self, directory: str, consumer: str) -> SnapshotStore:
        return _Store(directory, consumer)


def test_snapshots_share_blocks_until_they_are_written(tmp_path: Path) -> None:
    size = 8 << 20

    def fill(fd: int) -> None:
        os.ftruncate(fd, 4 * size)
        os.pwrite(fd, os.urandom(size), size)

    store = _Store(str(tmp_path), "test")
    store.import_committed("base", {}, fill)
    store.prepare("key", "base", formats=RAW_OR_QCOW2)
    disk = store.disk("key")
    assert (disk.how, disk.format, disk.size) == (How.REFLINK, "raw", 4 * size)
    assert store.usage("key").size < size // 8
    fd = os.open(disk.path, os.O_RDWR)
    assert shared_bytes(fd) == size
    os.pwrite(fd, os.urandom(1 << 20), size)
    os.fsync(fd)
    assert shared_bytes(fd) == size - (1 << 20)
    os.close(fd)
    assert 1 << 20 <= store.usage("key").size < size // 2
    before = Path(store.disk("base").path).read_bytes()
    store.commit("child", "key")
    assert 1 << 20 <= store.usage("child").size < size // 2
    assert Path(store.disk("base").path).read_bytes() == before
    store.close()


def _until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def _with_base(directory: Path, spares: SpareLimits | None, scarce: Callable[[], bool] | None = None) -> _Store:
    store = _Store(str(directory), "test", spares, scarce)
    store.import_committed("base", {}, lambda fd: os.pwrite(fd, bytes(range(256)) * 4096, 0))
    return store


def test_a_spare_becomes_what_is_prepared(tmp_path: Path) -> None:
    """Nobody sees it before; it has its parent's content, and nothing is made when it is wanted."""
    store = _with_base(tmp_path, SpareLimits(2, 2))
    assert store.make_spares("base", 1) == 1
    [(number, origin)] = store.spares().items()
    there = store.numbers()
    assert there == {number, origin}
    assert [info.name for info in store.list()] == ["base"]
    assert store.prepare("key", "base") == store.mounts("key")
    assert store.numbers() == there
    disk = store.disk("key")
    assert (disk.path, disk.how) == (str(tmp_path / "snapshots" / f"{number}.img"), How.REFLINK)
    assert Path(disk.path).read_bytes() == Path(store.disk("base").path).read_bytes()
    assert store.usage("key").size == 0
    with open(disk.path, "r+b") as file:
        file.write(b"changed")
    store.commit("child", "key")
    assert Path(store.disk("base").path).read_bytes()[:7] != b"changed"
    store.close()


def test_spares_follow_demand(tmp_path: Path) -> None:
    """They are made after a Prepare, no more than may be, not for what is unpacked; and outlive the process that made them."""
    store = _with_base(tmp_path, SpareLimits(2, 2))
    store.prepare("extract-1 sha256:x", "base")
    assert store.spares() == {}
    for name in "abc":
        store.prepare(name, "base")
    _until(lambda: len(store.spares()) == 2)
    store.close()
    store = _Store(str(tmp_path), "test")
    assert store.reconcile().faulty == ()
    made = set(store.spares())
    store.prepare("d", "base")
    assert len(made - set(store.spares())) == 1
    store.close()


def test_spares_keep_no_parent(tmp_path: Path) -> None:
    store = _with_base(tmp_path, SpareLimits(4, 4))
    store.make_spares("base", 3)
    store.remove("base")
    assert store.cleanup() == 4
    assert store.numbers() == set()
    assert store.spares() == {}
    store.close()


def test_spares_are_given_back_when_room_is_scarce(tmp_path: Path) -> None:
    scarce = False
    store = _with_base(tmp_path, SpareLimits(4, 4), lambda: scarce)
    store.make_spares("base", 3)
    scarce = True
    store.prepare("key", "base")
    _until(lambda: len(store.numbers()) == 2)
    assert store.spares() == {}
    store.close()


@pytest.mark.parametrize("point", ["recorded", "made", "synced", "done"])
def test_killed_while_making_a_spare(tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either there is a spare, or nothing of it is left."""
    _with_base(tmp_path, None).close()
    monkeypatch.setenv("UNIKEEL_FAILPOINT", f"snapshots.spare.{point}")
    child = os.fork()
    if not child:
        try:
            importlib.reload(unikeel.records.failpoint)
            for module in ("unikeel.snapshots.spares", "unikeel.snapshots.spare_files"):
                setattr(importlib.import_module(module), "failpoint", unikeel.records.failpoint.failpoint)  # noqa: B010
            _Store(str(tmp_path), "test", SpareLimits(1, 1)).make_spares("base", 1)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    os.kill(child, 9)
    os.waitpid(child, 0)
    store = _Store(str(tmp_path), "test")
    store.reconcile()
    assert len(store.spares()) == (1 if point == "done" else 0)
    assert len(store.numbers()) == 1 + len(store.spares())
    store.prepare("key", "base")
    assert Path(store.disk("key").path).read_bytes() == Path(store.disk("base").path).read_bytes()
    store.close()
