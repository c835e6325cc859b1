"""The records of what was reached through somebody else: views in containerd, and the leases that keep them.

A row is written before the view is made and goes after it was removed, so that nothing of ours is ever without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from unikeel.boot.contract import Parent
from unikeel.lean import Final, sqlite3
from unikeel.records.database import Database, Row
from unikeel.values import NamedTuple

_COLUMNS: Final = "parent_key, purpose, container, consumer, namespace, snapshotter, parent, view, lease, old_lease, leased_ns, giving"


class ReachedRow(NamedTuple):
    """A view of a parent: for what, its key in containerd, its lease.

    :ivar old_lease: the lease before, as long as it may still be there. :ivar leased_ns: when the lease began, since the epoch.
    :ivar giving: it is no longer wanted, and has to go.
    """

    parent_key: str
    purpose: str
    container: str
    consumer: str
    namespace: str
    snapshotter: str
    parent: str
    view: str
    lease: str
    old_lease: str = ""
    leased_ns: int = 0
    giving: bool = False

    @property
    def identity(self) -> tuple[str, str, str]:
        """What makes it unique."""
        return self.parent_key, self.purpose, self.container


class ReachedRows:
    """The table, over the record store, whose schema :class:`~unikeel.boot.ledger.Ledger` has brought up to date."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def instance(self) -> str:
        """The random name of this state root."""
        return str(self._database.query("SELECT id FROM boot_instance")[0][0])

    def get(self, parent_key: str, purpose: str, container: str) -> ReachedRow | None:
        """One row."""
        sql = f"SELECT {_COLUMNS} FROM boot_reached WHERE parent_key = ? AND purpose = ? AND container = ?"  # noqa: S608
        rows = _rows(self._database.query(sql, (parent_key, purpose, container)))
        return rows[0] if rows else None

    def all(self, consumer: str | None = None) -> list[ReachedRow]:
        """All rows, or those of a consumer."""
        sql = f"SELECT {_COLUMNS} FROM boot_reached WHERE ?1 IS NULL OR consumer = ?1 ORDER BY 1, 2, 3"  # noqa: S608
        return _rows(self._database.query(sql, (consumer,)))

    def put(self, row: ReachedRow, *, flush: bool = True) -> None:
        """Write a row down, or anew; it is on disk when this returns, or (``flush`` false) with what is flushed next."""
        with self._database.write(flush=flush) as cursor:
            self.put_in(cursor, row)

    def put_in(self, cursor: sqlite3.Cursor, row: ReachedRow) -> None:
        """The same, as part of a caller's transaction."""
        values = (*row[:11], int(row.giving))
        cursor.execute(f"INSERT OR REPLACE INTO boot_reached ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", values)  # noqa: S608

    def remove(self, row: ReachedRow) -> None:
        """It is gone."""
        sql = "DELETE FROM boot_reached WHERE parent_key = ? AND purpose = ? AND container = ?"
        self._database.execute(sql, row.identity)


class LowestRow(NamedTuple):
    """The lowest layer with a parent's boot files: its name, when it was made, and how that was found."""

    name: str
    created_ns: int
    how: str


def lowest_of(database: Database, parent: Parent, paths: Sequence[str]) -> LowestRow | None:
    """What was found before."""
    sql = "SELECT name, created_ns, how FROM boot_lowest WHERE parent_key = ? AND paths = ?"
    for name, created, how in database.query(sql, (parent.key, _joined(paths))):
        return LowestRow(str(name), int(str(created)), str(how))
    return None


def put_lowest(database: Database, parent: Parent, paths: Sequence[str], row: LowestRow) -> None:
    """Remember it."""
    database.execute("INSERT OR REPLACE INTO boot_lowest VALUES (?, ?, ?, ?, ?)", (parent.key, _joined(paths), *row))


def _joined(paths: Iterable[str]) -> bytes:
    return "\0".join(sorted(set(paths))).encode("utf-8", "surrogateescape")


def _rows(found: Iterable[Row]) -> list[ReachedRow]:
    rows = []
    for *texts, leased, giving in found:
        key, purpose, container, consumer, namespace, snapshotter, parent, view, lease, old = (
            str(text) for text in texts
        )
        rows.append(
            ReachedRow(
                key,
                purpose,
                container,
                consumer,
                namespace,
                snapshotter,
                parent,
                view,
                lease,
                old,
                int(str(leased)),
                bool(giving),
            )
        )
    return rows
