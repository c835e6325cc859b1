"""The rows of the snapshot tables: their schema, a row as a value, and the statements that several modules share."""

from __future__ import annotations

from collections.abc import Callable

from unikeel.errors import NotFound
from unikeel.lean import Final, sqlite3
from unikeel.records.database import Row
from unikeel.snapshots.contract import How, Info, Kind, Usage
from unikeel.values import NamedTuple

SCHEMA: Final = (
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
    """
    ALTER TABLE snapshots ADD COLUMN mapped INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE snapshot_spares (id INTEGER PRIMARY KEY, origin INTEGER NOT NULL);
    CREATE INDEX snapshot_spares_origin ON snapshot_spares (origin)
    """,
    # The boot of the host in which the content was made and not flushed, see :class:`Clone`; empty: it is on the disk.
    "ALTER TABLE snapshots ADD COLUMN unflushed TEXT NOT NULL DEFAULT ''",
)

#: The consumers of what a store makes for itself.
BASES: Final = "@base"
SPARES: Final = "@spare"

_COLUMNS: Final = (
    "s.id, s.name, p.name, s.parent, s.kind, s.state, s.owner, s.created_ns, s.updated_ns, s.labels,"
    " s.how, s.virtual_size, s.used_size, s.used_inodes, s.mapped, s.consumer, p.mapped"
)
SELECT: Final = f"SELECT {_COLUMNS} FROM snapshots s LEFT JOIN snapshots p ON p.id = s.parent"  # noqa: S608 (constants)


class Record(NamedTuple):
    """One row: what the contract tells (:attr:`info`), and what the back end needs. Sizes in bytes.

    :ivar mapped: what a committed thin device occupies, its own and shared blocks. :ivar mapped_above: the same of the parent.
    """

    id: int
    info: Info
    parent_id: int | None
    ready: bool
    owner: str
    how: How
    virtual_size: int
    used: Usage
    mapped: int = 0
    consumer: str = ""
    mapped_above: int = 0


class Clone(NamedTuple):
    """Content of an active snapshot that is there before its record, and has no name yet.

    It need not be on the disk when the record is: as long as nobody flushed anything into it, it can be made again from its parent.

    :ivar origin: the id of the committed record that it is a clone of. :ivar give_name: gives it the name of its own record's id; called within the transaction.
    :ivar boot: in which boot of the host it was made.
    """

    origin: int
    give_name: Callable[[int], None]
    boot: str


def record_of(row: Row) -> Record:
    import json

    (number, name, parent, parent_id, kind, state, owner, created, updated, labels, how, size, used, inodes) = row[:14]
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
        mapped=int(str(row[14])),
        consumer=str(row[15]),
        mapped_above=int(str(row[16] or 0)),
    )


def insert(cursor: sqlite3.Cursor, store: str, record: Record, labels: str, unflushed: str = "") -> Record:
    """Write a new row of this record, whose id is not known yet; the record with its id."""
    info = record.info
    cursor.execute(
        "INSERT INTO snapshots (store, consumer, name, parent, kind, state, owner, created_ns, updated_ns, labels,"
        " how, virtual_size, used_size, used_inodes, unflushed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?)",
        (
            *(store, record.consumer, info.name, record.parent_id, info.kind.value),
            *("ready" if record.ready else "creating", record.owner, info.created_ns, info.updated_ns),
            *(labels, record.how.value, record.virtual_size, unflushed),
        ),
    )
    return record._replace(id=int(cursor.lastrowid or 0))


def finish(
    cursor: sqlite3.Cursor, record: Record, how: How, virtual_size: int, used: Usage, *, mapped: int = 0
) -> None:
    """Make a row ready. :raise NotFound: it was taken away meanwhile (its owner counted as dead)."""
    cursor.execute(
        "UPDATE snapshots SET state = 'ready', how = ?, virtual_size = ?, used_size = ?, used_inodes = ?, mapped = ?"
        " WHERE id = ? AND state = 'creating'",
        (how.value, virtual_size, used.size, used.inodes, mapped, record.id),
    )
    if cursor.rowcount != 1:
        raise NotFound(f"snapshot {record.info.name!r} was removed while it was being made")


def trash(cursor: sqlite3.Cursor, store: str, number: int) -> None:
    """Have the content of a record taken away by the next cleanup."""
    cursor.execute("INSERT INTO snapshot_trash (id, store) VALUES (?, ?)", (number, store))
