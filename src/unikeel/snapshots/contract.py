"""What a snapshot store does: containerd's snapshot service in meaning, plus what an engine without containerd needs.

Semantics: containerd's snapshots API and its conformance suite (``core/snapshots``). A *committed* snapshot is immutable, an
*active* one writable, a *view* read-only. Keys (of active snapshots and views) and names (of committed ones) share one
space per consumer.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

from unikeel.lean import Final, Protocol
from unikeel.values import NamedTuple

#: What containerd's services take: raw block images only.
RAW_ONLY: Final = frozenset({"raw"})
#: What QEMU takes: raw images, and qcow2 overlays whose backing node it is told.
RAW_OR_QCOW2: Final = frozenset({"raw", "qcow2"})


class Kind(enum.Enum):
    """What a snapshot is, in the words of containerd's filters."""

    VIEW = "view"
    ACTIVE = "active"
    COMMITTED = "committed"


class How(enum.StrEnum):
    """How a snapshot's content came to be where it is."""

    REFLINK = "reflink"  #: a file sharing its parent's blocks
    SNAPSHOT = "snapshot"  #: a thin device sharing its parent's blocks
    QCOW2 = "qcow2"  #: an overlay that refers to its parent's file
    COPY = "copy"  #: a sparse copy
    EMPTY = "empty"  #: a new empty file system
    FILLED = "filled"  #: written by an import
    PARENT = "parent"  #: nothing of its own: the parent's content, read-only


class Info(NamedTuple):
    """One snapshot as Stat and List tell it. Times are in nanoseconds since the epoch; ``parent`` may be empty."""

    name: str
    parent: str
    kind: Kind
    created_ns: int
    updated_ns: int
    labels: Mapping[str, str] = MappingProxyType({})


class Mount(NamedTuple):
    """How a host would mount a snapshot: containerd's Mount. ``source`` is a file for the option ``loop``, else a device."""

    type: str
    source: str
    options: tuple[str, ...]


class Usage(NamedTuple):
    """What a snapshot occupies on its own, without its parents: bytes in real blocks, and inodes of the host."""

    size: int
    inodes: int


class Disk(NamedTuple):
    """What a monitor needs to know about a snapshot that becomes a guest's disk.

    :ivar path: the file or device. :ivar format: ``raw`` or ``qcow2``, to be told to the monitor, never probed.
    :ivar backing: for qcow2, the raw file beneath, to be given as a node of its own (the header names none).
    :ivar size: what the guest sees, in bytes. :ivar how: how the content got here.
    """

    path: str
    format: str
    backing: str | None
    read_only: bool
    size: int
    how: How


class Reconciled(NamedTuple):
    """What a reconciliation found and did.

    :ivar undone: names that dead owners had been making. :ivar files: files taken away that no record names.
    :ivar faulty: names whose content is missing (reported, not changed).
    """

    undone: tuple[str, ...] = ()
    files: int = 0
    faulty: tuple[str, ...] = ()


class SnapshotStore(Protocol):
    """A store as one consumer sees it; every consumer has names of its own.

    All methods may be called from several threads and processes. An answer is durable when it is given. Beside the errors
    named here, ``ResourceExhausted`` means that space ran out (and nothing is left of the call), ``InvalidArgument`` that a
    name or label is malformed (a label's key and value together are at most 4096 bytes).
    """

    def prepare(
        self, key: str, parent: str, labels: Mapping[str, str] | None = None, *, formats: frozenset[str] = RAW_ONLY
    ) -> list[Mount]:
        """Make a writable snapshot of ``parent``, or of an empty file system if that is empty.

        :param formats: what the monitor can use; ``qcow2`` is made only if it is among them and blocks cannot be shared.
        :raise AlreadyExists: the key is taken. :raise NotFound: no such parent. :raise InvalidArgument: it is not committed.
        """

    def view(self, key: str, parent: str, labels: Mapping[str, str] | None = None) -> list[Mount]:
        """Make a read-only snapshot of ``parent`` (or of an empty file system). Errors as :meth:`prepare`."""

    def mounts(self, key: str) -> list[Mount]:
        """The mounts of an active snapshot or a view, the same as when it was made.

        :raise NotFound: no such key. :raise FailedPrecondition: it is committed.
        """

    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, *, parent: str = "") -> None:
        """Turn an active snapshot into a committed one: the key goes, the name comes, with exactly these labels.

        The caller has unmounted it and no guest runs on it.

        :param parent: if given, what the key must have been prepared on.
        :raise AlreadyExists: the name is taken. :raise NotFound: no such key. :raise InvalidArgument: another parent.
        :raise FailedPrecondition: it is not active, or is an overlay that only a monitor can read.
        """

    def remove(self, key: str) -> None:
        """Forget a snapshot at once; its space is given back by :meth:`cleanup`.

        :raise NotFound: no such name. :raise FailedPrecondition: other snapshots are made on it.
        """

    def stat(self, key: str) -> Info:
        """:raise NotFound: no such name."""

    def update(self, name: str, labels: Mapping[str, str], fieldpaths: Iterable[str] = ()) -> Info:
        """Change labels: all of them (no field paths, or ``labels``), or single ones (``labels.KEY``; absent or empty: delete).

        :raise NotFound: no such name. :raise InvalidArgument: another field path.
        """

    def list(self, filters: Iterable[str] = ()) -> Iterator[Info]:
        """Snapshots that match any of the filters (all, without filters), in the order in which they were prepared.
        Other calls may be made meanwhile.

        :raise InvalidArgument: a filter is malformed (raised by the call itself).
        """

    def usage(self, key: str) -> Usage:
        """What a snapshot occupies on its own: now if active, when it was committed otherwise. :raise NotFound: no such name."""

    def cleanup(self) -> int:
        """Give back the space of removed snapshots, of all consumers; returns how many there were."""

    def disk(self, key: str) -> Disk:
        """What a monitor or a reader opens: of committed snapshots, too, read-only. :raise NotFound: no such name."""

    def import_committed(self, name: str, labels: Mapping[str, str] | None, fill: Callable[[int], object]) -> Info:
        """Make a committed snapshot without a parent from what ``fill`` writes to the descriptor of an empty file.

        What ``fill`` raises is passed on (an ``OSError`` as one of our errors), after everything is undone.

        :raise AlreadyExists: the name is taken.
        """

    def reconcile(self, is_dead: Callable[[str], bool] | None = None) -> Reconciled:
        """Undo what dead owners left half made, of all consumers, and look for what is in no record or has no content."""

    def close(self) -> None:
        """Let go of the store; closing twice is fine."""
