"""All snapshots in a record store, of every store and consumer, for people to look at; and forgetting those of a store that is gone.

Consumers whose names begin with ``@`` are a store's own (bases, spares): nobody's to list, but counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

from unikeel.lean import Final
from unikeel.records.database import Database, Row
from unikeel.snapshots.contract import How, Info, Kind, Usage
from unikeel.snapshots.metadata import prepare_tables
from unikeel.values import NamedTuple

#: How the consumers begin that are a store's own.
OWN: Final = "@"
_COLUMNS: Final = (
    "s.store, s.consumer, s.id, s.name, p.name, s.parent, s.kind, s.state, s.owner, s.created_ns, s.updated_ns, s.labels,"
    " s.how, s.virtual_size, s.used_size, s.used_inodes, s.unflushed"
)
_SELECT: Final = f"SELECT {_COLUMNS} FROM snapshots s LEFT JOIN snapshots p ON p.id = s.parent"  # noqa: S608 (constants)
_PAGE: Final = 1024


class Entry(NamedTuple):
    """A snapshot, whose it is, and what its record says of its content.

    :ivar used: what it had when it was committed. :ivar unflushed: in which boot of the host its content was made, if that is not known to be on the disk.
    """

    store: str
    consumer: str
    id: int
    parent_id: int | None
    info: Info
    ready: bool
    owner: str
    how: How
    virtual_size: int
    used: Usage
    unflushed: str = ""


class Counts(NamedTuple):
    """How many records a store has of each sort; ``consumers`` are those with names of their own."""

    committed: int = 0
    active: int = 0
    views: int = 0
    spares: int = 0
    bases: int = 0
    unfinished: int = 0
    removed: int = 0
    consumers: tuple[str, ...] = ()


class Catalog:
    """Looks at a record store's snapshots."""

    def __init__(self, database: Database) -> None:
        self._database = database
        prepare_tables(database)

    def entries(self, *, name: str = "", store: str = "", consumer: str = "", own: bool = False) -> Iterator[Entry]:
        """Snapshots in the order in which they were prepared; empty: any. In pages: nothing is locked between them.

        :param own: also the stores' own, and those that are being made.
        """
        wanted = [("s.name", name), ("s.store", store), ("s.consumer", consumer)]
        given = [(column, value) for column, value in wanted if value]
        where = " AND ".join(
            ["s.id > ?", *(f"{column} = ?" for column, _ in given), *([] if own else [_PUBLIC])],
        )
        after = 0
        while True:
            rows = self._database.query(
                f"{_SELECT} WHERE {where} ORDER BY s.id LIMIT {_PAGE}", (after, *(value for _, value in given))
            )
            if not rows:
                return
            for row in rows:
                found = _entry(row)
                yield found
                after = found.id

    def counts(self, store: str) -> Counts:
        """How many there are in a store."""
        rows = self._database.query(
            "SELECT consumer, kind, state, count(*) FROM snapshots WHERE store = ? GROUP BY consumer, kind, state",
            (store,),
        )
        sums = dict.fromkeys(("committed", "active", "view", "spares", "bases", "unfinished"), 0)
        for consumer, kind, state, number in rows:
            sums[_sort(str(consumer), str(kind), str(state))] += int(str(number))
        removed = self._database.query("SELECT count(*) FROM snapshot_trash WHERE store = ?", (store,))
        consumers = {str(row[0]) for row in rows if not str(row[0]).startswith(OWN)}
        return Counts(
            sums["committed"],
            sums["active"],
            sums["view"],
            sums["spares"],
            sums["bases"],
            sums["unfinished"],
            int(str(removed[0][0])),
            tuple(sorted(consumers)),
        )

    def mark(self, store: str) -> str:
        """What ties the records to the place of their content; empty if nothing does."""
        rows = self._database.query("SELECT mark FROM snapshot_stores WHERE store = ?", (store,))
        return str(rows[0][0]) if rows else ""

    def trash(self, store: str) -> set[int]:
        """Ids whose content is to be taken away."""
        return {
            int(str(row[0])) for row in self._database.query("SELECT id FROM snapshot_trash WHERE store = ?", (store,))
        }

    def tie(self, store: str, mark: str) -> None:
        """Have the records of a store belong to the place with this mark."""
        self._database.execute("INSERT OR REPLACE INTO snapshot_stores (store, mark) VALUES (?, ?)", (store, mark))

    def forget_ids(self, store: str, ids: Iterable[int]) -> None:
        """Drop records whose content is gone, children before their parents."""
        with self._database.write() as cursor:
            cursor.executemany("DELETE FROM snapshots WHERE store = ? AND id = ?", [(store, number) for number in ids])

    def forget(self, store: str) -> None:
        """Drop all records of a store whose content is gone, or is just about to go."""
        with self._database.write() as cursor:
            for table in ("snapshots", "snapshot_trash", "snapshot_stores"):
                cursor.execute(f"DELETE FROM {table} WHERE store = ?", (store,))  # noqa: S608 (constants)


_PUBLIC: Final = "s.state = 'ready' AND substr(s.consumer, 1, 1) != '@'"


def _sort(consumer: str, kind: str, state: str) -> str:
    if state != "ready":
        return "unfinished"
    if consumer.startswith(OWN):
        return "bases" if consumer == "@base" else "spares"
    return kind


def _entry(row: Row) -> Entry:
    (
        store,
        consumer,
        number,
        name,
        parent,
        above,
        kind,
        state,
        owner,
        created,
        updated,
        labels,
        how,
        size,
        used,
        inodes,
        unflushed,
    ) = row
    loaded: Mapping[str, str] = json.loads(str(labels))
    return Entry(
        store=str(store),
        consumer=str(consumer),
        id=int(str(number)),
        parent_id=None if above is None else int(str(above)),
        info=Info(
            name=str(name),
            parent="" if parent is None else str(parent),
            kind=Kind(kind),
            created_ns=int(str(created)),
            updated_ns=int(str(updated)),
            labels=loaded,
        ),
        ready=state == "ready",
        owner=str(owner),
        how=How(str(how)),
        virtual_size=int(str(size)),
        used=Usage(int(str(used)), int(str(inodes))),
        unflushed=str(unflushed),
    )
