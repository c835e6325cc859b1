"""The strategy ``shared-view``: one mount per committed parent, used by all its containers.

The mount is detached; what keeps it from one command to the next is the holder (the keeper), under ``view:<key>``. Without a
holder each process mounts for itself. Users are rows; when the last one has left, :meth:`SharedViews.drop_idle` takes the view away, or
:meth:`SharedViews.tick` some time later, or the holder's idle time. A snapshot that was made for it is given back last of all, when nobody has
anything open in it any more: devmapper removes by force.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from unikeel.boot import flight
from unikeel.boot.contract import (
    INTENT_MOUNT,
    SHARED,
    Choice,
    Freed,
    Opened,
    Parent,
    Reach,
    Source,
    Timeline,
    ViewHolder,
    Wanted,
)
from unikeel.boot.ledger import Ledger
from unikeel.boot.mounted import Mounter, open_all
from unikeel.boot.reached import ReachedRows
from unikeel.boot.reaching import reach
from unikeel.boot.spans import span
from unikeel.errors import Unavailable, UnikeelError
from unikeel.kernel import locks
from unikeel.kernel.fd import OwnedFd
from unikeel.lean import Final
from unikeel.records.failpoint import failpoint
from unikeel.records.intents import Intent, Intents

NAME: Final = Choice.SHARED_VIEW.value
PREFIX: Final = "view:"
#: How long the end of this process waits for the holder.
_HOLD_SECONDS: Final = 30.0
#: Whoever waits for a view records its user while that is being made, which begins within this time, or waits for others.
_ASKED_SECONDS: Final = 0.02


class SharedViews:
    """The shared views of one state root, as one process sees them.

    :param linger: seconds that :meth:`tick` leaves a view without users.
    """

    def __init__(
        self,
        holder: ViewHolder,
        ledger: Ledger,
        intents: Intents,
        way: Reach,
        mounter: Mounter,
        *,
        locks: str,
        seconds: float,
        linger: float = 0.0,
    ) -> None:
        self._holder = holder
        self._ledger = ledger
        self._intents = intents
        self._way = way
        self._rows = ReachedRows(ledger.database)
        self._mounter = mounter
        self._locks = locks
        self._seconds = seconds
        self._linger = linger
        self._turn = threading.Condition(threading.Lock())
        #: Views of our own that the holder has not been given yet, and what is left to do about them.
        self._unheld: dict[str, ExitStack] = {}
        self._mine: dict[str, OwnedFd] = {}
        #: How many calls of this process are just opening files in a view, which is not to go meanwhile.
        self._busy: Counter[str] = Counter()
        #: When a view that has no users was last used: as we opened files in it or a container gave it up, else since a tick found it so.
        self._idle: dict[str, float] = {}

    def open(self, source: Source, wanted: Sequence[Wanted], timeline: Timeline, *, keep: bool) -> Opened:
        """See :class:`~unikeel.boot.contract.Strategy`. A warm call is one question to the holder and one transaction."""
        parent, notes = source.parent, list[str]()
        with self._using(parent.key):
            mount = self._mount_of(parent.key, notes)
            hit = mount is not None
            if mount is None:
                mount = self._make_once(source, timeline, keep=keep)
            elif keep:
                self._use(source)
            with mount as root:
                files = open_all(root, wanted, source.monitor_uid, lambda namespace: self._mapped(parent, namespace))
        return Opened(files, hit, notes)

    def _use(self, source: Source) -> None:
        self._ledger.use(source.container, NAME, source.parent)

    @contextmanager
    def _using(self, key: str) -> Iterator[None]:
        with self._turn:
            self._busy[key] += 1
        try:
            yield
        finally:
            with self._turn:
                self._busy[key] -= 1
                if not self._busy[key]:
                    del self._busy[key]
                self._idle[key] = time.monotonic()

    def _mapped(self, parent: Parent, namespace: int) -> OwnedFd:
        return self._mounter.mount(reach(self._way, parent, SHARED).mounts, namespace)

    def _mount_of(self, key: str, notes: list[str]) -> OwnedFd | None:
        """The caller's own descriptor of the mount that this process or the holder has. A holder has none of a view that no record names."""
        with self._turn:
            mount = self._mine.get(key)
            if mount is not None:
                return mount.duplicate()
        if self._way.records and self._rows.get(key, SHARED, "") is None:
            return None
        try:
            fd = self._holder.get(PREFIX + key)
        except Unavailable as error:
            notes.append(f"the shared view is not kept: {error.message}")
            return None
        return None if fd is None else self._remember(key, OwnedFd(fd))

    def _remember(self, key: str, mount: OwnedFd) -> OwnedFd:
        with self._turn:
            return self._mine.setdefault(key, mount).duplicate()

    def _make_once(self, source: Source, timeline: Timeline, *, keep: bool) -> OwnedFd:
        """The mount, made by us or by another; the user is recorded meanwhile."""
        parent = source.parent

        asked = threading.Event()

        def work() -> OwnedFd:
            try:
                return self._mount_of(parent.key, []) or self._make(parent, timeline, asked.set)
            finally:
                asked.set()

        def meanwhile() -> None:
            if keep:
                asked.wait(_ASKED_SECONDS)  # what is recorded before the view is asked for comes first
                self._use(source)

        path, what = self._lock(parent.key), f"mounting {parent.name}"
        with span(timeline, "boot.shared-view.mount", parent=parent.name):
            try:
                return flight.once(
                    path, self._seconds, what, work, OwnedFd.close, meanwhile, lambda: self._hold(parent.key)
                )
            except BaseException:
                if keep:
                    self._ledger.leave(source.container, NAME)
                raise

    def _lock(self, key: str) -> str:
        return os.path.join(self._locks, f"{key}.view")

    def _make(self, parent: Parent, timeline: Timeline, asked: Callable[[], None]) -> OwnedFd:
        number = 0 if self._way.records else self._intend(parent)
        try:
            failpoint("boot.mount.intent")
            with ExitStack() as later:
                reached = reach(self._way, parent, SHARED, timeline=timeline, asked=asked)
                mount = self._mounter.mount(reached.mounts, later=later)
                failpoint("boot.mount.mounted")
                own = self._remember(parent.key, mount)
                with self._turn:
                    self._unheld[parent.key] = later.pop_all()
            return own
        finally:
            if number:
                self._intents.done(number)

    def _hold(self, key: str) -> None:
        """Give a view that was just made to the holder; whoever it was made for is opening files in it meanwhile."""
        try:
            with self._turn:
                mount = self._mine.get(key) if key in self._unheld else None
                own = mount.duplicate() if mount is not None else None
            if own is not None:
                with own:
                    self._holder.put(PREFIX + key, own.fileno())
                failpoint("boot.mount.held")
        except (Unavailable, OSError):
            return  # without a holder, each process mounts for itself
        finally:
            with self._turn:
                left = self._unheld.get(key)
            if left is not None:
                left.close()
            with self._turn:
                self._unheld.pop(key, None)
                self._turn.notify_all()

    def _intend(self, parent: Parent) -> int:
        return self._intents.begin(INTENT_MOUNT, PREFIX + parent.key, consumer=parent.consumer)

    def release(self, container: str) -> None:
        """See :class:`~unikeel.boot.contract.Strategy`."""
        keys = self._ledger.keys_of(container, NAME)
        if keys:
            with self._turn:  # ticks may be farther apart than the use of it was long
                self._idle.update(dict.fromkeys(keys, time.monotonic()))
            self._ledger.leave(container, NAME)
        for key in keys:
            if not self._linger and not self._ledger.users_of(NAME, key):
                self._let_go(key)

    def _let_go(self, key: str) -> None:
        with self._turn:
            mount = self._mine.pop(key, None)
            if mount is not None:
                mount.close()

    def keys(self) -> list[str]:
        """The parents of which the holder keeps a view; none if there is no holder."""
        try:
            held = self._holder.names()
        except Unavailable:
            return []
        return [name.removeprefix(PREFIX) for name in held if name.startswith(PREFIX)]

    def _candidates(self) -> list[str]:
        """The parents of which this process, its holder, or a snapshotter (reached from here) has a view."""
        rows = [row.parent_key for row in self._rows.all() if row.purpose == SHARED and self._way.serves(row.consumer)]
        return list(dict.fromkeys([*self.keys(), *rows, *self._mine]))

    def drop_idle(self) -> list[Freed]:
        """Take the views away that nobody uses. A process that is just taking one keeps its own descriptor."""
        return [Freed(NAME, key, 0) for key in self._candidates() if self._drop_unused(key)]

    def tick(self) -> list[Freed]:
        """The same for those that nobody has used for the time to linger."""
        now = time.monotonic()
        candidates = [key for key in self._candidates() if not self._ledger.users_of(NAME, key)]
        with self._turn:
            self._idle = {key: self._idle.get(key, now) for key in candidates}
            due = [key for key, since in self._idle.items() if now - since >= self._linger]
        return [Freed(NAME, key, 0) for key in due if self._drop_unused(key)]

    def _drop_unused(self, key: str) -> bool:
        """Whether it is gone. Who comes meanwhile waits at the lock, and makes it anew."""
        with locks.locked(self._lock(key)):
            if self._in_use(key):
                return False
            self._drop(key)
            self._let_go(key)
            if self._in_use(
                key
            ):  # taken between the question and the answer: it stays, and is held again by the next call
                return False
            failpoint("boot.mount.dropped")
            try:
                self._way.give_back(key, SHARED)
            except UnikeelError:
                return False  # asked again at the next tick
        with self._turn:
            self._idle.pop(key, None)
        return True

    def _in_use(self, key: str) -> bool:
        with self._turn:
            if key in self._busy:
                return True
        return bool(self._ledger.users_of(NAME, key))

    def _drop(self, key: str) -> None:
        try:
            self._holder.drop(PREFIX + key)
        except Unavailable:
            return  # gone with its holder

    def undo(self, intent: Intent) -> list[Freed]:
        """A process died while it made a view: mount and loop device went with it; what the holder got goes if unused."""
        key = intent.subject.removeprefix(PREFIX)
        there = key in self.keys() or any(row.parent_key == key and row.purpose == SHARED for row in self._rows.all())
        return [Freed(NAME, key, 0)] if there and self._drop_unused(key) else []

    def close(self) -> None:
        """Let go of this process's descriptors; the holder keeps its own, once it has them."""
        with self._turn:
            self._turn.wait_for(lambda: not self._unheld, _HOLD_SECONDS)
        for key in list(self._mine):
            self._let_go(key)
