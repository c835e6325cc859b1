"""Intents: what a process is about to make outside of its own memory, written down first.

``begin`` stores the intent durably and returns its number; the work follows; ``done`` takes it away. An intent whose owner is
dead is half-done work: :meth:`Intents.abandoned` lists those, newest first, for the reconciler of their kind to undo (or to
finish) before :meth:`Intents.done`. An intent may be handed to nobody else; what lasts (a container, a held view) has a
record of its own and the intent ends when that record is written, in the same transaction.
"""

from __future__ import annotations

import json

from unikeel.lean import sqlite3
from unikeel.records.database import Database
from unikeel.records.owners import Owner
from unikeel.values import NamedTuple

_SCHEMA = (
    """
    CREATE TABLE intents (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        owner TEXT NOT NULL,
        kind TEXT NOT NULL,
        subject TEXT NOT NULL,
        detail TEXT NOT NULL
    )
    """,
)


class Intent(NamedTuple):
    """Half-done or ongoing work: its kind (``container.start``), what it is about, and what undoing it needs."""

    number: int
    owner: str
    kind: str
    subject: str
    detail: dict[str, str]


class Intents:
    """The intents of one state root, as one owner sees them."""

    def __init__(self, database: Database, owner: Owner) -> None:
        self._database = database
        self._owner = owner
        database.migrate("intents", _SCHEMA)

    def begin(self, kind: str, subject: str, **detail: str) -> int:
        """Write an intent down; it is on disk when this returns."""
        with self._database.write() as cursor:
            return self.begin_in(cursor, kind, subject, **detail)

    def begin_in(self, cursor: sqlite3.Cursor, kind: str, subject: str, **detail: str) -> int:
        """The same, as part of a caller's transaction."""
        cursor.execute(
            "INSERT INTO intents (owner, kind, subject, detail) VALUES (?, ?, ?, ?)",
            (self._owner.token, kind, subject, json.dumps(detail, sort_keys=True)),
        )
        number = cursor.lastrowid
        return int(number) if number is not None else 0

    def done(self, number: int) -> None:
        """The work is finished or undone: forget it."""
        self._database.execute("DELETE FROM intents WHERE number = ?", (number,))

    def done_in(self, cursor: sqlite3.Cursor, number: int) -> None:
        """The same, as part of a caller's transaction."""
        cursor.execute("DELETE FROM intents WHERE number = ?", (number,))

    def abandoned(self) -> list[Intent]:
        """Intents whose owner is dead, the newest first (undo in the reverse of making)."""
        rows = self._database.query("SELECT number, owner, kind, subject, detail FROM intents ORDER BY number DESC")
        left = [row for row in rows if self._owner.is_dead(str(row[1]))]
        if left:  # an owner may have done its work, and ended well, after they were read
            there = {row[0] for row in self._database.query("SELECT number FROM intents")}
            left = [row for row in left if row[0] in there]
        return [
            Intent(int(str(number)), str(owner), str(kind), str(subject), json.loads(str(detail)))
            for number, owner, kind, subject, detail in left
        ]
