"""The record store: one SQLite file in write-ahead mode, shared by every unikeel process of a state root.

A write transaction has reached the disk when it returns, because records are written *before* the kernel objects that they describe. The flush is
our own, after the commit and outside of the turn, so that threads which write at the same time share one. What need only outlive this process,
not the host, is written without (``flush=False``), and is on the disk with whatever is flushed next: the log is flushed as a whole, in its order. Writers of
several processes queue for up to :data:`LOCK_SECONDS`.

Each component keeps its own tables and hands its schema to :meth:`Database.migrate`: a list of scripts, of which those
not yet applied run in one transaction. Scripts are never changed once released, only added.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from unikeel.errors import Internal, ResourceExhausted, Unavailable, UnikeelError
from unikeel.lean import TYPE_CHECKING, Final, Lock, RLock, sqlite3

if TYPE_CHECKING:
    from unikeel.records.writer import Writer

LOCK_SECONDS: Final = 30.0
#: What the log grows to, in bytes: SQLite copies it back after 1000 pages and begins anew at its start.
_LOG_SIZE: Final = 9 << 19

Value = str | int | float | bytes | None
Row = tuple[Value, ...]


def _translate(error: sqlite3.Error, path: str) -> UnikeelError:
    text = str(error)
    if "disk is full" in text or "disk I/O error" in text:
        return ResourceExhausted(f"the record store {path} cannot be written: {text}", "free space on its disk")
    if "locked" in text or "busy" in text:
        return Unavailable(
            f"the record store {path} stayed locked for {LOCK_SECONDS:.0f} s", "see which process holds it"
        )
    if "malformed" in text or "not a database" in text:
        return Internal(f"the record store {path} is damaged: {text}", "move it away; images must then be loaded again")
    return Internal(f"the record store {path}: {text}")


class Database:
    """One connection, usable from several threads of a process (they take turns).

    :param path: the file; it is created with mode 0600 if missing, its directory must exist.
    :raise Unavailable: the file stays locked or cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._turn = RLock()
        self._closed = False
        self._writer: Writer | None = None
        #: The write-ahead log, for flushing; its number of commits, and how many of them are on the disk.
        self._log = -1
        self._commits = 0
        self._flushed = 0
        self._flushing = Lock()
        if not os.path.exists(path):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            self._connection = sqlite3.connect(
                path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise _translate(error, path) from error
        try:
            self._use_write_ahead()
            self._connection.execute("PRAGMA synchronous=NORMAL")  # it flushes at checkpoints, and we after commits
            self._connection.execute("PRAGMA foreign_keys=ON")
            self._schemas = self._read_schemas()
        except sqlite3.Error as error:
            self._connection.close()
            raise _translate(error, path) from error

    def _use_write_ahead(self) -> None:
        """Switch a new store to write-ahead mode, once: SQLite does not wait for others that do the same (SQLITE_BUSY at once)."""
        if self._connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            return
        directory = os.open(os.path.dirname(self.path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            self._connection.execute("PRAGMA journal_mode=WAL")
        finally:
            os.close(directory)

    def _read_schemas(self) -> dict[str, int]:
        try:
            rows = self._connection.execute("SELECT component, version FROM schema_versions").fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            return {}
        return {str(name): int(version) for name, version in rows}

    def migrate(self, component: str, scripts: Sequence[str]) -> None:
        """Bring a component's tables up to date; ``scripts[n]`` leads from version n to n + 1.

        :raise Internal: the store was written by a later version of unikeel.
        """
        have = self._schemas.get(component, 0)
        if have == len(scripts):
            return
        if have > len(scripts):
            raise Internal(
                f"the record store {self.path} was written by a later version of unikeel ({component} {have})",
                "use that version, or another --root",
            )
        with self.write() as cursor:
            cursor.execute(
                "CREATE TABLE IF NOT EXISTS schema_versions (component TEXT PRIMARY KEY, version INTEGER NOT NULL)"
            )
            row = cursor.execute("SELECT version FROM schema_versions WHERE component = ?", (component,)).fetchone()
            for script in scripts[int(row[0]) if row else 0 :]:
                for statement in script.split(";"):
                    if statement.strip():
                        cursor.execute(statement)
            cursor.execute("INSERT OR REPLACE INTO schema_versions VALUES (?, ?)", (component, len(scripts)))
        self._schemas[component] = len(scripts)

    @contextmanager
    def write(self, *, flush: bool = True) -> Iterator[sqlite3.Cursor]:
        """A write transaction: committed and on disk when the block ends, rolled back if it raises.

        :param flush: false: committed, so that the death of any process leaves it; on disk, for the host's end, with the next that is flushed.
        :raise ResourceExhausted: the disk is full. :raise Unavailable: another process kept the store locked.
        """
        with self._turn:
            if self._closed:
                raise Internal(f"the record store {self.path} was used after it was closed")
            try:
                cursor = self._connection.cursor()
                cursor.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                raise _translate(error, self.path) from error
            try:
                yield cursor
                cursor.execute("COMMIT")
                self._commits += 1
            except sqlite3.IntegrityError:
                self._rollback(cursor)
                raise
            except sqlite3.Error as error:
                self._rollback(cursor)
                raise _translate(error, self.path) from error
            except BaseException:
                self._rollback(cursor)
                raise
        if flush:
            self.flush()

    def flush(self) -> None:
        """Have everything on the disk that was committed before. :raise ResourceExhausted: the disk does not take it."""
        wanted = self._commits
        with self._flushing:
            if self._flushed >= wanted or self._closed:
                return  # somebody else's flush began after our commit
            committed = self._commits
            try:
                os.fdatasync(self._opened_log())
            except OSError as error:
                raise self._unwritten(error) from error
            self._flushed = committed

    def reserve_log(self) -> None:
        """Have the log as long as it gets, in blocks that are written: a flush then is no matter of the file system's journal, which takes three to four times
        as long on slow processors. For processes that stay: the log goes with the last that uses the store.

        SQLite reads a log up to the first frame that is none, and nobody else adds any within this transaction.

        :raise ResourceExhausted: the disk does not take it.
        """
        with self.write(), self._flushing:
            try:
                log = self._opened_log()
                size = os.fstat(log).st_size
                while size < _LOG_SIZE:
                    size += os.pwrite(log, bytes(_LOG_SIZE - size), size)
                os.fsync(log)
            except OSError as error:
                raise self._unwritten(error) from error

    def _opened_log(self) -> int:
        if self._log < 0:
            self._log = os.open(f"{self.path}-wal", os.O_RDWR | os.O_CLOEXEC)
        return self._log

    def _unwritten(self, error: OSError) -> ResourceExhausted:
        return ResourceExhausted(
            f"the record store {self.path} cannot be written: {error.strerror}", "see what its disk does"
        )

    def _rollback(self, cursor: sqlite3.Cursor) -> None:
        if self._connection.in_transaction:
            cursor.execute("ROLLBACK")

    def writer(self) -> Writer:
        """The writer that all share who may wait for each other's changes: those that come at once are one transaction."""
        with self._turn:
            if self._writer is None:
                from unikeel.records.writer import Writer

                self._writer = Writer(self)
            return self._writer

    def query(self, sql: str, parameters: Sequence[Value] = ()) -> list[Row]:
        """All rows of a SELECT."""
        with self._turn:
            if self._closed:
                raise Internal(f"the record store {self.path} was used after it was closed")
            try:
                return self._connection.execute(sql, parameters).fetchall()
            except sqlite3.Error as error:
                raise _translate(error, self.path) from error

    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> int:
        """One statement in a write transaction of its own; returns the number of rows it changed."""
        with self.write() as cursor:
            return cursor.execute(sql, parameters).rowcount

    def close(self) -> None:
        """Close the connection; further use raises :class:`Internal`. Closing twice is fine."""
        with self._turn, self._flushing:
            if not self._closed:
                self._closed = True
                self._connection.close()
                if self._log >= 0:
                    os.close(self._log)
                    self._log = -1
