"""When records reach the disk: with the commit, with the next one, and together with those of other threads."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from unikeel.errors import ResourceExhausted
from unikeel.records.database import Database

_INSERT = "INSERT INTO written VALUES (?)"


@pytest.fixture
def store(tmp_path: os.PathLike[str]) -> Iterator[Database]:
    database = Database(os.path.join(tmp_path, "state.db"))
    database.migrate("test", ("CREATE TABLE written (number INTEGER)",))
    yield database
    database.close()


class Flushes:
    """Stands in for fdatasync: counts, and holds those who flush until it is told to let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.error: OSError | None = None
        self._real = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self)

    def __call__(self, fd: int) -> None:
        self.count += 1
        self.begun.set()
        assert self.gate.wait(60)
        if self.error is not None:
            raise self.error
        self._real(fd)


@pytest.fixture
def flushes(store: Database, monkeypatch: pytest.MonkeyPatch) -> Flushes:
    store.flush()
    return Flushes(monkeypatch)


def _written(path: str) -> int:
    database = Database(path)
    try:
        return int(str(database.query("SELECT COUNT(*) FROM written")[0][0]))
    finally:
        database.close()


def test_a_transaction_is_flushed_once(store: Database, flushes: Flushes) -> None:
    store.execute(_INSERT, (1,))
    assert flushes.count == 1
    store.flush()
    assert flushes.count == 1


def test_one_that_is_not_flushed_is_there_for_others_and_goes_to_the_disk_with_the_next(
    store: Database, flushes: Flushes, tmp_path: os.PathLike[str]
) -> None:
    with store.write(flush=False) as cursor:
        cursor.execute(_INSERT, (1,))
    assert flushes.count == 0
    for name in os.listdir(tmp_path):  # what would be found if this process were killed now
        shutil.copy(os.path.join(tmp_path, name), f"{tmp_path}/killed-{name}")
    assert _written(os.path.join(tmp_path, "killed-state.db")) == 1
    store.execute(_INSERT, (2,))
    assert flushes.count == 1


def test_threads_share_a_flush(store: Database, flushes: Flushes) -> None:
    """While one is on its way, others commit; then one more serves all of them."""
    flushes.gate.clear()
    committed = store._commits
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(store.execute, _INSERT, (0,))
        assert flushes.begun.wait(60)
        others = [pool.submit(store.execute, _INSERT, (number,)) for number in range(1, 9)]
        while store._commits < committed + 9:
            assert not first.done()
            threading.Event().wait(0.001)
        flushes.gate.set()
        for one in (first, *others):
            assert one.result(60) == 1
    assert flushes.count == 2
    assert store.query("SELECT COUNT(*) FROM written") == [(9,)]


def _insert_and_fail(cursor: sqlite3.Cursor) -> None:
    cursor.execute(_INSERT, (1,))
    raise ResourceExhausted("enough")


def test_one_that_is_taken_back_is_not_flushed(store: Database, flushes: Flushes) -> None:
    with pytest.raises(ResourceExhausted), store.write() as cursor:
        _insert_and_fail(cursor)
    assert flushes.count == 0
    assert store.query("SELECT COUNT(*) FROM written") == [(0,)]


def test_a_disk_that_does_not_take_it_is_said(store: Database, flushes: Flushes) -> None:
    flushes.error = OSError(errno.EIO, "Input/output error")
    with pytest.raises(ResourceExhausted, match="cannot be written: Input/output error"):
        store.execute(_INSERT, (1,))
    flushes.error = None
    store.execute(_INSERT, (2,))
    assert flushes.count == 2


def test_the_flush_of_a_closed_store_is_nothing(store: Database, flushes: Flushes) -> None:
    store.close()
    store.flush()
    assert flushes.count == 0


def test_a_log_that_is_long_from_the_start_holds_what_it_held(store: Database, tmp_path: os.PathLike[str]) -> None:
    """Also for who finds it after this process was killed, and for who adds to it meanwhile."""
    path = os.path.join(tmp_path, "state.db")
    other = Database(path)
    store.execute(_INSERT, (1,))
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: [other.execute(_INSERT, (number,)) for number in range(2, 50)])
        store.reserve_log()
        writing.result(60)
    size = os.path.getsize(f"{path}-wal")
    assert size >= 4 << 20
    for number in range(50, 1500):  # so many that the log begins anew
        with store.write(flush=False) as cursor:
            cursor.execute(_INSERT, (number,))
    store.reserve_log()
    assert os.path.getsize(f"{path}-wal") == size
    for name in os.listdir(tmp_path):
        shutil.copy(os.path.join(tmp_path, name), f"{tmp_path}/killed-{name}")
    assert _written(os.path.join(tmp_path, "killed-state.db")) == 1499
    other.close()


def test_a_log_that_cannot_be_long(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _data: bytes, _offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ResourceExhausted, match="No space left"):
        store.reserve_log()
    store.execute(_INSERT, (1,))
    assert store.query("SELECT COUNT(*) FROM written") == [(1,)]
