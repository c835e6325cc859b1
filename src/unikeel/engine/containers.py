"""The containers' records.

A change of state is one transaction that checks the state it starts from, so that two commands cannot both start a container; the
column ``owner`` names the process that works on it (:mod:`unikeel.records.owners`), so that nobody else touches it while that lives.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping

from unikeel.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted
from unikeel.lean import Final, sqlite3
from unikeel.model.states import ContainerState, check
from unikeel.records.database import Database, Row, Value
from unikeel.values import NamedTuple

_SCHEMA: Final = (
    """
    CREATE TABLE containers (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL,
        owner TEXT NOT NULL,
        created_ns INTEGER NOT NULL,
        image TEXT NOT NULL,
        image_digest TEXT NOT NULL,
        parent TEXT NOT NULL,
        settings TEXT NOT NULL,
        slot INTEGER NOT NULL UNIQUE,
        runs INTEGER NOT NULL DEFAULT 0,
        pid INTEGER NOT NULL DEFAULT 0,
        start_time INTEGER NOT NULL DEFAULT 0,
        boot_id TEXT NOT NULL DEFAULT '',
        started_ns INTEGER NOT NULL DEFAULT 0,
        finished_ns INTEGER NOT NULL DEFAULT 0,
        exit_code INTEGER,
        reason TEXT NOT NULL DEFAULT '',
        strategy TEXT NOT NULL DEFAULT '',
        auto_remove INTEGER NOT NULL DEFAULT 0
    )
    """,
)
_COLUMNS: Final = (
    "id, name, state, owner, created_ns, image, image_digest, parent, settings, slot, runs, pid, start_time, boot_id, "
    "started_ns, finished_ns, exit_code, reason, strategy, auto_remove"
)
_NAME: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_NAME_MAX: Final = 64


class Container(NamedTuple):
    """A container as recorded. Times are in nanoseconds since the epoch, 0 where there is none.

    ``slot`` is its number among the living ones, from which its user and addresses follow; ``settings`` is what it was created
    with; ``runs`` counts its starts; ``exit_code`` is of the last run.
    """

    id: str
    name: str
    state: ContainerState
    owner: str
    created_ns: int
    image: str
    image_digest: str
    parent: str
    settings: Mapping[str, object]
    slot: int
    runs: int
    pid: int
    start_time: int
    boot_id: str
    started_ns: int
    finished_ns: int
    exit_code: int | None
    reason: str
    strategy: str
    auto_remove: bool


class NewContainer(NamedTuple):
    """What the record of a container begins with."""

    name: str
    image: str
    image_digest: str
    parent: str
    settings: Mapping[str, object]
    auto_remove: bool


def check_name(name: str) -> None:
    """:raise InvalidArgument: a name is not 1 to 64 of letters, digits, ``_``, ``.`` and ``-``, beginning with a letter or digit."""
    if not 1 <= len(name) <= _NAME_MAX or not set(name) <= _NAME or not name[0].isalnum():
        raise InvalidArgument(
            f"{name!r} cannot be a container's name",
            f"use up to {_NAME_MAX} letters, digits, '_', '.', '-', beginning with a letter or digit",
        )


def _container(row: Row) -> Container:
    values: list[object] = list(row)
    values[2] = ContainerState(row[2])
    values[8] = json.loads(str(row[8]))
    values[19] = bool(row[19])
    return Container(*values)  # type: ignore[arg-type]  # the schema above types the columns; SQLite keeps to it


class Containers:
    """The records of one state root."""

    def __init__(self, database: Database, owner: str, slots: int) -> None:
        self._database = database
        self._owner = owner
        self._slots = slots
        database.migrate("containers", _SCHEMA)

    def add(self, new: NewContainer) -> Container:
        """Record a container that this process is about to make.

        :raise AlreadyExists: the name is taken. :raise ResourceExhausted: all slots are in use.
        """
        ident = os.urandom(6).hex()
        name = new.name or ident
        with self._database.write() as cursor:
            slot = self._free_slot(cursor)
            try:
                cursor.execute(
                    "INSERT INTO containers (id, name, state, owner, created_ns, image, image_digest, parent, settings, slot,"
                    " auto_remove) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        ident,
                        name,
                        ContainerState.CREATING.value,
                        self._owner,
                        time.time_ns(),
                        new.image,
                        new.image_digest,
                        new.parent,
                        json.dumps(new.settings, sort_keys=True),
                        slot,
                        int(new.auto_remove),
                    ),
                )
            except sqlite3.IntegrityError:
                raise AlreadyExists(
                    f"a container named {name} exists", f"choose another name, or `unikeel rm {name}`"
                ) from None
        return self.get(ident)

    def _free_slot(self, cursor: sqlite3.Cursor) -> int:
        row = cursor.execute(
            "SELECT MIN(n) FROM (SELECT 0 AS n UNION ALL SELECT slot + 1 FROM containers)"
            " WHERE n NOT IN (SELECT slot FROM containers)"
        ).fetchone()
        slot = int(row[0])
        if slot >= self._slots:
            raise ResourceExhausted(
                f"there are {self._slots} containers already", "remove some, or raise sandbox.uid_count"
            )
        return slot

    def get(self, reference: str) -> Container:
        """By id, name, or an unambiguous beginning of an id. :raise NotFound: none or several."""
        rows = self._database.query(
            f"SELECT {_COLUMNS} FROM containers WHERE id = ? OR name = ?",  # noqa: S608 - our own column names
            (reference, reference),
        )
        if not rows and len(reference) >= 2 and set(reference) <= set("0123456789abcdef"):
            rows = self._database.query(
                f"SELECT {_COLUMNS} FROM containers WHERE id LIKE ?",  # noqa: S608 - our own column names
                (reference + "%",),
            )
        if not rows:
            raise NotFound(f"no container {reference!r}", "`unikeel ps -a` shows them all")
        if len(rows) > 1:
            raise NotFound(f"{reference!r} is the beginning of several containers' ids", "give more of it")
        return _container(rows[0])

    def owned(self, token: str) -> list[Container]:
        """Those that an owner works on."""
        rows = self._database.query(f"SELECT {_COLUMNS} FROM containers WHERE owner = ?", (token,))  # noqa: S608 - as above
        return [_container(row) for row in rows]

    def list(self) -> list[Container]:
        """All, the oldest first."""
        rows = self._database.query(f"SELECT {_COLUMNS} FROM containers ORDER BY created_ns")  # noqa: S608 - as above
        return [_container(row) for row in rows]

    def move(self, container: Container, state: ContainerState, **changes: Value) -> Container:
        """Change the state, and other columns with it, if the container is still as the caller saw it.

        :raise FailedPrecondition: the change is not allowed from the state that it is in now. :raise NotFound: it is gone.
        """
        with self._database.write() as cursor:
            row = cursor.execute(
                f"SELECT {_COLUMNS} FROM containers WHERE id = ?",  # noqa: S608 - our own column names
                (container.id,),
            ).fetchone()
            if row is None:
                raise NotFound(f"container {container.name} is gone: another command removed it")
            check(container.name, _container(row).state, state)
            columns = {"state": state.value, **changes}
            assignments = ", ".join(f"{column} = ?" for column in columns)
            cursor.execute(
                f"UPDATE containers SET {assignments} WHERE id = ?",  # noqa: S608 - our own column names
                (*columns.values(), container.id),
            )
        return self.get(container.id)

    def update(self, ident: str, **changes: Value) -> None:
        """Change columns without a change of state."""
        assignments = ", ".join(f"{column} = ?" for column in changes)
        self._database.execute(
            f"UPDATE containers SET {assignments} WHERE id = ?",  # noqa: S608 - our own column names
            (*changes.values(), ident),
        )

    def delete(self, ident: str) -> None:
        """Forget a container, after everything else of it is gone."""
        self._database.execute("DELETE FROM containers WHERE id = ?", (ident,))
