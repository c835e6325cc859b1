"""The strategy ``view``: one view snapshot per container, mounted on its own: the plain idea that the evaluation answers.

The view snapshot stays until the container is removed and serves its restarts; the mount is made for each acquire and lives as long
as the files opened in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from unikeel.boot import flight
from unikeel.boot.contract import INTENT_VIEW, OWN, Choice, Freed, HostMount, Opened, Reach, Source, Timeline, Wanted
from unikeel.boot.ledger import Ledger, ViewRow
from unikeel.boot.mounted import Mounter, open_all
from unikeel.boot.reaching import reach
from unikeel.boot.spans import span
from unikeel.errors import Unavailable
from unikeel.kernel import locks
from unikeel.lean import Final
from unikeel.records.failpoint import failpoint
from unikeel.records.intents import Intent, Intents

NAME: Final = Choice.VIEW.value


class ContainerViews:
    """Views of committed snapshots, one per container."""

    def __init__(
        self,
        way: Reach,
        ledger: Ledger,
        intents: Intents,
        mounter: Mounter,
        *,
        locks: str,
        seconds: float,
    ) -> None:
        self._way = way
        self._ledger = ledger
        self._intents = intents
        self._mounter = mounter
        self._locks = locks
        self._seconds = seconds

    def open(self, source: Source, wanted: Sequence[Wanted], timeline: Timeline, *, keep: bool) -> Opened:
        """See :class:`~unikeel.boot.contract.Strategy`. The view is made and kept also when the files are only read."""
        del keep
        row = self._row(source)
        if row is not None:
            try:
                return self._open(row, source, wanted, timeline, hit=True)
            except Unavailable:
                self._forget(row)  # somebody took the view away; it is made again
        return self._open(self._make_once(source, timeline), source, wanted, timeline, hit=False)

    def _open(self, row: ViewRow, source: Source, wanted: Sequence[Wanted], timeline: Timeline, *, hit: bool) -> Opened:
        host = mounts_of(row)
        with span(timeline, "boot.view.mount", view=row.view):
            mount = self._mounter.mount(host)
        with mount:
            remake = lambda namespace: self._mounter.mount(host, namespace)  # noqa: E731 - too short for a name
            return Opened(open_all(mount, wanted, source.monitor_uid, remake), hit, [])

    def _row(self, source: Source) -> ViewRow | None:
        rows = self._ledger.views(source.container)
        return next((row for row in rows if row.key == source.parent.key), None)

    def _forget(self, row: ViewRow) -> None:
        with self._ledger.database.write() as cursor:
            self._ledger.remove_view_in(cursor, row)

    def _make_once(self, source: Source, timeline: Timeline) -> ViewRow:
        def work() -> ViewRow:
            return self._row(source) or self._make(source, timeline)

        path = self._lock(source.container)
        with span(timeline, "boot.view.snapshot", parent=source.parent.name):
            return flight.once(path, self._seconds, f"a view of {source.parent.name}", work, lambda _row: None)

    def _lock(self, container: str) -> str:
        import hashlib

        name = hashlib.sha256(container.encode("utf-8", "surrogateescape")).hexdigest()
        return os.path.join(self._locks, f"{name}.container-view")

    def _make(self, source: Source, timeline: Timeline) -> ViewRow:
        parent, container = source.parent, source.container
        number = 0 if self._way.records else self._intend(source)
        failpoint("boot.view.intent")
        try:
            reached = reach(self._way, parent, OWN, container, timeline)
        except BaseException:
            if number:
                self._intents.done(number)
            raise
        failpoint("boot.view.made")
        row = ViewRow(container, parent.key, reached.view, json.dumps(reached.mounts))
        with self._ledger.database.write() as cursor:
            self._ledger.add_view_in(cursor, row)
            self._ledger.use_in(cursor, container, NAME, parent)
            if number:
                self._intents.done_in(cursor, number)
        failpoint("boot.view.recorded")
        return row

    def _intend(self, source: Source) -> int:
        parent = source.parent
        return self._intents.begin(INTENT_VIEW, source.container, key=parent.key, consumer=parent.consumer)

    def release(self, container: str) -> None:
        """See :class:`~unikeel.boot.contract.Strategy`. The record goes last, so that a kill leaves nothing unnamed."""
        for row in self._ledger.views(container):
            self._way.give_back(row.key, OWN, container)
            failpoint("boot.view.removed")
            with self._ledger.database.write() as cursor:
                self._ledger.remove_view_in(cursor, row)
                self._ledger.leave_in(cursor, container, NAME)
            locks.forget(self._lock(container))

    def undo(self, intent: Intent) -> list[Freed]:
        """A process died between the intent and the record: the view goes, if it was made."""
        key = intent.detail.get("key", "")
        if not key or any(row.key == key for row in self._ledger.views(intent.subject)):
            return []
        self._way.give_back(key, OWN, intent.subject)
        return [Freed(NAME, intent.subject, 0)]


def mounts_of(row: ViewRow) -> tuple[HostMount, ...]:
    """What a row says is to be mounted. (Rows of the first version hold the path of an ext4 image.)"""
    if row.source.startswith("/"):
        return (HostMount("ext4", row.source),)
    return tuple(HostMount(fstype, source, tuple(options)) for fstype, source, options in json.loads(row.source))
