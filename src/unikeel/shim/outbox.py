"""Events for containerd, kept until it has taken them.

An event is written in the transaction of the change that it tells of. Each containerd gets its events in the order in which they were written, which keeps the order
of each task: create, start, exit, delete.
"""

from __future__ import annotations

import sqlite3
import time
from typing import Final

from google.protobuf.message import Message

from unikeel.records.database import Database, Row
from unikeel.values import NamedTuple

_SCHEMA: Final = (
    """
    CREATE TABLE task_events (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        containerd TEXT NOT NULL,
        namespace TEXT NOT NULL,
        topic TEXT NOT NULL,
        type TEXT NOT NULL,
        body BLOB NOT NULL,
        when_ns INTEGER NOT NULL
    )
    """,
)
#: Events of one containerd that are kept; the oldest go first.
KEPT: Final = 4096


class Event(NamedTuple):
    """An event that waits to be taken."""

    number: int
    containerd: str
    namespace: str
    topic: str
    type: str
    body: bytes
    when_ns: int


def _event(row: Row) -> Event:
    return Event(*row)  # type: ignore[arg-type]  # the schema above types the columns; SQLite keeps to it


class Outbox:
    """The events of one record store."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.migrate("task_events", _SCHEMA)

    def add(self, cursor: sqlite3.Cursor, containerd: str, namespace: str, topic: str, body: Message) -> Event:
        """Write an event that has just happened."""
        when, name, data = time.time_ns(), body.DESCRIPTOR.full_name, body.SerializeToString()
        cursor.execute(
            "INSERT INTO task_events (containerd, namespace, topic, type, body, when_ns) VALUES (?, ?, ?, ?, ?, ?)",
            (containerd, namespace, topic, name, data, when),
        )
        return Event(int(cursor.lastrowid or 0), containerd, namespace, topic, name, data, when)

    def waiting(self) -> list[Event]:
        """All, the oldest first."""
        return [
            _event(row)
            for row in self._database.query(
                "SELECT number, containerd, namespace, topic, type, body, when_ns FROM task_events ORDER BY number"
            )
        ]

    def taken(self, cursor: sqlite3.Cursor, containerd: str, number: int) -> None:
        """A containerd has taken its events up to this one."""
        cursor.execute("DELETE FROM task_events WHERE containerd = ? AND number <= ?", (containerd, number))
