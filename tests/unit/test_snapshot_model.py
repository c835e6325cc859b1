"""Any sequence of calls has the same outcome on the file store as on the model in memory."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from unikeel.errors import UnikeelError
from unikeel.records.database import Database
from unikeel.snapshots.contract import RAW_ONLY, Info, Mount, Reconciled, SnapshotStore
from unikeel.snapshots.file_store import FileStore
from unikeel.testing.fake_snapshots import FakeStore
from unikeel.testing.snapshot_suite import read_content, write_content

_SIZE = 1 << 24
_NAMES = st.sampled_from(["a", "b", "c", "d"])
_PARENTS = st.sampled_from(["", "", "a", "b", "c", "d"])
_LABELS = st.dictionaries(st.sampled_from(["k", "l.m"]), st.sampled_from(["", "1", "2"]), max_size=2)


def _plain(value: object) -> object:
    """A result without what legitimately differs: times and places."""
    if isinstance(value, Info):
        return value.name, value.parent, value.kind, dict(value.labels)
    if isinstance(value, list):
        return [(item.type, item.options) if isinstance(item, Mount) else _plain(item) for item in value]
    return value


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.mkdtemp()
        self.database = Database(os.path.join(self.directory, "records.db"))
        self.model = FakeStore(empty_size=_SIZE)
        self.store = self._open()
        self.writes = 0

    def _open(self) -> FileStore:
        images = os.path.join(self.directory, "images")
        return FileStore(images, self.database, consumer="test", owner="test", empty_size=_SIZE)

    def teardown(self) -> None:
        self.store.close()
        self.model.close()
        self.database.close()
        shutil.rmtree(self.directory)

    def both(self, call: Callable[[SnapshotStore], object]) -> None:
        outcomes: list[object] = []
        for store in (self.model, self.store):
            try:
                outcomes.append(_plain(call(store)))
            except UnikeelError as error:
                outcomes.append(type(error))
        assert outcomes[0] == outcomes[1]

    @rule(key=_NAMES, parent=_PARENTS, labels=_LABELS)
    def prepare(self, key: str, parent: str, labels: dict[str, str]) -> None:
        self.both(lambda store: store.prepare(key, parent, labels, formats=RAW_ONLY))

    @rule(key=_NAMES, parent=_PARENTS, labels=_LABELS)
    def view(self, key: str, parent: str, labels: dict[str, str]) -> None:
        self.both(lambda store: store.view(key, parent, labels))

    @rule(name=_NAMES, key=_NAMES, labels=_LABELS, parent=_PARENTS)
    def commit(self, name: str, key: str, labels: dict[str, str], parent: str) -> None:
        self.both(lambda store: store.commit(name, key, labels, parent=parent))

    @rule(name=_NAMES, key=_NAMES)
    def commit_simply(self, name: str, key: str) -> None:
        self.both(lambda store: store.commit(name, key))

    @rule(name=_NAMES, size=st.sampled_from([4096, 1 << 20]))
    def bring_in(self, name: str, size: int) -> None:
        self.both(lambda store: store.import_committed(name, {"size": str(size)}, lambda fd: os.ftruncate(fd, size)))

    @rule(key=_NAMES)
    def remove(self, key: str) -> None:
        self.both(lambda store: store.remove(key))

    @rule(key=_NAMES, labels=_LABELS, paths=st.lists(st.sampled_from(["labels", "labels.k", "labels.l.m", "kind"])))
    def update(self, key: str, labels: dict[str, str], paths: list[str]) -> None:
        self.both(lambda store: store.update(key, labels, paths))

    @rule(key=_NAMES)
    def mounts(self, key: str) -> None:
        self.both(lambda store: store.mounts(key))

    @rule(key=_NAMES)
    def usage(self, key: str) -> None:
        self.both(lambda store: store.usage(key).inodes)

    @rule()
    def cleanup(self) -> None:
        self.both(lambda store: store.cleanup())

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self._open()
        self.model.cleanup()
        found = self.store.reconcile(lambda token: token != "test")
        assert found == Reconciled()

    @rule(key=_NAMES)
    def write(self, key: str) -> None:
        self.writes += 1

        def write(store: SnapshotStore) -> None:
            (mount,) = store.mounts(key)
            if "rw" in mount.options:
                write_content(mount, str(self.writes))

        self.both(write)

    @invariant()
    def same_snapshots(self) -> None:
        self.both(lambda store: list(store.list()))
        for info in self.model.list():
            expected = self.model.disk(info.name)
            disk = self.store.disk(info.name)
            assert (disk.size, disk.read_only) == (expected.size, expected.read_only)
            if expected.how.value != "empty":
                assert read_content(disk.path).strip("\0") == read_content(expected.path).strip("\0")


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
