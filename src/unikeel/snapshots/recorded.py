"""What the back ends have in common: everything that is a matter of records alone, and who may take whose name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress

from unikeel.errors import AlreadyExists, FailedPrecondition, InvalidArgument, UnikeelError
from unikeel.records.failpoint import failpoint
from unikeel.snapshots.contract import Info, Kind
from unikeel.snapshots.metadata import Metadata
from unikeel.snapshots.rows import Clone, Record

#: Tells whether the owner behind a token is dead.
IsDead = Callable[[str], bool]


def everyone_lives(_token: str) -> bool:
    """For stores that undo nobody's work."""
    return False


class RecordedStore(ABC):
    """A store of snapshots by their records; the content is its subclasses' matter. See the contract for the methods that are there.

    :param point: how the names of fail points begin.
    """

    #: Whether what is announced is on the disk before it is made. Not needed where content that the host's end took the announcement of is found by its
    #: name, and taken away.
    _flushes_intents = True

    def __init__(self, metadata: Metadata, is_dead: IsDead, *, point: str) -> None:
        self._metadata = metadata
        self._is_dead = is_dead
        self._point = point

    @abstractmethod
    def _undo(self, record: Record) -> None:
        """Take away what was half made: first the content, then the record that tells of it."""

    @abstractmethod
    def _errors(self, doing: str) -> AbstractContextManager[None]:
        """Turns what the system answers into our errors; ``doing`` completes "cannot …"."""

    def _base(self, parent: str) -> Record | None:
        """What a snapshot of ``parent`` is made from if that is empty; None: of nothing."""
        del parent
        return None

    # --- making ---------------------------------------------------------------------------------------------------------

    def _begin(
        self, name: str, parent: str, kind: Kind, labels: Mapping[str, str] | None, clone: Clone | None = None
    ) -> Record:
        """Record what is about to be made; what a dead owner left half made under this name is undone first."""
        base = None if kind is Kind.COMMITTED else self._base(parent)
        try:
            record = self._announced(name, parent, kind, labels or {}, base, clone)
        except AlreadyExists:
            if not self._cleared(name):
                raise
            record = self._announced(name, parent, kind, labels or {}, base, clone)
        if record.ready and not self._flushes_intents:  # nothing comes after it that is flushed
            self._metadata.flush()
        return record

    def _announced(
        self,
        name: str,
        parent: str,
        kind: Kind,
        labels: Mapping[str, str],
        base: Record | None,
        clone: Clone | None,
    ) -> Record:
        return self._metadata.begin(name, parent, kind, labels, base=base, clone=clone, flush=self._flushes_intents)

    def _cleared(self, name: str) -> bool:
        """Whether it is worth trying again to take a name: it was only taken by the half-made snapshot of a dead owner, which is now undone.

        :raise AlreadyExists: somebody living is making it.
        """
        stale = self._metadata.unfinished(name)
        if stale is None:
            return False
        if not self._is_dead(stale.owner):
            raise AlreadyExists(f"snapshot {name!r} is being made by another call")
        if self._metadata.is_unfinished(
            stale.id
        ):  # or its owner has finished it since, and ended well: then the name is taken after all
            with self._errors(f"undo the half-made snapshot {name!r}"):
                self._undo(stale)
        return True

    @contextmanager
    def _making(self, record: Record) -> Iterator[None]:
        """Whatever ends this block with an error leaves neither content nor record; errors of the system become ours."""
        try:
            with self._errors(f"make snapshot {record.info.name!r}"):
                yield
        except BaseException:
            with suppress(UnikeelError, OSError):
                self._undo(record)
            raise

    # --- looking ----------------------------------------------------------------------------------------------------------

    def stat(self, key: str) -> Info:
        """See the contract."""
        return self._metadata.find(key).info

    def list(self, filters: Iterable[str] = ()) -> Iterator[Info]:
        """See the contract. Rows are read in pages; nothing is locked between them."""
        wanted = list(filters)
        if not wanted:
            return self._walk(lambda _info: True)
        from unikeel.snapshots.filters import parse_filters

        return self._walk(parse_filters(wanted))

    def _walk(self, matches: Callable[[Info], bool]) -> Iterator[Info]:
        after = 0
        while page := self._metadata.page(after):
            yield from (record.info for record in page if matches(record.info))
            after = page[-1].id

    def _with_mounts(self, key: str) -> Record:
        """The record of an active snapshot or a view. :raise NotFound: no such key. :raise FailedPrecondition: it is committed."""
        record = self._metadata.find(key)
        if record.info.kind is Kind.COMMITTED:
            raise FailedPrecondition(f"snapshot {key!r} is committed and has no mounts", "make a view of it")
        return record

    # --- changing ---------------------------------------------------------------------------------------------------------

    def update(self, name: str, labels: Mapping[str, str], fieldpaths: Iterable[str] = ()) -> Info:
        """See the contract."""
        return self._metadata.update(name, labels, fieldpaths)

    def remove(self, key: str) -> None:
        """See the contract. One transaction; the content is taken away by :meth:`cleanup`."""
        self._metadata.discard(key)
        failpoint(f"{self._point}.remove.done")

    def _check_free(self, name: str) -> None:
        try:
            self._metadata.check_free(name)
        except AlreadyExists:
            if not self._cleared(name):
                raise

    def _check_committable(self, record: Record, parent: str) -> None:
        key = record.info.name
        if record.info.kind is not Kind.ACTIVE:
            raise FailedPrecondition(f"snapshot {key!r} is not active but {record.info.kind.value}")
        if parent and parent != record.info.parent:
            raise InvalidArgument(f"snapshot {key!r} was prepared on {record.info.parent!r}, not on {parent!r}")
