"""The records of spares: snapshots that were made ahead of anybody's wish.

A spare is a record of the consumer ``@spare``, without a parent so that it keeps nobody's parent from being removed; beside it is written what it was made
from. Giving it a name, which makes it the snapshot that somebody asked for, is a part of the one transaction that would otherwise only announce one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from unikeel.errors import NotFound
from unikeel.lean import sqlite3
from unikeel.records.database import Database
from unikeel.snapshots.contract import How, Info, Kind, Usage
from unikeel.snapshots.rows import SELECT, SPARES, Record, finish, insert, record_of, trash


class SpareRecords:
    """The spares of one store, whoever asks for them. Whoever makes this has made the store's :class:`~unikeel.snapshots.metadata.Metadata` before."""

    def __init__(self, database: Database, *, store: str, owner: str) -> None:
        self._database = database
        self._store = store
        self._owner = owner
        self._writer = database.writer()

    def begin(self, origin: int) -> Record:
        """Announce a spare made from the committed record of this id. :raise NotFound: there is none any more."""

        def change(cursor: sqlite3.Cursor) -> Record:
            row = cursor.execute(f"{SELECT} WHERE s.id = ? AND s.kind = 'committed'", (origin,)).fetchone()
            if row is None:
                raise NotFound(f"the snapshot of number {origin} does not exist")
            size, now = record_of(row).virtual_size, time.time_ns()
            info = Info(f"of {origin}, {now}, {self._owner}", "", Kind.ACTIVE, now, now)
            record = Record(0, info, None, False, self._owner, How.EMPTY, size, Usage(0, 0), 0, SPARES)
            return insert(cursor, self._store, record, "{}")

        return self._writer.write(change)

    def finish(self, record: Record, origin: int, how: How) -> None:
        """A spare is there, made like this. :raise NotFound: what it was made from is not, any more."""

        def change(cursor: sqlite3.Cursor) -> None:
            if cursor.execute("SELECT 1 FROM snapshots WHERE id = ?", (origin,)).fetchone() is None:
                raise NotFound(f"the snapshot of number {origin} does not exist any more")
            finish(cursor, record, how, record.virtual_size, Usage(0, 0))
            cursor.execute("INSERT INTO snapshot_spares (id, origin) VALUES (?, ?)", (record.id, origin))

        self._writer.write(change)

    def all(self) -> dict[int, int]:
        """The ids of the spares that are there, and of what each was made from; the oldest first."""
        rows = self._database.query(
            "SELECT r.id, r.origin FROM snapshot_spares r JOIN snapshots s ON s.id = r.id WHERE s.store = ? ORDER BY r.id",
            (self._store,),
        )
        return {int(str(number)): int(str(origin)) for number, origin in rows}

    def drop(self, numbers: Iterable[int]) -> int:
        """Move spares to the trash, those that nobody has claimed; returns how many."""
        wanted = list(numbers)
        return self._writer.write(lambda cursor: sum(_drop(cursor, self._store, number) for number in wanted))


def claim(cursor: sqlite3.Cursor, origin: int, wanted: Record, labels: str) -> Record | None:
    """Make a spare what is wanted, a record that has no id yet; None: there is no spare made from ``origin``."""
    row = cursor.execute(
        "SELECT r.id, s.how FROM snapshot_spares r JOIN snapshots s ON s.id = r.id WHERE r.origin = ? ORDER BY r.id LIMIT 1",
        (origin,),
    ).fetchone()
    if row is None:
        return None
    info = wanted.info
    how = How.EMPTY if wanted.parent_id is None else How(row[1])
    record = wanted._replace(id=int(row[0]), ready=True, how=how)
    cursor.execute("DELETE FROM snapshot_spares WHERE id = ?", (record.id,))
    cursor.execute(
        "UPDATE snapshots SET consumer = ?, name = ?, parent = ?, owner = ?, created_ns = ?, updated_ns = ?, labels = ?,"
        " how = ? WHERE id = ?",
        (
            *(record.consumer, info.name, record.parent_id, record.owner, info.created_ns, info.updated_ns),
            *(labels, how.value, record.id),
        ),
    )
    return record


def drop_those_of(cursor: sqlite3.Cursor, store: str, origin: int) -> None:
    """Move what was made from a record, which goes, to the trash."""
    for (number,) in cursor.execute("SELECT id FROM snapshot_spares WHERE origin = ?", (origin,)).fetchall():
        _drop(cursor, store, int(number))


def _drop(cursor: sqlite3.Cursor, store: str, number: int) -> int:
    cursor.execute("DELETE FROM snapshot_spares WHERE id = ?", (number,))
    if cursor.rowcount != 1:
        return 0
    cursor.execute("DELETE FROM snapshots WHERE id = ?", (number,))
    trash(cursor, store, number)
    return 1


def is_unpacking(key: str) -> bool:
    """Whether a key is of containerd's unpacking of a layer, which is done once for each parent (``NAMESPACE/NUMBER/extract-…``)."""
    return key.rpartition("/")[2].startswith("extract-")
