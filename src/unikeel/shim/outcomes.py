"""What was answered to requests that change something, so that a request that comes again gets its answer and acts once.

A request is known by its connection and stream, which the keeper keeps over the daemon's death. An outcome is written in the transaction of the change that
it tells of, and goes with its connection: containerd never asks again on another one.
"""

from __future__ import annotations

import sqlite3
import time
from typing import Final

from unikeel.errors import UnikeelError, mapping, of_rpc
from unikeel.records.database import Database
from unikeel.values import NamedTuple

_SCHEMA: Final = (
    """
    CREATE TABLE outcomes (
        connection TEXT NOT NULL,
        stream INTEGER NOT NULL,
        when_ns INTEGER NOT NULL,
        code INTEGER NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (connection, stream)
    ) WITHOUT ROWID
    """,
)
_LONGEST_SENTENCE: Final = 4096
#: Outcomes of connections that nobody closed to us are forgotten after this time.
_KEPT_NS: Final = 3600 * 1_000_000_000


class Asked(NamedTuple):
    """A request, as the keeper tells it again: its connection and stream."""

    connection: int
    stream: int


class Outcomes:
    """The outcomes in one record store."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.migrate("outcomes", _SCHEMA)

    def find(self, asked: Asked) -> bytes | None:
        """The answer's bytes, if there was one. :raise UnikeelError: the answer was an error."""
        rows = self._database.query(
            "SELECT code, body FROM outcomes WHERE connection = ? AND stream = ?", (str(asked.connection), asked.stream)
        )
        if not rows:
            return None
        code, body = int(str(rows[0][0])), rows[0][1]
        data = body if isinstance(body, bytes) else b""
        if code:
            raise of_rpc(code, data.decode(errors="replace"))
        return data

    def store(self, cursor: sqlite3.Cursor, asked: Asked, body: bytes, code: int = 0) -> None:
        """Note what is answered to a request."""
        cursor.execute(
            "INSERT OR REPLACE INTO outcomes (connection, stream, when_ns, code, body) VALUES (?, ?, ?, ?, ?)",
            (str(asked.connection), asked.stream, time.time_ns(), code, body),
        )

    def store_error(self, cursor: sqlite3.Cursor, asked: Asked, error: UnikeelError) -> None:
        """Note that a request was answered with an error."""
        sentence = str(error)[:_LONGEST_SENTENCE].encode(errors="replace")
        self.store(cursor, asked, sentence, mapping(error).rpc)

    def forget(self, cursor: sqlite3.Cursor, connection: int) -> None:
        """A connection has ended."""
        cursor.execute("DELETE FROM outcomes WHERE connection = ?", (str(connection),))

    def prune(self, cursor: sqlite3.Cursor) -> None:
        """Forget what is so old that nobody can ask any more."""
        cursor.execute("DELETE FROM outcomes WHERE when_ns < ?", (time.time_ns() - _KEPT_NS,))
