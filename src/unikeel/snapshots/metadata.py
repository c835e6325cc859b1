"""The records of a snapshot store: names, kinds, parents, labels, times, ids and usage, in the state root's database.

A record is written (state ``creating``, with its owner) before the file or device that it describes is made, and becomes
``ready`` after; only ready records are seen through the contract, but a creating one already occupies its name and keeps its
parent from being removed. Removing a record moves its id to the trash in the same transaction. Ids are never used twice.

Changes that come while a transaction goes to the disk share the next one (:class:`~unikeel.records.writer.Writer`): many calls at once wait for few flushes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from unikeel.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from unikeel.lean import Final, sqlite3
from unikeel.records.database import Database
from unikeel.snapshots import spare_records
from unikeel.snapshots.contract import How, Info, Kind, Usage
from unikeel.snapshots.naming import check_name, encode_labels, relabelled
from unikeel.snapshots.rows import BASES, SCHEMA, SELECT, Clone, Record, finish, insert, record_of, trash

_PAGE: Final = 256


def prepare_tables(database: Database) -> None:
    """Make the tables of snapshots, or bring them up to date. :raise Internal: a later version wrote them."""
    database.migrate("snapshots", SCHEMA)


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
        self._writer = database.writer()

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
                f"{SELECT} WHERE s.store = ? AND s.consumer = ? AND s.name = ?", (self._store, self._consumer, name)
            )
        except UnicodeEncodeError:  # what is not Unicode text names nothing
            return None
        return record_of(rows[0]) if rows else None

    def begin(
        self,
        name: str,
        parent: str,
        kind: Kind,
        labels: Mapping[str, str],
        *,
        base: Record | None = None,
        clone: Clone | None = None,
        flush: bool = True,
    ) -> Record:
        """Write down that a snapshot is about to be made. It is ready at once if nothing needs to be made: a view of a parent or of ``base``, and an active
        snapshot that there is a spare or a clone for.

        :param base: what the store makes snapshots without a parent from, if it has such a thing.
        :param clone: content for it; not used if there is a spare, or if the parent is another one by now.
        :param flush: false: the announcement outlives this process, but perhaps not the host, until :meth:`flush` or any change after it. That does where what is
            made is known for garbage without it.
        :raise AlreadyExists: the name is taken. :raise NotFound: no such parent.
        :raise InvalidArgument: the parent is not committed, or the name or a label is malformed.
        """
        encoded = encode_labels(labels)

        def change(cursor: sqlite3.Cursor) -> Record:
            above = self._parent_for(name, parent)
            origin = base if above is None else above
            now = time.time_ns()
            info = Info(name, parent, kind, now, now, dict(labels))
            above_id = above.id if above else None
            in_place = kind is Kind.VIEW and origin is not None
            how = How.PARENT if in_place else How.EMPTY
            size = origin.virtual_size if origin else 0
            record = Record(0, info, above_id, in_place, self._owner, how, size, Usage(0, 0), 0, self._consumer)
            if kind is Kind.ACTIVE and origin is not None:
                claimed = spare_records.claim(cursor, origin.id, record, encoded)
                if claimed is not None:
                    return claimed
                if clone is not None and clone.origin == origin.id:
                    named = record._replace(ready=True, how=How.REFLINK)
                    named = insert(cursor, self._store, named, encoded, clone.boot)
                    clone.give_name(named.id)
                    return named
            return insert(cursor, self._store, record, encoded)

        return self._writer.write(change, flush=flush)

    def spares(self) -> spare_records.SpareRecords:
        """The records of this store's spares."""
        return spare_records.SpareRecords(self._database, store=self._store, owner=self._owner)

    def has_spare(self, origin: int) -> bool:
        """Whether there is a spare made from the committed record of this id, just now."""
        return bool(self._database.query("SELECT 1 FROM snapshot_spares WHERE origin = ? LIMIT 1", (origin,)))

    def sought(self, parent: str) -> Record | None:
        """The committed record of this name, which may be gone by the time that it is wanted; None: there is none."""
        record = self._named(parent) if parent else None
        return record if record is not None and record.ready and record.info.kind is Kind.COMMITTED else None

    def flush(self) -> None:
        """Have on the disk whatever was written so far."""
        self._database.flush()

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

    def finish(self, record: Record, how: How, virtual_size: int, used: Usage, *, mapped: int = 0) -> None:
        """What :meth:`begin` announced is there. :raise NotFound: the record was taken away meanwhile (its owner counted as dead)."""
        self._writer.write(lambda cursor: finish(cursor, record, how, virtual_size, used, mapped=mapped))

    def unfinish(self, record: Record) -> None:
        """Undo :meth:`finish`, if it was done: what goes with the content failed."""
        self._writer.write(
            lambda cursor: cursor.execute(
                "UPDATE snapshots SET state = 'creating' WHERE id = ? AND state = 'ready'", (record.id,)
            )
        )

    def abandon(self, record: Record) -> None:
        """What :meth:`begin` announced is not going to be. Its file or device is gone already."""
        self._writer.write(
            lambda cursor: cursor.execute("DELETE FROM snapshots WHERE id = ? AND state = 'creating'", (record.id,))
        )

    def abandon_to_trash(self, record: Record) -> None:
        """As :meth:`abandon`, while somebody still holds the file or device."""

        def change(cursor: sqlite3.Cursor) -> None:
            cursor.execute("DELETE FROM snapshots WHERE id = ? AND state = 'creating'", (record.id,))
            if cursor.rowcount == 1:
                trash(cursor, self._store, record.id)

        self._writer.write(change)

    def is_unfinished(self, number: int) -> bool:
        """Whether a snapshot of this id is being made."""
        return bool(self._database.query("SELECT 1 FROM snapshots WHERE id = ? AND state = 'creating'", (number,)))

    def commit(
        self,
        name: str,
        record: Record,
        labels: Mapping[str, str],
        used: Usage,
        seal: Callable[[], None],
        *,
        mapped: int = 0,
    ) -> None:
        """Turn an active record into a committed one; ``seal`` runs inside of the transaction, before anybody can see it.

        :raise AlreadyExists: the name is taken. :raise NotFound: the key is gone.
        """
        encoded = encode_labels(labels)

        def change(cursor: sqlite3.Cursor) -> None:
            self.check_free(name)
            now = max(time.time_ns(), record.info.updated_ns + 1)
            cursor.execute(
                "UPDATE snapshots SET name = ?, kind = ?, labels = ?, created_ns = ?, updated_ns = ?, used_size = ?,"
                " used_inodes = ?, mapped = ?, unflushed = '' WHERE id = ? AND kind = ? AND state = 'ready'",
                (
                    *(name, Kind.COMMITTED.value, encoded, now, now, used.size, used.inodes, mapped),
                    *(record.id, Kind.ACTIVE.value),
                ),
            )
            if cursor.rowcount != 1:
                raise NotFound(f"snapshot {record.info.name!r} does not exist")
            seal()

        self._writer.write(change)

    def replace(self, record: Record, made: Record, used: Usage, mapped: int) -> None:
        """Commit by a copy: ``made``, announced as committed by :meth:`begin`, is there and takes the place of the active ``record``, which goes to the trash.

        :raise NotFound: one of them is gone.
        """

        def change(cursor: sqlite3.Cursor) -> None:
            finish(cursor, made, How.SNAPSHOT, record.virtual_size, used, mapped=mapped)
            trash(cursor, self._store, record.id)
            cursor.execute(
                "DELETE FROM snapshots WHERE id = ? AND kind = ? AND state = 'ready'", (record.id, Kind.ACTIVE.value)
            )
            if cursor.rowcount != 1:
                raise NotFound(f"snapshot {record.info.name!r} does not exist")

        self._writer.write(change)

    def update(self, name: str, labels: Mapping[str, str], fieldpaths: Iterable[str]) -> Info:
        """As the contract's ``update``."""
        paths = list(fieldpaths)

        def change(cursor: sqlite3.Cursor) -> Info:
            record = self.find(name)
            changed = relabelled(record.info.labels, labels, paths)
            encoded = encode_labels(changed)
            now = max(time.time_ns(), record.info.updated_ns + 1)
            cursor.execute("UPDATE snapshots SET labels = ?, updated_ns = ? WHERE id = ?", (encoded, now, record.id))
            return record.info._replace(updated_ns=now, labels=changed)

        return self._writer.write(change)

    def discard(self, name: str) -> Record:
        """Move a record to the trash. :raise NotFound: no such name. :raise FailedPrecondition: it has children."""

        def change(cursor: sqlite3.Cursor) -> Record:
            record = self.find(name)
            if cursor.execute("SELECT 1 FROM snapshots WHERE parent = ? LIMIT 1", (record.id,)).fetchone():
                (children,) = cursor.execute("SELECT count(*) FROM snapshots WHERE parent = ?", (record.id,)).fetchone()
                raise FailedPrecondition(
                    f"cannot remove snapshot {name!r}: {children} snapshots are made on it", "remove those first"
                )
            self._discard(cursor, record)
            return record

        return self._writer.write(change)

    def _discard(self, cursor: sqlite3.Cursor, record: Record) -> None:
        """To the trash, and with a parent the spares that were made from it."""
        spare_records.drop_those_of(cursor, self._store, record.id)
        if record.how is not How.PARENT:
            trash(cursor, self._store, record.id)
        cursor.execute("DELETE FROM snapshots WHERE id = ?", (record.id,))

    def page(self, after: int) -> list[Record]:
        """The next ready records of this consumer in order of their ids, from past ``after``; empty at the end."""
        rows = self._database.query(
            f"{SELECT} WHERE s.store = ? AND s.consumer = ? AND s.id > ? AND s.state = 'ready' ORDER BY s.id LIMIT ?",
            (self._store, self._consumer, after, _PAGE),
        )
        return [record_of(row) for row in rows]

    # --- the whole store, for reconciling -----------------------------------------------------------------------------

    def creating(self) -> list[Record]:
        """Records of all consumers that are being made, the newest first."""
        rows = self._database.query(
            f"{SELECT} WHERE s.store = ? AND s.state = 'creating' ORDER BY s.id DESC", (self._store,)
        )
        return [record_of(row) for row in rows]

    def abandoned(self, is_dead: Callable[[str], bool]) -> list[Record]:
        """Those of them whose owners are dead. Each is looked at again once that is known: its owner may have finished it, and ended well, after it was read."""
        return [record for record in self.creating() if is_dead(record.owner) and self.is_unfinished(record.id)]

    def still_active(self, record: Record, then: Callable[[], None]) -> None:
        """Run ``then`` while nobody can commit or remove, if the record still is what it was; otherwise do nothing."""

        def change(_cursor: sqlite3.Cursor) -> None:
            now = self._named(record.info.name)
            if now is not None and now.id == record.id and now.info.kind is Kind.ACTIVE:
                then()

        self._writer.write(change)

    def lost_with_host(self, boot: str) -> list[Record]:
        """Active records of all consumers whose clones may have gone with the host's power: made in another boot than this, and not flushed."""
        rows = self._database.query(
            f"{SELECT} WHERE s.store = ? AND s.unflushed NOT IN ('', ?) AND s.kind = 'active' AND s.state = 'ready'",
            (self._store, boot),
        )
        return [record_of(row) for row in rows]

    def while_active(self, number: int, then: Callable[[], None]) -> None:
        """As :meth:`still_active`, by the id, of any consumer."""

        def change(cursor: sqlite3.Cursor) -> None:
            query = "SELECT 1 FROM snapshots WHERE id = ? AND kind = 'active' AND state = 'ready'"
            if cursor.execute(query, (number,)).fetchone():
                then()

        self._writer.write(change)

    def on_disk(self, ids: Iterable[int]) -> None:
        """The content of these ids is on the disk."""
        there = [(number,) for number in ids]
        self._writer.write(lambda cursor: cursor.executemany("UPDATE snapshots SET unflushed = '' WHERE id = ?", there))

    def if_nameless(self, ids: Iterable[int], then: Callable[[set[int]], None]) -> int:
        """Run ``then`` with those of these ids that have no content by the records, while nobody gives any of them content; how many those are.

        Content can be given its name within the transaction that writes its record (:class:`~unikeel.snapshots.rows.Clone`): so others must not be in one.
        """

        def change(_cursor: sqlite3.Cursor) -> int:
            nameless = set(ids) - self.ids_with_content()
            if nameless:
                then(nameless)
            return len(nameless)

        return self._writer.write(change)

    def ids_with_content(self) -> set[int]:
        """All ids that have, or are being given, content of their own, or are in the trash, of all consumers."""
        rows = self._database.query(
            "SELECT id FROM snapshots WHERE store = ? AND how != ? UNION SELECT id FROM snapshot_trash WHERE store = ?",
            (self._store, How.PARENT.value, self._store),
        )
        return {int(str(row[0])) for row in rows}

    def trash(self, after: int = 0) -> list[int]:
        """Some ids, the next ones past ``after``, whose content is to be taken away, of all consumers; empty if there are none."""
        rows = self._database.query(
            "SELECT id FROM snapshot_trash WHERE store = ? AND id > ? ORDER BY id LIMIT ?", (self._store, after, _PAGE)
        )
        return [int(str(row[0])) for row in rows]

    def forget(self, ids: Iterable[int]) -> None:
        """The content of these ids is gone: drop them from the trash."""
        gone = [(number,) for number in ids]
        self._writer.write(lambda cursor: cursor.executemany("DELETE FROM snapshot_trash WHERE id = ?", gone))

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

    def without_views(self) -> set[int]:
        """Ids of all consumers' committed records that nobody has a view of."""
        rows = self._database.query(
            "SELECT s.id FROM snapshots s WHERE s.store = ? AND s.consumer != ? AND s.kind = 'committed' AND s.state = 'ready'"
            " AND NOT EXISTS (SELECT 1 FROM snapshots v WHERE v.parent = s.id AND v.kind = 'view')",
            (self._store, BASES),
        )
        return {int(str(row[0])) for row in rows}

    def mark(self) -> str:
        """The random number that ties these records to the place of their content; empty if not tied yet."""
        rows = self._database.query("SELECT mark FROM snapshot_stores WHERE store = ?", (self._store,))
        return str(rows[0][0]) if rows else ""

    def tie(self, make: Callable[[], str]) -> str:
        """Tie the records to a place: ``make`` marks it with a random number and returns that. Done once; later calls return it."""

        def change(cursor: sqlite3.Cursor) -> str:
            known = self.mark()
            if known:
                return known
            made = make()
            cursor.execute("INSERT INTO snapshot_stores (store, mark) VALUES (?, ?)", (self._store, made))
            return made

        return self._writer.write(change)
