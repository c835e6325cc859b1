"""The file store on file systems that share blocks: XFS and btrfs in loop files."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from unikeel.kernel.reflink import shared_bytes
from unikeel.records.database import Database
from unikeel.snapshots.contract import RAW_OR_QCOW2, How, SnapshotStore
from unikeel.snapshots.file_store import FileStore
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
    if subprocess.run(["umount", target], check=False).returncode:
        subprocess.run(["umount", "--lazy", target], check=True)
        pytest.fail("something was left open on the file system")


@pytest.fixture
def tmp_path(sharing: Path) -> Path:
    """A directory for each test, on such a file system instead of where pytest has it."""
    return Path(tempfile.mkdtemp(dir=sharing))


class _Store(FileStore):
    """A file store that closes its record store, too, so that the file system can be unmounted."""

    def __init__(self, directory: str, consumer: str) -> None:
        self._records = Database(os.path.join(directory, "records.db"))
        images = os.path.join(directory, "snapshots")
        super().__init__(images, self._records, consumer=consumer, owner="suite", empty_size=1 << 24)

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
