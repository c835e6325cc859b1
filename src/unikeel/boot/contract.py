"""What the boot package takes and gives: parents, sources, choices, open boot files; and what it needs from others.

The values are named tuples, not dataclasses: a frozen dataclass costs 0.8 ms of every start, a named tuple 0.14 (measured).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import TracebackType

from unikeel.errors import InvalidArgument
from unikeel.kernel.fd import OwnedFd
from unikeel.lean import Final, Protocol, Self, sha256
from unikeel.values import NamedTuple

MIB: Final = 1 << 20

#: Kinds of intents: a shared view, a container's view snapshot, a container's copy is being made.
INTENT_MOUNT: Final = "boot.mount"
INTENT_VIEW: Final = "boot.view"
INTENT_COPY: Final = "boot.copy"


#: Purposes of reaching a parent: to read it once; one view for all its containers; a container's own view.
FILL: Final = "fill"
SHARED: Final = "shared"
OWN: Final = "view"

#: Which committed snapshot boot files are taken from: the parent, or the lowest beneath it in which they are final.
WHOLE: Final = "whole"
LOWEST: Final = "lowest"


class Parent(NamedTuple):
    """A committed snapshot. The first five fields are its identity; how it is reached, a :class:`Reach` knows.

    :ivar consumer: ``engine``, or which containerd. :ivar created_ns: since the epoch; a name can be made anew.
    :ivar fstype: ``ext4`` or ``erofs``, as mount(8) names it; empty where that shows only when it is reached.
    :ivar trusted: its name is the chain ID of the container's image, so that a host mount of it is allowed.
    """

    consumer: str
    namespace: str
    snapshotter: str
    name: str
    created_ns: int
    fstype: str
    trusted: bool

    @property
    def key(self) -> str:
        """Stable text of the identity: SHA-256 in hex over the identity's fields, each with its length."""
        return _key((self.consumer, self.namespace, self.snapshotter, self.name, str(self.created_ns)))


@lru_cache(maxsize=64)
def _key(fields: tuple[str, ...]) -> str:
    """Remembered, since every step of an acquire asks for it."""
    encoded = [value.encode("utf-8", "surrogateescape") for value in fields]
    return sha256(b"".join(b"%d:%s," % (len(value), value) for value in encoded)).hexdigest()


class HostMount(NamedTuple):
    """A mount as a host would make it: what a snapshotter answers. Several make up one root, in their order.

    :ivar type: of the file system, ``bind``, or one of containerd's special types (``format/overlay``).
    :ivar options: as of mount(8).
    """

    type: str
    source: str
    options: tuple[str, ...] = ()


class Reached(NamedTuple):
    """A parent at hand, a context manager: leaving the block gives it back if it was reached to be read once.

    :ivar view: name of the view snapshot that was made for it, if one was.
    """

    mounts: tuple[HostMount, ...]
    view: str = ""
    back: Callable[[], None] | None = None

    def close(self) -> None:
        """Give it back, if that is due now. Repeating it is fine."""
        if self.back is not None:
            self.back()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def nothing_asked() -> None:
    """Nobody needs to know when somebody else is at work."""


class Reach(Protocol):
    """How committed snapshots are reached: in a store of our own, or through containerd. Usable from several threads."""

    @property
    def records(self) -> bool:
        """Whether what is reached has records here of its own, so that nobody else need write down that it is about to be made."""

    def serves(self, consumer: str) -> bool:
        """Whether the parents of this consumer are reached here. The records of others are left alone."""

    def reach(
        self, parent: Parent, purpose: str, container: str = "", asked: Callable[[], None] = nothing_asked
    ) -> Reached:
        """Have a parent at hand. What is there already for the purpose and the container is given again.

        :param purpose: :data:`FILL` (given back by closing it), :data:`SHARED` or :data:`OWN` (kept until :meth:`give_back`).
        :param asked: is called once somebody else was asked, so that all that is left to do here is to wait, or if nobody need be asked.
        :raise Unavailable: it cannot be had now. :raise NotFound: it is gone.
        """

    def give_back(self, parent_key: str, purpose: str, container: str = "") -> None:
        """Let it go, also what an earlier process reached. Nothing happens if there is nothing.

        :raise UnikeelError: it cannot be let go now; :meth:`tend` tries again, where there is one.
        """

    def tend(self) -> None:
        """Do what is due from time to time: renew what ends, try again what could not be given back."""


class Layers(Protocol):
    """What is beneath a parent, for whoever wants the boot files from the lowest layer that has them."""

    def chain(self, parent: Parent) -> tuple[Parent, ...]:
        """The committed snapshots that a parent is made of, the lowest first, itself last."""

    def final_layer(self, parent: Parent, paths: Sequence[str]) -> int | None:
        """The number of the lowest in :meth:`chain` in which all of the paths lead to what they lead to in the parent; None if this
        cannot be told without looking into the snapshots."""


