"""The records of a snapshot store: names, kinds, parents, labels, times, ids and usage, in the state root's database.

A record is written (state ``creating``, with its owner) before the file or device that it describes is made, and becomes
``ready`` after; only ready records are seen through the contract, but a creating one already occupies its name and keeps its
parent from being removed. Removing a record moves its id to the trash in the same transaction. Ids are never used twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from unikeel.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from unikeel.records.database import Database, Row
from unikeel.snapshots.contract import How, Info, Kind, Usage
from unikeel.snapshots.naming import check_name, encode_labels, relabelled

_SCHEMA: Final = (
    """
    CREATE TABLE snapshots (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        store TEXT NOT NULL,
        consumer TEXT NOT NULL,
        name TEXT NOT NULL,
        parent INTEGER REFERENCES snapshots (id),
        kind TEXT NOT NULL,
        state TEXT NOT NULL,
        owner TEXT NOT NULL,
        created_ns INTEGER NOT NULL,
        updated_ns INTEGER NOT NULL,
        labels TEXT NOT NULL,
        how TEXT NOT NULL,
        virtual_size INTEGER NOT NULL,
        used_size INTEGER NOT NULL,
        used_inodes INTEGER NOT NULL,
        UNIQUE (store, consumer, name)
    );
    CREATE INDEX snapshots_parent ON snapshots (parent);
    CREATE INDEX snapshots_creating ON snapshots (store) WHERE state = 'creating';
    CREATE TABLE snapshot_trash (id INTEGER PRIMARY KEY, store TEXT NOT NULL);
    CREATE TABLE snapshot_stores (store TEXT PRIMARY KEY, mark TEXT NOT NULL)
    """,
)

_COLUMNS: Final = (
    "s.id, s.name, p.name, s.parent, s.kind, s.state, s.owner, s.created_ns, s.updated_ns, s.labels,"
    " s.how, s.virtual_size, s.used_size, s.used_inodes"
)
_SELECT: Final = f"SELECT {_COLUMNS} FROM snapshots s LEFT JOIN snapshots p ON p.id = s.parent"  # noqa: S608 (constants)
_PAGE: Final = 256


class Record(NamedTuple):
    """One row: what the contract tells (:attr:`info`), and what the back end needs. Sizes in bytes."""

    id: int
    info: Info
    parent_id: int | None
    ready: bool
    owner: str
    how: How
    virtual_size: int
    used: Usage


def _record(row: Row) -> Record:
    import json

    (number, name, parent, parent_id, kind, state, owner, created, updated, labels, how, size, used, inodes) = row
    info = Info(
        name=str(name),
        parent="" if parent is None else str(parent),
        kind=Kind(kind),
        created_ns=int(str(created)),
        updated_ns=int(str(updated)),
        labels=json.loads(str(labels)),
    )
    return Record(
        id=int(str(number)),
        info=info,
        parent_id=None if parent_id is None else int(str(parent_id)),
        ready=state == "ready",
        owner=str(owner),
        how=How(str(how)),
        virtual_size=int(str(size)),
        used=Usage(int(str(used)), int(str(inodes))),
    )


def prepare_tables(database: Database) -> None:
    """Make the tables of snapshots, or bring them up to date. :raise Internal: a later version wrote them."""
    database.migrate("snapshots", _SCHEMA)


class Metadata:
    """The records of one store as one consumer sees them.

    :param store: which back end's records these are; several may live in one database.
    :param owner: the token under which records are marked while they are being made.
    """

    def __init__(self, database: Database, *, store: str, consumer: str, owner: str) -> None:
        check_name(consumer)
        self._database = database
        self._store = store
        self._consumer = consumer
        self._owner = owner
        prepare_tables(database)

    # --- one record -------------------------------------------------------------------------------------------------

    def find(self, name: str) -> Record:
        """:raise NotFound: there is no ready snapshot of this name."""
        record = self._named(name)
        if record is None or not record.ready:
            raise NotFound(f"snapshot {name!r} does not exist")
        return record

    def unfinished(self, name: str) -> Record | None:
        """The record of a snapshot that is being made under this name, by whomever."""
        record = self._named(name)
        return None if record is None or record.ready else record

    def _named(self, name: str) -> Record | None:
        try:
            rows = self._database.query(
                f"{_SELECT} WHERE s.store = ? AND s.consumer = ? AND s.name = ?", (self._store, self._consumer, name)
            )
        except UnicodeEncodeError:  # what is not Unicode text names nothing
            return None
        return _record(rows[0]) if rows else None

    def begin(self, name: str, parent: str, kind: Kind, labels: Mapping[str, str]) -> Record:
        """Write down that a snapshot is about to be made. A view of a parent needs nothing made and is ready at once.

        :raise AlreadyExists: the name is taken. :raise NotFound: no such parent.
        :raise InvalidArgument: the parent is not committed, or the name or a label is malformed.
        """
        encoded = encode_labels(labels)
        with self._database.write() as cursor:
            above = self._parent_for(name, parent)
            ready = kind is Kind.VIEW and above is not None
            how = How.PARENT if ready else How.EMPTY
            now = time.time_ns()
            cursor.execute(
                "INSERT INTO snapshots (store, consumer, name, parent, kind, state, owner, created_ns, updated_ns, labels,"
                " how, virtual_size, used_size, used_inodes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0)",
                (
                    self._store,
                    self._consumer,
                    name,
                    above.id if above else None,
                    kind.value,
                    "ready" if ready else "creating",
                    self._owner,
                    now,
                    now,
                    encoded,
                    how.value,
                    above.virtual_size if above else 0,
                ),
            )
            number = int(cursor.lastrowid or 0)
        info = Info(name, parent, kind, now, now, dict(labels))
        size = above.virtual_size if above else 0
        return Record(number, info, above.id if above else None, ready, self._owner, how, size, Usage(0, 0))

    def _parent_for(self, name: str, parent: str) -> Record | None:
        self.check_free(name)
        if not parent:
            return None
        above = self._named(parent)
        if above is None or not above.ready:
            raise NotFound(f"the parent snapshot {parent!r} does not exist")
        if above.info.kind is not Kind.COMMITTED:
            raise InvalidArgument(f"the parent snapshot {parent!r} is not committed but {above.info.kind.value}")
        return above

    def check_free(self, name: str) -> None:
        """:raise AlreadyExists: the name is taken. :raise InvalidArgument: it is malformed."""
        check_name(name)
        if self._named(name) is not None:
            raise AlreadyExists(f"snapshot {name!r} exists already")

    def finish(self, record: Record, how: How, virtual_size: int, used: Usage) -> None:
        """What :meth:`begin` announced is there. :raise NotFound: the record was taken away meanwhile (its owner counted as dead)."""
        changed = self._database.execute(
            "UPDATE snapshots SET state = 'ready', how = ?, virtual_size = ?, used_size = ?, used_inodes = ?"
            " WHERE id = ? AND state = 'creating'",
            (how.value, virtual_size, used.size, used.inodes, record.id),
        )
        if changed != 1:
            raise NotFound(f"snapshot {record.info.name!r} was removed while it was being made")

    def abandon(self, record: Record) -> None:
        """What :meth:`begin` announced is not going to be. Its file or device is gone already."""
        self._database.execute("DELETE FROM snapshots WHERE id = ? AND state = 'creating'", (record.id,))

    def commit(
        self, name: str, record: Record, labels: Mapping[str, str], used: Usage, seal: Callable[[], None]
    ) -> None:
        """Turn an active record into a committed one; ``seal`` runs inside of the transaction, before anybody can see it.

        :raise AlreadyExists: the name is taken. :raise NotFound: the key is gone.
        """
        encoded = encode_labels(labels)
        with self._database.write() as cursor:
            self.check_free(name)
            now = max(time.time_ns(), record.info.updated_ns + 1)
            cursor.execute(
                "UPDATE snapshots SET name = ?, kind = ?, labels = ?, created_ns = ?, updated_ns = ?, used_size = ?,"
                " used_inodes = ? WHERE id = ? AND kind = ? AND state = 'ready'",
                (name, Kind.COMMITTED.value, encoded, now, now, used.size, used.inodes, record.id, Kind.ACTIVE.value),
            )
            if cursor.rowcount != 1:
                raise NotFound(f"snapshot {record.info.name!r} does not exist")
            seal()

    def update(self, name: str, labels: Mapping[str, str], fieldpaths: Iterable[str]) -> Info:
        """As the contract's ``update``."""
        paths = list(fieldpaths)
        with self._database.write() as cursor:
            record = self.find(name)
            changed = relabelled(record.info.labels, labels, paths)
            encoded = encode_labels(changed)
            now = max(time.time_ns(), record.info.updated_ns + 1)
            cursor.execute("UPDATE snapshots SET labels = ?, updated_ns = ? WHERE id = ?", (encoded, now, record.id))
        info = record.info
        return Info(info.name, info.parent, info.kind, info.created_ns, now, changed)

    def discard(self, name: str) -> None:
        """Move a record to the trash. :raise NotFound: no such name. :raise FailedPrecondition: it has children."""
        with self._database.write() as cursor:
            record = self.find(name)
            (children,) = cursor.execute("SELECT count(*) FROM snapshots WHERE parent = ?", (record.id,)).fetchone()
            if children:
                raise FailedPrecondition(
                    f"cannot remove snapshot {name!r}: {children} snapshots are made on it", "remove those first"
                )
            if record.how is not How.PARENT:
                cursor.execute("INSERT INTO snapshot_trash (id, store) VALUES (?, ?)", (record.id, self._store))
            cursor.execute("DELETE FROM snapshots WHERE id = ?", (record.id,))

    def page(self, after: int) -> list[Record]:
        """The next ready records of this consumer in order of their ids, from past ``after``; empty at the end."""
        rows = self._database.query(
            f"{_SELECT} WHERE s.store = ? AND s.consumer = ? AND s.id > ? AND s.state = 'ready' ORDER BY s.id LIMIT ?",
            (self._store, self._consumer, after, _PAGE),
        )
        return [_record(row) for row in rows]

    # --- the whole store, for reconciling -----------------------------------------------------------------------------

    def creating(self) -> list[Record]:
        """Records of all consumers that are being made, the newest first."""
        rows = self._database.query(
            f"{_SELECT} WHERE s.store = ? AND s.state = 'creating' ORDER BY s.id DESC", (self._store,)
        )
        return [_record(row) for row in rows]

    def still_active(self, record: Record, then: Callable[[], None]) -> None:
        """Run ``then`` while nobody can commit or remove, if the record still is what it was; otherwise do nothing."""
        with self._database.write():
            now = self._named(record.info.name)
            if now is not None and now.id == record.id and now.info.kind is Kind.ACTIVE:
                then()

    def trash(self) -> list[int]:
        """Some ids whose content is to be taken away, of all consumers; empty if there are none."""
        rows = self._database.query("SELECT id FROM snapshot_trash WHERE store = ? LIMIT ?", (self._store, _PAGE))
        return [int(str(row[0])) for row in rows]

    def forget(self, ids: Iterable[int]) -> None:
        """The content of these ids is gone: drop them from the trash."""
        with self._database.write() as cursor:
            cursor.executemany("DELETE FROM snapshot_trash WHERE id = ?", [(number,) for number in ids])

    def known_ids(self) -> set[int]:
        """All ids with a record or in the trash, of all consumers."""
        rows = self._database.query(
            "SELECT id FROM snapshots WHERE store = ? UNION SELECT id FROM snapshot_trash WHERE store = ?",
            (self._store, self._store),
        )
        return {int(str(row[0])) for row in rows}

    def with_content(self) -> dict[int, str]:
        """Ids and names of all ready records, of all consumers, that have content of their own."""
        rows = self._database.query(
            "SELECT id, name FROM snapshots WHERE store = ? AND state = 'ready' AND how != ?",
            (self._store, How.PARENT.value),
        )
        return {int(str(number)): str(name) for number, name in rows}

    def mark(self) -> str:
        """The random number that ties these records to the place of their content; empty if not tied yet."""
        rows = self._database.query("SELECT mark FROM snapshot_stores WHERE store = ?", (self._store,))
        return str(rows[0][0]) if rows else ""

    def tie(self, make: Callable[[], str]) -> str:
        """Tie the records to a place: ``make`` marks it with a random number and returns that. Done once; later calls return it."""
        with self._database.write() as cursor:
            known = self.mark()
            if known:
                return known
            made = make()
            cursor.execute("INSERT INTO snapshot_stores (store, mark) VALUES (?, ?)", (self._store, made))
        return made
