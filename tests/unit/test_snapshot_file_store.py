"""The file store and the fake store pass the suite that is exported for all stores."""

from __future__ import annotations

import os

from unikeel.records.database import Database
from unikeel.snapshots.contract import SnapshotStore
from unikeel.snapshots.file_store import FileStore
from unikeel.testing.fake_snapshots import FakeStore
from unikeel.testing.snapshot_suite import PersistentSnapshotSuite, SnapshotSuite


class TestFileStore(PersistentSnapshotSuite):
    def open_store(self, directory: str, consumer: str) -> SnapshotStore:
        database = Database(os.path.join(directory, "records.db"))
        images = os.path.join(directory, "snapshots")
        return FileStore(images, database, consumer=consumer, owner="suite", empty_size=1 << 24)


class TestFakeStore(SnapshotSuite):
    def open_store(self, directory: str, consumer: str) -> SnapshotStore:
        del directory, consumer
        return FakeStore()
