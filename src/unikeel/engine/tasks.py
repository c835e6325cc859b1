"""The records of tasks: what containerd has asked for, and how far that is.

All changes are made inside a transaction of the caller (:class:`unikeel.records.writer.Writer` puts many into one), because what is answered,
told as an event and recorded must come to the disk together. Nothing here is for two processes at once: the daemon alone changes tasks; commands read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache

from unikeel.errors import AlreadyExists, NotFound, ResourceExhausted
from unikeel.lean import Any, Final, sqlite3
from unikeel.model.task_states import TaskState, check
from unikeel.records.database import Database, Row, Value
from unikeel.values import NamedTuple

_SCHEMA: Final = (
    """
    CREATE TABLE tasks (
        ident TEXT PRIMARY KEY,
        containerd TEXT NOT NULL,
        namespace TEXT NOT NULL,
        id TEXT NOT NULL,
        state TEXT NOT NULL,
        created_ns INTEGER NOT NULL,
        ttrpc TEXT NOT NULL,
        request TEXT NOT NULL,
        settings TEXT NOT NULL,
        slot INTEGER NOT NULL UNIQUE,
        pid INTEGER NOT NULL DEFAULT 0,
        start_time INTEGER NOT NULL DEFAULT 0,
        boot_id TEXT NOT NULL DEFAULT '',
        cgroups TEXT NOT NULL DEFAULT '{}',
        started_ns INTEGER NOT NULL DEFAULT 0,
        finished_ns INTEGER NOT NULL DEFAULT 0,
        exit_code INTEGER NOT NULL DEFAULT 0,
        ended_by INTEGER NOT NULL DEFAULT 0,
        reason TEXT NOT NULL DEFAULT '',
        strategy TEXT NOT NULL DEFAULT ''
    );
    CREATE TABLE containerds (
        address TEXT NOT NULL,
        namespace TEXT NOT NULL,
        ttrpc TEXT NOT NULL,
        PRIMARY KEY (address, namespace)
    )
    """,
)
_NAMES: Final = (
    "ident, containerd, namespace, id, state, created_ns, ttrpc, request, settings, slot, pid, start_time, boot_id, cgroups, "
    "started_ns, finished_ns, exit_code, ended_by, reason, strategy"
)
#: What a column is changed to; an object becomes JSON.
Column = Value | dict[str, Any]
_SELECT: Final = f"SELECT {_NAMES} FROM tasks"  # noqa: S608 - our own column names
_JSON: Final = (7, 8, 13)
#: No id that containerd accepts is longer than 76 letters.
_USUAL: Final = 128


class Task(NamedTuple):
    """A task as recorded. Times are in nanoseconds since the epoch, 0 where there is none.

    ``request`` is what Create was asked for (bundle, streams, root file system); ``settings`` what was made of it. ``cgroups`` are directories by
    controller. ``ended_by`` is the signal that we sent to end it, since QEMU's status does not tell.
    """

    ident: str
    containerd: str
    namespace: str
    id: str
    state: TaskState
    created_ns: int
    ttrpc: str
    request: Mapping[str, object]
    settings: Mapping[str, object]
    slot: int
    pid: int = 0
    start_time: int = 0
    boot_id: str = ""
    cgroups: Mapping[str, str] = {}
    started_ns: int = 0
    finished_ns: int = 0
    exit_code: int = 0
    ended_by: int = 0
    reason: str = ""
    strategy: str = ""

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.id

    def asked(self, name: str) -> str:
        """A text of the request."""
        return str(self.request.get(name, ""))

    @property
    def is_early(self) -> bool:
        """Whether its monitor goes when it is created, its guest halted, so that it is ready by the time of Start."""
        return self.settings.get("early") is True

    @property
    def halts(self) -> bool:
        """Whether its monitor has the guest halted until it is told otherwise (by QMP). Of earlier records, all."""
        return self.settings.get("halts") is not False

    @property
    def image(self) -> str:
        """The name of its image, where containerd knows one."""
        return str(self.settings.get("image", ""))

    @property
    def terminal(self) -> bool:
        """Whether its streams are a terminal."""
        return self.request.get("terminal") is True


def identify(containerd: str, namespace: str, ident: str) -> str:
    """The name of a task with us: of its monitor, its sandbox, its directory."""
    return (_identified if len(ident) < _USUAL else _hashed)(containerd, namespace, ident)


def _hashed(containerd: str, namespace: str, ident: str) -> str:
    return hashlib.sha256(f"{containerd}\0{namespace}\0{ident}".encode("utf-8", "surrogateescape")).hexdigest()[:24]


#: Each request names its task.
_identified: Final = lru_cache(1024)(_hashed)


@lru_cache(64)
def _short(containerd: str, namespace: str) -> str:
    return hashlib.sha256(f"{containerd}\0{namespace}".encode("utf-8", "surrogateescape")).hexdigest()[:16]


class Place(NamedTuple):
    """Whose tasks they are: a containerd, by its gRPC address, and a namespace."""

    containerd: str
    namespace: str

    @property
    def short(self) -> str:
        """A short name, for a socket."""
        return _short(self.containerd, self.namespace)


def _task(row: Row) -> Task:
    values: list[object] = list(row)
    values[4] = TaskState(row[4])
    for index in _JSON:
        values[index] = json.loads(str(row[index]))
    return Task(*values)  # type: ignore[arg-type]  # the schema above types the columns; SQLite keeps to it


class Tasks:
    """The records of tasks of one state root."""

    def __init__(self, database: Database, slots: int) -> None:
        self._database = database
        self._slots = slots
        database.migrate("tasks", _SCHEMA)

    def all(self) -> list[Task]:
        """All, the oldest first."""
        return [_task(row) for row in self._database.query(f"{_SELECT} ORDER BY created_ns")]

    def find(self, reference: str) -> list[Task]:
        """Those with this id, in whatever namespace, or with this name of ours."""
        return [
            _task(row) for row in self._database.query(f"{_SELECT} WHERE id = ? OR ident = ?", (reference, reference))
        ]

    def add(self, cursor: sqlite3.Cursor, task: Task) -> Task:
        """Record a task that is about to be made, with a slot of its own. :raise AlreadyExists: there is one of this id."""
        slot = self._free_slot(cursor)
        try:
            cursor.execute(
                "INSERT INTO tasks (ident, containerd, namespace, id, state, created_ns, ttrpc, request, settings, slot)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    task.ident,
                    task.containerd,
                    task.namespace,
                    task.id,
                    task.state.value,
                    task.created_ns,
                    task.ttrpc,
                    json.dumps(task.request),
                    json.dumps(task.settings),
                    slot,
                ),
            )
        except sqlite3.IntegrityError:
            raise AlreadyExists(f"task {task.id} exists in namespace {task.namespace}") from None
        return task._replace(slot=slot)

    def _free_slot(self, cursor: sqlite3.Cursor) -> int:
        """From above, while containers of the engine take theirs from below; one that neither has."""
        top = self._slots - 1
        row = cursor.execute(
            "SELECT MAX(n) FROM (SELECT ? AS n UNION ALL SELECT slot - 1 FROM tasks)"
            " WHERE n NOT IN (SELECT slot FROM tasks)",
            (top,),
        ).fetchone()
        slot = int(row[0]) if row[0] is not None else -1
        try:
            taken = cursor.execute("SELECT 1 FROM containers WHERE slot >= ?", (slot,)).fetchone()
        except sqlite3.OperationalError:
            taken = None  # the engine was never used here
        if slot < 0 or taken:
            raise ResourceExhausted(
                f"there are {self._slots} containers and tasks already", "remove some, or raise sandbox.uid_count"
            )
        return slot

    def update(self, cursor: sqlite3.Cursor, task: Task, state: TaskState | None = None, **changes: Column) -> Task:
        """Change a task as the caller has it. The task as it is then.

        :raise FailedPrecondition: the state may not follow. :raise NotFound: the task is gone.
        """
        values = [json.dumps(value) if isinstance(value, dict) else value for value in changes.values()]
        names = ", ".join(f"{name} = ?" for name in changes)
        replaced: dict[str, Any] = dict(changes)
        if state is not None:
            check(task.id, task.state, state)
            names += ", state = ?" if names else "state = ?"
            values.append(state.value)
            replaced["state"] = state
        cursor.execute(
            f"UPDATE tasks SET {names} WHERE ident = ? AND state = ?",  # noqa: S608 - our own column names
            (*values, task.ident, task.state.value),
        )
        if cursor.rowcount != 1:
            raise NotFound(f"task {task.id} is gone or has changed meanwhile")
        return task._replace(**replaced)

    def note_signal(self, cursor: sqlite3.Cursor, task: Task, number: int) -> None:
        """Note the signal that is about to end a task, in whatever state it is."""
        cursor.execute("UPDATE tasks SET ended_by = ? WHERE ident = ?", (number, task.ident))

    def delete(self, cursor: sqlite3.Cursor, task: Task) -> None:
        """Forget a task."""
        cursor.execute("DELETE FROM tasks WHERE ident = ?", (task.ident,))

    # -- containerds -----------------------------------------------------------------------------------------------

    def places(self) -> dict[Place, str]:
        """The places that tasks were made for, and where each containerd takes events."""
        rows = self._database.query("SELECT address, namespace, ttrpc FROM containerds")
        return {Place(str(address), str(namespace)): str(ttrpc) for address, namespace, ttrpc in rows}

    def remember(self, cursor: sqlite3.Cursor, place: Place, ttrpc: str) -> None:
        """Note a place, and where its containerd takes events now."""
        cursor.execute(
            "INSERT OR REPLACE INTO containerds (address, namespace, ttrpc) VALUES (?, ?, ?)", (*place, ttrpc)
        )


def recorded(database: Database) -> list[Task]:
    """All tasks, the oldest first, for whoever only reads; none where there never was a daemon."""
    if not database.query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'tasks'"):
        return []
    return [_task(row) for row in database.query(f"{_SELECT} ORDER BY created_ns")]


def idents(database: Database) -> set[str]:
    """Our names of all tasks; none where there never was a daemon."""
    return {task.ident for task in recorded(database)}
