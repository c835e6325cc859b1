"""Calls that come at once share transactions, each with an outcome of its own; and the records of spares."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from unikeel.errors import AlreadyExists, FailedPrecondition, NotFound
from unikeel.records.database import Database
from unikeel.snapshots.contract import How, Kind, Usage
from unikeel.snapshots.metadata import Metadata
from unikeel.snapshots.rows import BASES, Record
from unikeel.snapshots.spare_records import SpareRecords

_NOTHING = Usage(0, 0)


class _Counting(Database):
    """Counts transactions, and holds one up until it is let go."""

    transactions = 0

    @contextmanager
    def write(self, *, flush: bool = True) -> Iterator[sqlite3.Cursor]:
        self.transactions += 1
        with super().write(flush=flush) as cursor:
            yield cursor


@pytest.fixture
def database(tmp_path: Path) -> Iterator[_Counting]:
    database = _Counting(str(tmp_path / "records.db"))
    yield database
    database.close()


def _metadata(database: Database, consumer: str = "test") -> Metadata:
    return Metadata(database, store="pool:p", consumer=consumer, owner="owner")


def _committed(metadata: Metadata, name: str = "base") -> Record:
    record = metadata.begin(name, "", Kind.COMMITTED, {})
    metadata.finish(record, How.FILLED, 1 << 20, _NOTHING, mapped=4096)
    return metadata.find(name)


def test_calls_that_come_at_once_share_a_transaction(database: _Counting) -> None:
    """One call holds the disk; nine that come meanwhile, of two consumers and with one that fails, are the second transaction."""
    one, two = _metadata(database), _metadata(database, "two")
    active = one.begin("active", "", Kind.ACTIVE, {})
    one.finish(active, How.EMPTY, 1 << 20, _NOTHING)
    held, go = threading.Event(), threading.Event()

    def seal() -> None:
        held.set()
        assert go.wait(60)

    waiting, before = database.writer()._waiting, database.transactions
    with ThreadPoolExecutor(12) as threads:
        first = threads.submit(one.commit, "committed", one.find("active"), {}, _NOTHING, seal)
        assert held.wait(60)
        others = [threads.submit((one, two)[i % 2].begin, f"key {i}", "", Kind.ACTIVE, {}) for i in range(8)]
        others.append(threads.submit(one.begin, "key 0", "", Kind.ACTIVE, {}))
        deadline = time.monotonic() + 60
        while len(waiting) < 9 and time.monotonic() < deadline:
            time.sleep(0.01)
        go.set()
        first.result(60)
        outcomes = [type(other.exception(60)) for other in others]
    assert database.transactions - before == 2
    assert sorted(outcome.__name__ for outcome in outcomes) == ["AlreadyExists", *["NoneType"] * 8]
    assert one.find("committed").info.kind is Kind.COMMITTED
    assert {record.info.name for record in one.creating()} == {f"key {i}" for i in range(8)}


def test_a_call_that_fails_takes_nobody_along(database: _Counting) -> None:
    metadata = _metadata(database)
    record = metadata.begin("key", "", Kind.ACTIVE, {})
    with pytest.raises(AlreadyExists):
        metadata.begin("key", "", Kind.ACTIVE, {})
    metadata.finish(record, How.EMPTY, 1 << 20, _NOTHING)
    assert metadata.find("key").ready


def test_a_spare_is_claimed_once(database: _Counting) -> None:
    metadata = _metadata(database)
    base = _committed(metadata)
    spares = SpareRecords(database, store="pool:p", owner="owner")
    made = spares.begin(base.id)
    assert spares.all() == {}
    spares.finish(made, base.id, How.SNAPSHOT)
    assert spares.all() == {made.id: base.id}
    got = metadata.begin("key", "base", Kind.ACTIVE, {"l": "1"})
    assert (got.id, got.ready, got.virtual_size) == (made.id, True, 1 << 20)
    found = metadata.find("key")
    assert (found.info.parent, dict(found.info.labels), found.how) == ("base", {"l": "1"}, How.SNAPSHOT)
    assert not metadata.begin("other", "base", Kind.ACTIVE, {}).ready
    assert spares.all() == {}


def test_a_spare_of_the_empty_file_system(database: _Counting) -> None:
    base = _committed(_metadata(database, BASES), "ext4")
    spares = SpareRecords(database, store="pool:p", owner="owner")
    spares.finish(spares.begin(base.id), base.id, How.SNAPSHOT)
    got = _metadata(database).begin("key", "", Kind.ACTIVE, {}, base=base)
    assert (got.ready, got.how, got.parent_id) == (True, How.EMPTY, None)


def test_views_take_no_spare(database: _Counting) -> None:
    metadata = _metadata(database)
    base = _committed(metadata)
    spares = SpareRecords(database, store="pool:p", owner="owner")
    made = spares.begin(base.id)
    spares.finish(made, base.id, How.SNAPSHOT)
    assert metadata.begin("view", "base", Kind.VIEW, {}).how is How.PARENT
    assert spares.all() == {made.id: base.id}


def test_spares_go_with_their_parent(database: _Counting) -> None:
    metadata = _metadata(database)
    base = _committed(metadata)
    spares = SpareRecords(database, store="pool:p", owner="owner")
    ready, late = spares.begin(base.id), spares.begin(base.id)
    spares.finish(ready, base.id, How.SNAPSHOT)
    child = metadata.begin("child", "base", Kind.VIEW, {})
    with pytest.raises(FailedPrecondition, match="1 snapshots"):
        metadata.discard("base")
    metadata.discard(child.info.name)
    metadata.discard("base")
    assert spares.all() == {}
    assert set(metadata.trash()) == {base.id, ready.id}
    with pytest.raises(NotFound):
        spares.finish(late, base.id, How.SNAPSHOT)
    with pytest.raises(NotFound):
        spares.begin(base.id)


def test_spares_are_given_back(database: _Counting) -> None:
    metadata = _metadata(database)
    base = _committed(metadata)
    spares = SpareRecords(database, store="pool:p", owner="owner")
    made = spares.begin(base.id)
    spares.finish(made, base.id, How.SNAPSHOT)
    assert spares.drop([made.id, 4711]) == 1
    assert metadata.trash() == [made.id]


def test_a_commit_by_a_copy(database: _Counting) -> None:
    metadata = _metadata(database)
    active = metadata.begin("key", "", Kind.ACTIVE, {})
    metadata.finish(active, How.EMPTY, 1 << 20, _NOTHING)
    made = metadata.begin("name", "", Kind.COMMITTED, {"l": "1"})
    metadata.replace(metadata.find("key"), made, Usage(4096, 1), 8192)
    found = metadata.find("name")
    assert (found.id, found.virtual_size, found.mapped, found.used) == (made.id, 1 << 20, 8192, Usage(4096, 1))
    with pytest.raises(NotFound):
        metadata.find("key")
    assert metadata.trash() == [active.id]


def test_trash_is_read_in_order(database: _Counting) -> None:
    metadata = _metadata(database)
    numbers = [_committed(metadata, f"name {index}").id for index in range(3)]
    for index in range(3):
        metadata.discard(f"name {index}")
    assert metadata.trash() == numbers
    assert metadata.trash(numbers[0]) == numbers[1:]
    metadata.forget(numbers[:2])
    assert metadata.trash() == numbers[2:]
