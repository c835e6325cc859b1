"""The file store under the suite that mounts, and without space, on real file systems."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from unikeel.errors import ResourceExhausted
from unikeel.records.database import Database
from unikeel.snapshots.contract import RAW_OR_QCOW2, How, SnapshotStore
from unikeel.snapshots.file_store import FileStore
from unikeel.testing.mounted_snapshot_suite import MountedSnapshotSuite
from unikeel.testing.snapshot_suite import names


class TestFileStoreMounted(MountedSnapshotSuite):
    def open_store(self, directory: str, consumer: str) -> SnapshotStore:
        database = Database(os.path.join(directory, "records.db"))
        images = os.path.join(directory, "snapshots")
        return FileStore(images, database, consumer=consumer, owner="suite", empty_size=1 << 24)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    target = tmp_path / "small"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", target], check=True)
    yield target
    subprocess.run(["umount", target], check=True)


def test_without_space_nothing_is_left(tmp_path: Path, small: Path) -> None:
    def fill(size: int, fd: int) -> None:
        os.ftruncate(fd, 16 << 20)
        for offset in range(0, size, 1 << 20):
            os.pwrite(fd, os.urandom(1 << 20), offset)

    database = Database(str(tmp_path / "records.db"))
    store = FileStore(str(small / "images"), database, consumer="test", owner="test")
    with pytest.raises(ResourceExhausted, match="'large'"):
        store.import_committed("large", {}, lambda fd: fill(5 << 20, fd))
    store.import_committed("base", {}, lambda fd: fill(3 << 20, fd))
    with pytest.raises(ResourceExhausted, match="'copy'"):
        store.prepare("copy", "base")
    assert names(store) == {"base"}
    assert sorted(os.listdir(small / "images")) == ["2.img", "store-id"]
    store.prepare("overlay", "base", formats=RAW_OR_QCOW2)
    assert store.disk("overlay").how is How.QCOW2
    store.close()
