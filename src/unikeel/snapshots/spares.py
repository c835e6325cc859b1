"""Snapshots made ahead for parents in demand: giving one a name is all that a Prepare then has to do.

A thread tops them up, one at a time and while the store is idle, within a budget. They are given back when nobody has asked for their parent for a
while, when room is getting scarce, and with their parent, which they never keep from being removed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

from unikeel.errors import NotFound, UnikeelError
from unikeel.lean import Final, Protocol
from unikeel.records.failpoint import failpoint
from unikeel.snapshots.contract import How
from unikeel.snapshots.idle import Idleness
from unikeel.snapshots.rows import Record
from unikeel.snapshots.spare_records import SpareRecords
from unikeel.values import NamedTuple

_log = logging.getLogger("unikeel.snapshots")
#: How often the thread looks for spares that nobody wants any more, in seconds.
_LOOK: Final = 60.0


class SpareLimits(NamedTuple):
    """How many spares there may be.

    :ivar per_parent: for one parent; there are as many as there were Prepares lately, up to this. :ivar total: in the store.
    :ivar seconds: how long a parent counts as in demand after the last Prepare on it.
    """

    per_parent: int = 8
    total: int = 32
    seconds: float = 3600.0


#: Spares that others made are used all the same.
NO_SPARES: Final = SpareLimits(0, 0, 0.0)


class SpareContent(Protocol):
    """How a back end makes a spare and takes it away.

    :ivar point: how the names of its fail points begin.
    """

    @property
    def point(self) -> str: ...

    def make(self, record: Record, origin: int) -> How:
        """Make the content of an announced spare from what the committed record of this id has; how it was made."""

    def is_there(self, number: int) -> bool:
        """Whether a spare's content is ready to be shown."""

    def undo(self, record: Record) -> None:
        """Take away what was half made: first the content, then the record that tells of it."""

    def cleanup(self) -> int:
        """Take away the content of what is in the trash; how many those were."""

    def errors(self, doing: str) -> AbstractContextManager[None]:
        """Turns what the system answers into our errors; ``doing`` completes "cannot …"."""


class Spares:
    """The spares of one store, kept by this process.

    :param scarce: whether the store is getting full, so that spares are given back and none are made.
    """

    def __init__(
        self,
        records: SpareRecords,
        content: SpareContent,
        limits: SpareLimits,
        scarce: Callable[[], bool],
    ) -> None:
        self._records = records
        self._content = content
        self._limits = limits
        self._scarce = scarce
        self._demand: dict[int, list[float]] = {}
        self._seen: set[int] = set()
        self._idleness = Idleness()
        #: Something is wanted; the thread waits for that.
        self._changed = False
        self._waiting = False
        self._closing = False
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None

    # --- what the store says ------------------------------------------------------------------------------------------------

    def calling(self) -> AbstractContextManager[None]:
        """A call of the store is being answered."""
        return self._idleness.calling()

    def asked_for(self, origin: int) -> None:
        """Somebody prepared a snapshot on the committed record of this id, and others may."""
        if self._limits.total <= 0:
            return
        now = time.monotonic()
        with self._news:
            times = self._demand.setdefault(origin, [])
            self._seen.add(origin)
            self._changed = True
            times.append(now)
            del times[: -self._limits.per_parent]
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._work, name="spares", daemon=True)
                self._thread.start()
            if self._waiting:
                self._news.notify_all()

    def close(self) -> None:
        """End the thread; spares stay. Closing twice is fine."""
        with self._news:
            self._closing = True
            self._news.notify_all()
        if self._thread is not None:
            self._thread.join()

    # --- making and giving back ---------------------------------------------------------------------------------------------

    def make(self, origin: int) -> Record:
        """Make one spare. :raise NotFound: there is no committed snapshot of this id any more."""
        record = self._records.begin(origin)
        failpoint(f"{self._content.point}.spare.recorded")
        try:
            with self._content.errors("make a spare snapshot"):
                self._records.finish(record, origin, self._content.make(record, origin))
        except BaseException:
            with suppress(UnikeelError, OSError):
                self._content.undo(record)
            raise
        failpoint(f"{self._content.point}.spare.done")
        return record

    def give_back(self, numbers: list[int] | None = None) -> int:
        """Give spares back, all if not told which; returns how many. Their content goes with the next cleanup."""
        return self._records.drop(list(self._records.all()) if numbers is None else numbers)

    def drop_resting(self) -> int:
        """Give those back whose content is not ready, such as devices after a reboot; returns how many."""
        resting = [number for number in self._records.all() if not self._content.is_there(number)]
        return self._records.drop(resting) if resting else 0

    # --- the thread ---------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        busy = True
        while self._goes_on(busy=busy):
            try:
                busy = self._step()
            except (UnikeelError, OSError) as error:
                _log.warning("no spare snapshots for now: %s", error)
                busy = False

    def _goes_on(self, *, busy: bool) -> bool:
        """Wait until there is something to do, and then until the store is idle; False at the end."""
        with self._news:
            if not busy:
                self._waiting = True
                self._news.wait_for(lambda: self._closing or self._changed, _LOOK)
                self._waiting = False
            self._changed = False
            since = time.monotonic()
            while not self._closing and (seconds := self._idleness.put_off(since)):
                self._news.wait(seconds)
            return not self._closing

    def _step(self) -> bool:
        """Make one spare that is wanted, or give back what is not; whether there may be more to do."""
        have = self._records.all()
        if self._scarce():
            if have:
                self._give_back_and_clean(list(have))
            return False
        wanted = self._wanted(have)
        unwanted = [number for number, origin in have.items() if origin not in wanted]
        if unwanted:
            self._give_back_and_clean(unwanted)
            return True
        origin = self._next(wanted, list(have.values()))
        if origin is None:
            return False
        try:
            self.make(origin)
        except NotFound:
            with self._news:
                self._demand.pop(origin, None)
        return True

    def _give_back_and_clean(self, numbers: list[int]) -> None:
        if self.give_back(numbers):
            self._content.cleanup()

    def _wanted(self, have: dict[int, int]) -> dict[int, int]:
        """How many spares each parent in demand should have, the latest asked for first. Whose spares are found for the first time was asked for by somebody
        else, as before a restart."""
        limit = time.monotonic() - self._limits.seconds
        found = set(have.values())
        with self._news:
            for origin in found - self._seen:
                self._demand.setdefault(origin, []).append(time.monotonic())
            self._seen |= found
            recent = {origin: [at for at in times if at > limit] for origin, times in self._demand.items()}
            self._demand = {origin: times for origin, times in recent.items() if times}
            order = sorted(self._demand.items(), key=lambda item: -item[1][-1])
        return {origin: len(times) for origin, times in order}

    def _next(self, wanted: dict[int, int], have: list[int]) -> int | None:
        """The parent that the next spare is for."""
        if len(have) >= self._limits.total:
            return None
        lacking = (origin for origin, count in wanted.items() if have.count(origin) < count)
        return next(lacking, None)
