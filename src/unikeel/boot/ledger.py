"""The boot package's records: parents, cache objects and where they came from, users, views, copies.

A *user* is a container that was handed boot files of a parent by a strategy. While its row is there, nothing that serves it is
taken away. Rows are written before the descriptors are handed out, so that they outlive whoever wrote them; what is flushed to the disk, and when, says
:meth:`Ledger.use`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence

from unikeel.boot.contract import Parent
from unikeel.boot.policy import Kept
from unikeel.lean import Final, sqlite3
from unikeel.records.database import Database, Row, Value
from unikeel.values import NamedTuple

_SCHEMA: Final = (
    """
    CREATE TABLE boot_parents (key TEXT PRIMARY KEY, name TEXT NOT NULL, last_used_ns INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE boot_objects (
        digest TEXT PRIMARY KEY, size INTEGER NOT NULL, last_used_ns INTEGER NOT NULL, verified TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE boot_entries (
        key TEXT NOT NULL, path BLOB NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (key, path)
    ) WITHOUT ROWID;
    CREATE INDEX boot_entries_digest ON boot_entries (digest);
    CREATE TABLE boot_users (
        container TEXT NOT NULL, strategy TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (container, strategy, key)
    ) WITHOUT ROWID;
    CREATE TABLE boot_views (
        container TEXT NOT NULL, key TEXT NOT NULL, view TEXT NOT NULL, source TEXT NOT NULL, PRIMARY KEY (container, key)
    ) WITHOUT ROWID;
    CREATE TABLE boot_copies (
        container TEXT PRIMARY KEY, key TEXT NOT NULL, boot TEXT NOT NULL, complete INTEGER NOT NULL, paths BLOB NOT NULL
    ) WITHOUT ROWID
    """,
    """
    ALTER TABLE boot_parents ADD COLUMN consumer TEXT NOT NULL DEFAULT 'engine';
    ALTER TABLE boot_parents ADD COLUMN namespace TEXT NOT NULL DEFAULT '';
    ALTER TABLE boot_parents ADD COLUMN snapshotter TEXT NOT NULL DEFAULT 'file';
    CREATE TABLE boot_reached (
        parent_key TEXT NOT NULL, purpose TEXT NOT NULL, container TEXT NOT NULL, consumer TEXT NOT NULL, namespace TEXT NOT NULL,
        snapshotter TEXT NOT NULL, parent TEXT NOT NULL, view TEXT NOT NULL, lease TEXT NOT NULL, old_lease TEXT NOT NULL,
        leased_ns INTEGER NOT NULL, giving INTEGER NOT NULL, PRIMARY KEY (parent_key, purpose, container)
    ) WITHOUT ROWID;
    CREATE TABLE boot_lowest (
        parent_key TEXT NOT NULL, paths BLOB NOT NULL, name TEXT NOT NULL, created_ns INTEGER NOT NULL, how TEXT NOT NULL,
        PRIMARY KEY (parent_key, paths)
    ) WITHOUT ROWID;
    CREATE TABLE boot_instance (id TEXT PRIMARY KEY) WITHOUT ROWID;
    INSERT INTO boot_instance VALUES (lower(hex(randomblob(8))))
    """,
)

_KEPT: Final = """
    SELECT o.digest, o.size, o.last_used_ns, EXISTS (
        SELECT 1 FROM boot_entries e JOIN boot_users u ON u.key = e.key AND u.strategy = 'cache' WHERE e.digest = o.digest
    ) FROM boot_objects o ORDER BY o.last_used_ns
"""

_ENTRIES: Final = """
    SELECT e.path, o.digest, o.size, o.verified FROM boot_entries e JOIN boot_objects o ON o.digest = e.digest WHERE e.key = ?
"""


class Entry(NamedTuple):
    """A file of a parent in the cache; ``verified`` is the boot of the host in which its bytes were last hashed.

    Until its digest is known, ``digest`` is its provisional name, and ``verified`` names the process that computes it.
    """

    path: str
    digest: str
    size: int
    verified: str


class User(NamedTuple):
    """A container, the strategy that serves it, the parent's key."""

    container: str
    strategy: str
    key: str


class CopyRow(NamedTuple):
    """A per-container copy: of which parent, in which boot of the host it was made, whether all is there."""

    container: str
    key: str
    boot: str
    complete: bool
    paths: frozenset[str]


class ViewRow(NamedTuple):
    """A per-container view snapshot, and what to mount of it (JSON of its mounts)."""

    container: str
    key: str
    view: str
    source: str


class ParentRow(NamedTuple):
    """What is remembered of a parent."""

    name: str
    last_used_ns: int
    consumer: str
    namespace: str
    snapshotter: str


class _TakenBack(Exception):
    """Ends a transaction that is to leave nothing."""


class Ledger:
    """The tables, over the record store. Methods ending in ``_in`` are part of a caller's transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database
        database.migrate("boot", _SCHEMA)

    # -- parents and users ------------------------------------------------------------------------------------------

    def use_in(self, cursor: sqlite3.Cursor, container: str, strategy: str, parent: Parent) -> None:
        """Record a user, and a new parent's name.

        Each page that is written here is one more for the disk to take: a warm acquire writes two (this one, and the time of last use), which is why
        the small table of users has no further index.
        """
        cursor.execute("INSERT OR IGNORE INTO boot_users VALUES (?, ?, ?)", (container, strategy, parent.key))
        self._know_in(cursor, parent, time.time_ns())

    def _know_in(self, cursor: sqlite3.Cursor, parent: Parent, now: int) -> None:
        row = (parent.key, parent.name, now, parent.consumer, parent.namespace, parent.snapshotter)
        cursor.execute("INSERT OR IGNORE INTO boot_parents VALUES (?, ?, ?, ?, ?, ?)", row)

    def rehearse(self) -> None:
        """Run what a warm acquire runs, and take it back: its statements are compiled then, and the pages that it changes at hand.

        Nothing is written. Saves a tenth of a millisecond of the acquire that follows.
        """
        nobody = Parent("", "", "", "", 0, "", trusted=False)
        with contextlib.suppress(_TakenBack), self.database.write() as cursor:
            self.entries_in(cursor, "")
            self.touch_in(cursor, ("",))
            self._use_now_in(cursor, "", "", nobody)
            raise _TakenBack

    def use(self, container: str, strategy: str, parent: Parent) -> None:
        """The same in a transaction of its own, and that the parent was used now.

        Not flushed, here as in every acquire: a user need not outlive the host, whose end is the end of all guests, too. Whatever is recorded and flushed
        next (that the container runs, what a request is answered) takes it along to the disk.
        """
        with self.database.write(flush=False) as cursor:
            self._use_now_in(cursor, container, strategy, parent)

    def _use_now_in(self, cursor: sqlite3.Cursor, container: str, strategy: str, parent: Parent) -> None:
        self.use_in(cursor, container, strategy, parent)
        cursor.execute("UPDATE boot_parents SET last_used_ns = ? WHERE key = ?", (time.time_ns(), parent.key))

    def leave(self, container: str, strategy: str) -> None:
        """:meth:`leave_in` in a transaction of its own; not flushed, as :meth:`use`."""
        with self.database.write(flush=False) as cursor:
            self.leave_in(cursor, container, strategy)

    def leave_in(self, cursor: sqlite3.Cursor, container: str, strategy: str) -> int:
        """The container no longer uses the strategy; how many rows that were."""
        return cursor.execute(
            "DELETE FROM boot_users WHERE container = ? AND strategy = ?", (container, strategy)
        ).rowcount

    def users(self) -> list[User]:
        """All users."""
        rows = self.database.query("SELECT container, strategy, key FROM boot_users ORDER BY 1, 2, 3")
        return [User(str(container), str(strategy), str(key)) for container, strategy, key in rows]

    def keys_of(self, container: str, strategy: str) -> list[str]:
        """The parents that a container uses by a strategy."""
        sql = "SELECT key FROM boot_users WHERE container = ? AND strategy = ?"
        return [str(row[0]) for row in self.database.query(sql, (container, strategy))]

    def users_of(self, strategy: str, key: str) -> list[str]:
        """The containers that use a parent by a strategy."""
        rows = self.database.query("SELECT container FROM boot_users WHERE strategy = ? AND key = ?", (strategy, key))
        return [str(row[0]) for row in rows]

    def parents(self) -> dict[str, ParentRow]:
        """All parents, by key."""
        rows = self.database.query("SELECT key, name, last_used_ns, consumer, namespace, snapshotter FROM boot_parents")
        return {
            str(key): ParentRow(str(name), int(str(used)), str(consumer), str(namespace), str(snapshotter))
            for key, name, used, consumer, namespace, snapshotter in rows
        }

    def containers(self) -> dict[str, set[str]]:
        """Every container that some record names, with the consumers of the parents it uses."""
        sql = """
            SELECT DISTINCT u.container, coalesce(p.consumer, 'engine') FROM (
                SELECT container, key FROM boot_users UNION SELECT container, key FROM boot_views
                UNION SELECT container, key FROM boot_copies
            ) u LEFT JOIN boot_parents p ON p.key = u.key
        """
        found: dict[str, set[str]] = {}
        for container, consumer in self.database.query(sql):
            found.setdefault(str(container), set()).add(str(consumer))
        return found

    def forget_parents_in(self, cursor: sqlite3.Cursor) -> None:
        """Forget the parents of which nothing is kept and that nobody uses."""
        for table in ("boot_parents", "boot_lowest"):
            column = "key" if table == "boot_parents" else "parent_key"
            cursor.execute(
                f"DELETE FROM {table} WHERE {column} NOT IN (SELECT key FROM boot_users UNION SELECT key FROM boot_entries"  # noqa: S608
                " UNION SELECT key FROM boot_views UNION SELECT key FROM boot_copies UNION SELECT parent_key FROM boot_reached)"
            )

    # -- cache ------------------------------------------------------------------------------------------------------

    def entries_in(self, cursor: sqlite3.Cursor, key: str) -> dict[str, Entry]:
        """What the cache has of a parent, by path."""
        return _entries(cursor.execute(_ENTRIES, (key,)).fetchall())

    def entries(self, key: str) -> dict[str, Entry]:
        """The same, outside of a transaction."""
        return _entries(self.database.query(_ENTRIES, (key,)))

    def touch_in(self, cursor: sqlite3.Cursor, digests: Iterable[str]) -> None:
        """These objects were used now."""
        now = time.time_ns()
        cursor.executemany(
            "UPDATE boot_objects SET last_used_ns = ? WHERE digest = ?", [(now, digest) for digest in digests]
        )

    def add_in(self, cursor: sqlite3.Cursor, parent: Parent, entry: Entry) -> None:
        """A file of a parent is in the cache, its bytes hashed just now."""
        now = time.time_ns()
        cursor.execute(
            "INSERT INTO boot_objects VALUES (?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE SET"
            " last_used_ns = excluded.last_used_ns, verified = excluded.verified",
            (entry.digest, entry.size, now, entry.verified),
        )
        cursor.execute(
            "INSERT OR REPLACE INTO boot_entries VALUES (?, ?, ?)", (parent.key, _to_bytes(entry.path), entry.digest)
        )
        self._know_in(cursor, parent, now)

    def settle_in(self, cursor: sqlite3.Cursor, provisional: str, digest: str, boot: str) -> bool:
        """The digest of an object is known now: what pointed to its provisional name points to that; False if nothing does any more."""
        row = cursor.execute("SELECT size, last_used_ns FROM boot_objects WHERE digest = ?", (provisional,)).fetchone()
        if row is None:
            return False
        cursor.execute(
            "INSERT INTO boot_objects VALUES (?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE SET"
            " last_used_ns = max(last_used_ns, excluded.last_used_ns), verified = excluded.verified",
            (digest, row[0], row[1], boot),
        )
        cursor.execute("UPDATE boot_entries SET digest = ? WHERE digest = ?", (digest, provisional))
        cursor.execute("DELETE FROM boot_objects WHERE digest = ?", (provisional,))
        return True

    def verified_in(self, cursor: sqlite3.Cursor, digest: str, boot: str) -> None:
        """An object's bytes were found right in this boot of the host."""
        cursor.execute("UPDATE boot_objects SET verified = ? WHERE digest = ?", (boot, digest))

    def remove_in(self, cursor: sqlite3.Cursor, digest: str) -> None:
        """An object is gone, and with it what pointed to it."""
        cursor.execute("DELETE FROM boot_entries WHERE digest = ?", (digest,))
        cursor.execute("DELETE FROM boot_objects WHERE digest = ?", (digest,))

    def kept_in(self, cursor: sqlite3.Cursor) -> list[Kept]:
        """All objects, for the choice of victims."""
        return [Kept(row[0], row[1], row[2], bool(row[3])) for row in cursor.execute(_KEPT).fetchall()]

    def kept(self) -> list[Kept]:
        """The same, outside of a transaction."""
        rows = self.database.query(_KEPT)
        return [Kept(str(digest), int(str(size)), int(str(ns)), bool(used)) for digest, size, ns, used in rows]

    def size_in(self, cursor: sqlite3.Cursor) -> int:
        """Bytes of all objects."""
        return int(cursor.execute("SELECT coalesce(sum(size), 0) FROM boot_objects").fetchone()[0])

    def object_parents(self) -> dict[str, list[str]]:
        """Digest → keys of the parents it came from."""
        found: dict[str, list[str]] = {}
        for digest, key in self.database.query("SELECT DISTINCT digest, key FROM boot_entries ORDER BY 1, 2"):
            found.setdefault(str(digest), []).append(str(key))
        return found

    # -- views and copies -------------------------------------------------------------------------------------------

    def views(self, container: str | None = None) -> list[ViewRow]:
        """View snapshots, of one container or of all."""
        rows = self.database.query(
            "SELECT container, key, view, source FROM boot_views WHERE ?1 IS NULL OR container = ?1", (container,)
        )
        return [ViewRow(str(owner), str(key), str(view), str(source)) for owner, key, view, source in rows]

    def add_view_in(self, cursor: sqlite3.Cursor, row: ViewRow) -> None:
        """A view snapshot is there."""
        cursor.execute(
            "INSERT OR REPLACE INTO boot_views VALUES (?, ?, ?, ?)", (row.container, row.key, row.view, row.source)
        )

    def remove_view_in(self, cursor: sqlite3.Cursor, row: ViewRow) -> None:
        """A view snapshot is gone."""
        cursor.execute("DELETE FROM boot_views WHERE container = ? AND key = ?", (row.container, row.key))

    def copies(self, container: str | None = None) -> list[CopyRow]:
        """Per-container copies, of one container or of all."""
        rows = self.database.query(
            "SELECT container, key, boot, complete, paths FROM boot_copies WHERE ?1 IS NULL OR container = ?1",
            (container,),
        )
        return [
            CopyRow(str(owner), str(key), str(boot), bool(complete), frozenset(_to_text(paths).split("\0")))
            for owner, key, boot, complete, paths in rows
        ]

    def put_copy_in(self, cursor: sqlite3.Cursor, row: CopyRow, parent: Parent | None = None) -> None:
        """A copy is being made, or is there (``complete``); of a parent that may be new."""
        if parent is not None:
            self._know_in(cursor, parent, time.time_ns())
        cursor.execute(
            "INSERT OR REPLACE INTO boot_copies VALUES (?, ?, ?, ?, ?)",
            (row.container, row.key, row.boot, int(row.complete), _to_bytes("\0".join(sorted(row.paths)))),
        )

    def remove_copy_in(self, cursor: sqlite3.Cursor, container: str) -> None:
        """A copy is gone."""
        cursor.execute("DELETE FROM boot_copies WHERE container = ?", (container,))


def _to_bytes(path: str) -> bytes:
    """A path as the kernel has it: names in images need not be text, and the record store's text must be."""
    return path.encode("utf-8", "surrogateescape")


def _to_text(value: Value) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _entries(rows: Iterable[Row]) -> dict[str, Entry]:
    found = [Entry(_to_text(path), str(digest), int(str(size)), str(verified)) for path, digest, size, verified in rows]
    return {entry.path: entry for entry in found}


def names(parents: dict[str, ParentRow], keys: Sequence[str]) -> tuple[str, ...]:
    """The names of parents by their keys; an unknown one keeps its key."""
    return tuple(parents[key].name if key in parents else key for key in keys)
