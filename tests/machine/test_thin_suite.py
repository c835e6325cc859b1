"""The store of thin devices under the suites that every store passes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from thin_world import SMALL, Pool, Process, made_pool, remove_all
from unikeel.records.database import Database
from unikeel.snapshots.contract import SnapshotStore
from unikeel.snapshots.thin.store import ThinStore
from unikeel.testing.mounted_snapshot_suite import MountedSnapshotSuite
from unikeel.testing.snapshot_suite import PersistentSnapshotSuite


class _World:
    """One pool and one record store for all tests of this module; each has consumers of its own."""

    def __init__(self, directory: Path, pool: Pool) -> None:
        self.pool = pool
        self.directory = directory
        self.opened: list[tuple[str, ThinStore, Database]] = []

    def open(self, directory: str, consumer: str) -> SnapshotStore:
        database = Database(str(self.directory / "records.db"))
        own = f"{directory} {consumer}"
        store = ThinStore(self.pool.ref, database, consumer=own, owner="suite", empty_size=SMALL)
        self.opened.append((own, store, database))
        return store

    def tidy(self) -> None:
        """Remove what the stores that were opened made, and close them."""
        for consumer in {own for own, _, _ in self.opened}:
            process = Process(self.directory, self.pool.ref, consumer)
            remove_all(process.store)
            process.store.cleanup()
            process.close()
        for _, store, database in self.opened:
            store.close()
            database.close()
        self.opened = []


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_World]:
    directory = tmp_path_factory.mktemp("thin")
    with made_pool(directory / "pool") as pool:
        yield _World(directory, pool)
        assert set(pool.devices()) == {1}  # the empty file system


class _InPool:
    @pytest.fixture(autouse=True)
    def _here(self, world: _World) -> Iterator[None]:
        self.world = world
        yield
        world.tidy()

    def open_store(self, directory: str, consumer: str) -> SnapshotStore:
        return self.world.open(directory, consumer)


class TestThinStore(_InPool, PersistentSnapshotSuite):
    pass


class TestThinStoreMounted(_InPool, MountedSnapshotSuite):
    pass
