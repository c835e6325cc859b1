"""Writing for many: whatever changes come while a transaction goes to the disk are made together in the next.

A change is a function of a cursor; each succeeds or fails by itself, and is on the disk when :meth:`Writer.write` returns. A transaction
costs a flush of the disk, which 32 starts at once then share instead of queueing for; one in which no change asks for that does without. There is no thread of
its own: whoever finds nobody writing writes for all who wait.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable

from unikeel.errors import Internal
from unikeel.lean import Any, Final, Generic, Lock, TypeVar, sqlite3
from unikeel.records.database import Database

T = TypeVar("T")
Change = Callable[[sqlite3.Cursor], T]

#: Changes in one transaction.
_TOGETHER: Final = 128


class _Slot(Generic[T]):
    """A change's place in the queue, and what has come of it. Whoever waits does so at the writer's turn."""

    __slots__ = ("change", "done", "flush", "problem", "result")

    def __init__(self, change: Change[T], *, flush: bool) -> None:
        self.change = change
        self.flush = flush
        self.done = False
        self.result: T | None = None
        self.problem: BaseException | None = None

    def settle(self, result: T | None, problem: BaseException | None) -> None:
        self.result, self.problem = result, problem
        self.done = True


class Writer:
    """Writes to one record store, until :meth:`close`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[_Slot[Any]] = deque()
        self._turn = Lock()
        self._closed = False

    def later(self, change: Change[object]) -> None:
        """Have a change made with the next one, or by :meth:`flush`: nobody waits for it, and to lose it does little harm."""
        self._waiting.append(_Slot(change, flush=False))

    @property
    def waiting(self) -> bool:
        """Whether there are changes that are not made."""
        return bool(self._waiting)

    def write(self, change: Change[T], *, flush: bool = True) -> T:
        """Make a change and wait until it is on the disk. Not from the event loop.

        :param flush: false: the end of the host may take it back, see :meth:`~unikeel.records.database.Database.write`. :raise Internal: the writer is closed.
        """
        if self._closed:
            raise Internal("a change came after the end")
        slot = _Slot(change, flush=flush)
        self._waiting.append(slot)
        while not slot.done:
            self.flush()
        if slot.problem is not None:
            raise slot.problem
        return slot.result  # type: ignore[return-value]  # it is what the change gave

    def flush(self) -> None:
        """Make what waits."""
        with self._turn:
            together: list[_Slot[Any]] = []
            while self._waiting and len(together) < _TOGETHER:
                together.append(self._waiting.popleft())
            if together:
                self._transaction(together)

    def close(self) -> None:
        """Make what waits, then end."""
        self._closed = True
        while self._waiting:
            self.flush()

    def _transaction(self, together: list[_Slot[Any]]) -> None:
        results: list[tuple[_Slot[Any], object, BaseException | None]] = []
        try:
            with self._database.write(flush=any(slot.flush for slot in together)) as cursor:
                alone = len(together) == 1
                results.extend((slot, *_made(cursor, slot.change, alone=alone)) for slot in together)
                if alone and results[0][2] is not None:
                    raise results[0][2]
        except BaseException as error:  # noqa: BLE001 - it is handed to whoever waits
            for slot in together:
                slot.settle(None, error)
            return
        for slot, result, problem in results:
            slot.settle(result, problem)


def _made(cursor: sqlite3.Cursor, change: Change[Any], *, alone: bool) -> tuple[object, BaseException | None]:
    """Make one change among others: if it fails, nothing of it stays."""
    try:
        if alone:
            return change(cursor), None
        cursor.execute("SAVEPOINT one")
        result = change(cursor)
    except BaseException as error:  # noqa: BLE001 - it is handed to whoever waits
        if not alone:
            with contextlib.suppress(sqlite3.Error):
                cursor.execute("ROLLBACK TO one")
                cursor.execute("RELEASE one")
        return None, error
    cursor.execute("RELEASE one")
    return result, None