class Source(NamedTuple):
    """What boot files are acquired for.

    :ivar container: the container's id: the user that the records name.
    :ivar rootfs: how the container's writable snapshot is mounted, which only ``copy`` looks at, and only
        while ``guest_ran`` is false; empty where there is none that the host can mount.
    :ivar monitor_uid: the user that re-opens the files for reading.
    :ivar layer: :data:`WHOLE` or :data:`LOWEST`, which ``view`` and ``shared-view`` heed.
    """

    parent: Parent
    container: str
    rootfs: tuple[HostMount, ...]
    guest_ran: bool
    monitor_uid: int
    layer: str = WHOLE


class Choice(enum.Enum):
    """How boot files are to be had: what ``--boot-files`` takes."""

    AUTO = "auto"
    CACHE = "cache"
    SHARED_VIEW = "shared-view"
    VIEW = "view"
    COPY = "copy"


class Limits(NamedTuple):
    """The largest boot files accepted, in bytes, and how long a fill may take, in seconds."""

    kernel_size: int = 512 * MIB
    initrd_size: int = 2048 * MIB
    config_size: int = MIB
    seconds: float = 60.0

    def of(self, role: str) -> int:
        """The limit of a role. :raise InvalidArgument: there is no such role."""
        sizes = {
            "kernel": self.kernel_size,
            "initrd": self.initrd_size,
            "disk": self.initrd_size,
            "config": self.config_size,
        }
        if role not in sizes:
            raise InvalidArgument(f"{role!r} is not a kind of boot file", "use kernel, initrd, disk or config")
        return sizes[role]


class Wanted(NamedTuple):
    """One file asked for: its role, its path in the image, its largest size in bytes."""

    role: str
    path: str
    max_size: int


class BootFile(NamedTuple):
    """An open boot file. ``fd`` is read-only, close-on-exec, of a regular file that nobody can change through it.

    :ivar sha256: in hex, where the strategy knows it already (the cache computes it after the first hand-over).
    """

    role: str
    path: str
    fd: OwnedFd
    size: int
    sha256: str | None = None


class Opened(NamedTuple):
    """What one strategy gives.

    :ivar hit: nothing had to be read, mounted or copied for it. :ivar notes: what was found wrong and mended on the way.
    """

    files: dict[str, BootFile]
    hit: bool
    notes: list[str]

    def close(self) -> None:
        """Close all the files."""
        for file in self.files.values():
            file.fd.close()


class Acquired(NamedTuple):
    """Boot files, ready to be handed over; a context manager that closes them.

    :ivar strategy: the one that really served. :ivar fallbacks: each strategy that could not, with its reason, in order.
    :ivar bytes: of all files together.
    """

    strategy: str
    hit: bool
    fallbacks: list[tuple[str, str]]
    files: dict[str, BootFile]
    bytes: int
    notes: list[str]

    def close(self) -> None:
        """Close all the files. Closing twice is fine."""
        for file in self.files.values():
            file.fd.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


#: Receives finished steps: name, start and end in nanoseconds of the monotonic clock, attributes.
Timeline = Callable[[str, int, int, Mapping[str, str | int | bool]], None]


def no_timeline(name: str, start_ns: int, end_ns: int, attributes: Mapping[str, str | int | bool]) -> None:
    """A timeline that nobody reads."""


class ViewHolder(Protocol):
    """A process that outlives the command and keeps descriptors of shared views: the keeper, as its client shows it.

    Every method may raise Unavailable: then views are made and used, just not kept.
    """

    def put(self, name: str, fd: int) -> None:
        """Have a copy of ``fd`` kept under ``name``, in place of what was kept there."""

    def get(self, name: str) -> int | None:
        """A copy of the descriptor kept under ``name``, the caller's own; None if there is none."""

    def drop(self, name: str) -> None:
        """Keep it no longer; nothing happens if there is none."""

    def names(self) -> Sequence[str]:
        """The names of all that is kept."""


class Strategy(Protocol):
    """One way to boot files."""

    def open(self, source: Source, wanted: Sequence[Wanted], timeline: Timeline, *, keep: bool) -> Opened:
        """Open the files, all or none.

        :param keep: record the container as their user, durably, before this returns; else the files are only read.
        :raise BadContent: a verdict on the image: final. :raise Unavailable: this way does not work here and now.
        :raise OSError: likewise, as the kernel put it.
        """

    def release(self, container: str) -> None:
        """The container is removed: give up all that is held for it alone. Nothing happens if there is nothing."""


class Holding(NamedTuple):
    """One line of ``unikeel boot ls``.

    :ivar kind: ``object`` (cache), ``shared-view``, ``view`` or ``copy``. :ivar name: digest, key or container.
    :ivar parents: names of the committed snapshots it came from. :ivar users: ids of containers.
    :ivar size: bytes it occupies of its own. :ivar last_used_ns: since the epoch, 0 where nobody knows.
    :ivar namespace, snapshotter: of its parents, where containerd has them. :ivar lease: what keeps a view in containerd.
    """

    kind: str
    name: str
    parents: tuple[str, ...]
    users: tuple[str, ...]
    size: int
    last_used_ns: int
    namespace: str = ""
    snapshotter: str = ""
    lease: str = ""

    @property
    def reclaimable(self) -> bool:
        """Whether nobody uses it."""
        return not self.users


class Freed(NamedTuple):
    """One thing that collecting or reconciling took away, with the bytes it gave back."""

    kind: str
    name: str
    size: int
