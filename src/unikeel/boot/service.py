"""The door of the boot package: *give me this image's boot files*, by whichever of the four strategies."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from unikeel.boot import policy
from unikeel.boot.contract import (
    INTENT_COPY,
    INTENT_MOUNT,
    INTENT_VIEW,
    LOWEST,
    Acquired,
    Choice,
    Freed,
    Holding,
    Layers,
    Limits,
    Opened,
    Reach,
    Source,
    Timeline,
    ViewHolder,
    Wanted,
    no_timeline,
)
from unikeel.boot.ledger import Ledger
from unikeel.boot.objects import Door, ObjectStore
from unikeel.boot.sources import check_path
from unikeel.boot.spans import span
from unikeel.boot.strategies import Strategies
from unikeel.errors import Unavailable
from unikeel.kernel import mounts
from unikeel.kernel.paths import open_beneath
from unikeel.lean import Final
from unikeel.records.database import Database
from unikeel.records.intents import Intent, Intents
from unikeel.records.owners import Owner

_READ_CHUNK: Final = 1 << 20
_ALL: Final = frozenset({Choice.CACHE, Choice.SHARED_VIEW, Choice.VIEW, Choice.COPY})


class BootFiles:
    """Boot files of one state root, as one process sees them. Usable from several threads.

    :param directory: the package's own; made if it is missing, mode 0700.
    :param holder: who keeps shared views between commands. :param reach: how committed snapshots are reached; the records of consumers that it does
        not serve are left alone. :param layers: what is beneath them, if that can be known.
    :param cache_size: bound of the cache in bytes. :param tmpfs_directory: where copies are kept, ``DIR/copies`` if None.
    :param door: how the cache's directory is opened; for tests without root only.
    :param linger: seconds that :meth:`tick` leaves a shared view without users.
    """

    def __init__(
        self,
        directory: str,
        database: Database,
        owner: Owner,
        intents: Intents,
        views: ViewHolder,
        reach: Reach,
        *,
        cache_size: int,
        limits: Limits | None = None,
        layers: Layers | None = None,
        linger: float = 0.0,
        tmpfs_directory: str | None = None,
        door: Door = mounts.sealed_clone,
    ) -> None:
        self._limits = limits or Limits()
        self._owner = owner
        self._intents = intents
        self._holder = views
        self._reach = reach
        self._layers = layers
        self._ledger = Ledger(database)
        self._store = ObjectStore(directory, owner.token, door)
        self._strategies = Strategies(
            directory,
            self._ledger,
            intents,
            views,
            reach,
            self._store,
            cache_size=cache_size,
            seconds=self._limits.seconds,
            tmpfs_directory=tmpfs_directory or os.path.join(directory, "copies"),
            is_dead=owner.is_dead,
            owner=owner.token,
            linger=linger,
        )

    def prepare(self, choice: Choice) -> None:
        """Have at hand what an acquire needs whatever the image: code, the cache's directory, the connection to the holder.

        Optional: it takes the cost of a new process (some 3 ms) out of the first acquire, for the caller to spend while it waits for
        something else: imports, statements, the first use of each system call. What does not work here is left for the acquire to find out and to report.
        """
        import contextlib

        with contextlib.suppress(Unavailable, OSError):
            sealed = self._store.sealed()
            if choice is Choice.SHARED_VIEW:
                from unikeel.boot.shared import PREFIX

                self._strategies.of(choice)
                open_beneath(sealed.fileno(), ".", os.O_PATH).close()
                self._holder.get(PREFIX)  # nobody's: the way there and back is trodden
        self._ledger.rehearse()

    # -- acquiring --------------------------------------------------------------------------------------------------

    def acquire(
        self, source: Source, paths: Mapping[str, str], choice: Choice, timeline: Timeline = no_timeline
    ) -> Acquired:
        """Open the boot files of a container: all of them, by one strategy.

        The container is recorded as their user before this returns, until :meth:`release`.

        :param paths: role (``kernel``, ``initrd``, ``config``) → path in the image.
        :raise BadContent: the image is damaged, or a path is not what it should be (:class:`PathError`): final.
        :raise Unavailable: no strategy works; the message names each with its reason.
        :raise InvalidArgument: an unknown role. :raise ResourceExhausted: the record store's disk is full.
        """
        wanted = [Wanted(role, path, self._limits.of(role)) for role, path in paths.items()]
        with span(timeline, "boot.acquire", choice=choice.value) as attributes:
            strategy, opened, fallbacks = self._try(source, wanted, choice, timeline, keep=True)
            size = sum(file.size for file in opened.files.values())
            attributes.update(strategy=strategy.value, hit=opened.hit, bytes=size)
            if fallbacks:
                attributes["fallbacks"] = "; ".join(f"{name}: {reason}" for name, reason in fallbacks)
        return Acquired(strategy.value, opened.hit, fallbacks, opened.files, size, opened.notes)

    def read_file(
        self, source: Source, path: str, choice: Choice, max_size: int, timeline: Timeline = no_timeline
    ) -> bytes:
        """The content of one small file of the image, such as ``/urunc.json``. Records no user.

        :raise PathError: it is missing, not a regular file, or larger than ``max_size``. Others: as :meth:`acquire`.
        """
        with span(timeline, "boot.read", path=path) as attributes:
            strategy, opened, _ = self._try(source, [Wanted("config", path, max_size)], choice, timeline, keep=False)
            attributes["strategy"] = strategy.value
            try:
                return _read_whole(opened.files["config"].fd.fileno(), max_size)
            finally:
                opened.close()

    def _try(
        self, source: Source, wanted: Sequence[Wanted], choice: Choice, timeline: Timeline, *, keep: bool
    ) -> tuple[Choice, Opened, list[tuple[str, str]]]:
        """The first strategy that works, what it gives, and why those before it did not."""
        for want in wanted:
            check_path(want.path)
        fallbacks: list[tuple[str, str]] = []
        for step in self._steps(source, choice):
            if step.refusal:
                fallbacks.append((step.choice.value, step.refusal))
                continue
            try:
                seen = self._at_layer(source, wanted, step.choice, timeline)
                return step.choice, self._strategies.of(step.choice).open(seen, wanted, timeline, keep=keep), fallbacks
            except Unavailable as error:
                fallbacks.append((step.choice.value, error.message))
            except OSError as error:
                fallbacks.append((step.choice.value, str(error)))
        reasons = "; ".join(f"{name}: {reason}" for name, reason in fallbacks)
        hint = "" if choice in (Choice.AUTO, Choice.CACHE) else "--boot-files cache needs neither trust nor mounts"
        raise Unavailable(f"no way to the boot files of {source.parent.name} works: {reasons}", hint)

    def _at_layer(self, source: Source, wanted: Sequence[Wanted], choice: Choice, timeline: Timeline) -> Source:
        """The source, with the lowest layer that has the files as its parent, if that is wanted and of use."""
        if source.layer != LOWEST or choice not in (Choice.VIEW, Choice.SHARED_VIEW) or self._layers is None:
            return source
        from unikeel.boot.lowest import Lowest

        lowest = Lowest(self._layers, self._reach, self._ledger.database, self._strategies.mounter)
        return source._replace(parent=lowest.find(source.parent, wanted, timeline))

    def _steps(self, source: Source, choice: Choice) -> list[policy.Step]:
        parent = source.parent
        if choice is Choice.AUTO:
            choice = policy.automatic(parent.fstype, trusted=parent.trusted, available=_ALL)
        return policy.steps(choice, trusted=parent.trusted, available=_ALL)

    def release(self, container: str) -> None:
        """The container is removed: its records as a user, its own views and copies go. Repeating it is fine.

        :raise UnikeelError: a view snapshot cannot be removed; the rest is released and the record of that view stays.
        """
        self._strategies.cache.release(container)
        if self._ledger.keys_of(container, Choice.SHARED_VIEW.value):
            self._strategies.shared.release(container)
        if self._ledger.copies(container):
            self._strategies.copies.release(container)
        if self._ledger.views(container):
            self._strategies.views.release(container)

    # -- looking and cleaning up ------------------------------------------------------------------------------------

    def listing(self) -> list[Holding]:
        """What is kept, for whom: cache objects, shared views, views, copies; of all consumers."""
        from unikeel.boot.listing import listing

        return listing(self._ledger, self._strategies.shared.keys(), self._strategies.copies.size)

    def collect(self, *, everything: bool = False) -> list[Freed]:
        """Take away what nobody uses: what is over the bound, or ``everything`` unused; idle shared views; what could not be given back before."""
        freed = self._strategies.cache.trim(0 if everything else None)
        freed += self._strategies.cache.sweep()
        freed += self._strategies.shared.drop_idle()
        self._reach.tend()
        with self._ledger.database.write() as cursor:
            self._ledger.forget_parents_in(cursor)
        from unikeel.kernel import locks

        for name in os.listdir(self._strategies.locks):
            locks.forget(os.path.join(self._strategies.locks, name))
        return freed

    def drop_idle(self) -> list[Freed]:
        """Take the shared views without users away."""
        return self._strategies.shared.drop_idle()

    def tick(self) -> list[Freed]:
        """What a resident process does every few seconds, off its event loop: take shared views away that nobody has used for the time
        to linger, renew what ends, try again what could not be given back."""
        freed = self._strategies.shared.tick()
        self._reach.tend()
        return freed

    def settle(self, seconds: float | None = None) -> bool:
        """Wait until everything that was read into the cache has its digest; whether that is so."""
        return self._strategies.cache.settle(seconds)

    def reconcile(self, exists: Callable[[str], bool]) -> list[Freed]:
        """Undo what dead processes left half done, and give up what containers use that are no more.

        What a living process works on is not touched, nor what belongs to consumers that are not reached from here. Repeating it is fine.

        :param exists: whether a container has a record; asked after the users were read, so that one being created now,
            whose record precedes its use of boot files, is never taken for a removed one.
        :return: what was taken away.
        """
        freed = [gone for intent in self._intents.abandoned() for gone in self._undo(intent)]
        freed += [Freed("unfinished", name, size) for name, size in self._store.sweep(self._owner.is_dead)]
        freed += self._strategies.cache.sweep()
        freed += self._strategies.copies.sweep()
        for container, consumers in sorted(self._ledger.containers().items()):
            if all(self._reach.serves(consumer) for consumer in consumers) and not exists(container):
                self.release(container)
                freed.append(Freed("user", container, 0))
        return freed

    def _undo(self, intent: Intent) -> list[Freed]:
        if not self._reach.serves(intent.detail.get("consumer", "engine")):
            return []
        if intent.kind == INTENT_MOUNT:
            freed = self._strategies.shared.undo(intent)
        elif intent.kind == INTENT_VIEW:
            freed = self._strategies.views.undo(intent)
        elif intent.kind == INTENT_COPY:
            freed = self._strategies.copies.undo(intent)
        else:
            return []
        self._intents.done(intent.number)
        return freed

    def close(self) -> None:
        """Let go of this process's descriptors. What was acquired stays open; what is shared stays with the holder."""
        self._store.close()
        self._strategies.close()


def _read_whole(fd: int, max_size: int) -> bytes:
    pieces: list[bytes] = []
    left = max_size
    while left > 0:
        piece = os.read(fd, min(left, _READ_CHUNK))
        if not piece:
            break
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
