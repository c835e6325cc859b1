"""Where and how often each thing is measured: a run is a list of blocks, each some rounds of one group of metrics in one world. Pure.

A world is a containerd with one of its own block snapshotters, after which the world is named, and ours beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from unikeel.values import NamedTuple

#: Every metric that ``--only`` takes, and the groups of samples that give it.
METRICS: Final[Mapping[str, tuple[str, ...]]] = {
    "prepare": ("serial", "full"),
    "view_first": ("serial",),
    "view": ("serial",),
    "commit": ("serial",),
    "remove": ("serial",),
    "prepare_last": ("crowd", "hundred"),
    "prepare_gap": ("hundred",),
    "unpack": ("unpack",),
    "metadata_bytes": ("cost",),
    "daemon_bytes": ("cost",),
    "daemon_cpu": ("cost",),
}
NATIVE: Final = "native"
VM: Final = "vm"
#: Megabytes of an empty file system, and of the image's content.
SIZE_MIB: Final = 256
CONTENT_MIB: Final = 32
#: How long a block may take, as a multiple of what is guessed for it, and at least, in seconds.
_GENEROUS: Final = 12.0
_LEAST_SECONDS: Final = 900.0


class World(NamedTuple):
    """A containerd in a native lab on this root, or in the lab's virtual machine.

    :ivar snapshotter: containerd's own, and the file system it lies on where that is not the usual ext4; :ivar ours: what is compared with it.
    :ivar others: others of containerd's own in the same containerd.
    """

    where: str
    root: str
    snapshotter: str
    ours: tuple[str, ...]
    others: tuple[str, ...] = ()

    @property
    def contenders(self) -> tuple[str, ...]:
        """All that is measured in it, containerd's first."""
        return (self.snapshotter, *self.others, *self.ours)

    @property
    def builtin(self) -> str:
        """What containerd calls its own."""
        return self.snapshotter.partition("-")[0]

    @property
    def file_system(self) -> str:
        """What it lies on."""
        return self.snapshotter.partition("-")[2] or "ext4"


WORLDS: Final = (
    World(NATIVE, "sid", "blockfile", ("file", "file-loop")),
    World(NATIVE, "sid", "blockfile-xfs", ("file-xfs", "file-xfs-spare")),
    World(VM, "vm", "devmapper", ("thin", "thin-spare")),
)

#: Those of campaigns: fewer of ours, and on this host all of containerd's that work here, whether or not a guest could have theirs as a disk.
COMPARED: Final = (
    World(
        NATIVE, "sid", "blockfile", ("file",), ("overlayfs", "native", "erofs", "btrfs")
    ),  # btrfs on one of its own, in a file
    World(VM, "vm", "devmapper", ("thin",)),
)


class Group(NamedTuple):
    """Samples that are taken together.

    :ivar rounds: how many natively, in the virtual machine, and with ``--quick``. :ivar block: rounds of one block, natively and in the virtual machine.
    :ivar many: how many snapshots a round makes (at once, or before it begins), natively, in the virtual machine, and with ``--quick``.
    :ivar seconds: what a round is guessed to take for each contender, natively and in the virtual machine.
    """

    name: str
    rounds: tuple[int, int, int]
    block: tuple[int, int]
    many: tuple[int, int, int]
    seconds: tuple[float, float]


GROUPS: Final = (
    Group("serial", (50, 50, 2), (25, 10), (1, 1, 1), (2.0, 3.0)),
    Group("cost", (5, 5, 1), (5, 5), (10, 10, 2), (3.0, 6.0)),
    Group("crowd", (10, 20, 1), (5, 5), (16, 16, 3), (5.0, 10.0)),
    # A hundred copies of 256 MB are more than a host may have room for.
    Group("hundred", (0, 5, 1), (3, 1), (100, 100, 5), (30.0, 40.0)),
    Group("unpack", (10, 10, 1), (5, 5), (5, 5, 5), (3.0, 20.0)),
    Group("full", (1, 1, 1), (1, 1), (5000, 5000, 30), (60.0, 300.0)),
)
#: The contenders whose stores are filled.
FILLED: Final = ("thin", "file-loop", "file-xfs")
#: The contenders whose Prepare is measured with a flush of its file by the client, too: where the one need not flush it for what it answers, and the other does not.
SYNCED: Final = ("blockfile-xfs", "file-xfs", "file-xfs-spare")
#: The fuller store of ``full`` is compared with one of so many.
FEW: Final = (50, 50, 5)
#: Samples of ``full`` in each of the two.
FULL_SAMPLES: Final = (50, 50, 2)


class Block(NamedTuple):
    """Some rounds of one group in one world, run as one process in there; ``first`` is the number of its first round.

    :ivar few: how many snapshots are in the emptier store; :ivar samples: of each store, both for ``full`` alone.
    """

    world: World
    group: str
    contenders: tuple[str, ...]
    first: int
    rounds: int
    many: int
    few: int
    samples: int
    guess: float

    @property
    def timeout(self) -> float:
        """Seconds after which it counts as stuck."""
        return max(_LEAST_SECONDS, self.guess * _GENEROUS)


class Plan(NamedTuple):
    """What is asked for; ``samples`` 0: as many as each group needs; ``full`` 0: 5,000. ``where``, ``snapshotters`` and ``among``, which names groups, empty: all."""

    metrics: tuple[str, ...] = tuple(METRICS)
    where: str = ""
    snapshotters: tuple[str, ...] = ()
    samples: int = 0
    full: int = 0
    quick: bool = False
    among: tuple[str, ...] = ()

    def worlds(self) -> list[World]:
        """Where it is measured, with ``quick`` the first of those; of the contenders only those asked for."""
        found = [world for world in WORLDS if self.where in ("", world.where) and self.contenders(world)]
        return found[:1] if self.quick else found

    def contenders(self, world: World) -> tuple[str, ...]:
        """What is measured in a world."""
        return tuple(name for name in world.contenders if not self.snapshotters or name in self.snapshotters)

    def groups(self) -> list[Group]:
        """The groups that the metrics need."""
        wanted = {name for metric in self.metrics for name in METRICS[metric]}
        return [group for group in GROUPS if group.name in wanted and group.name in (self.among or wanted)]

    def blocks(self, world: World) -> Iterator[Block]:
        """What is run in a world, in order."""
        for group in self.groups():
            contenders = self._among(group, world)
            if not contenders:
                continue
            kind = 2 if self.quick else self._kind(world)
            rounds, size = self._rounds(group, kind), group.block[self._kind(world)]
            many = self.full if self.full and group.name == "full" else group.many[kind]
            seconds = group.seconds[self._kind(world)] * len(contenders)
            for first in range(0, rounds, size):
                some = min(size, rounds - first)
                guess = seconds * some / (10 if self.quick else 1)
                yield Block(
                    world, group.name, contenders, first, some, many, FEW[kind], FULL_SAMPLES[kind], guess
                )  # fmt: skip

    def _among(self, group: Group, world: World) -> tuple[str, ...]:
        """A store is filled only where that is promised of it and does not copy each snapshot's content."""
        names = self.contenders(world)
        return tuple(name for name in names if name in FILLED) if group.name == "full" else names

    def _kind(self, world: World) -> int:
        return 1 if world.where == VM else 0

    def _rounds(self, group: Group, kind: int) -> int:
        """``serial`` as often as asked for, the others no more often than usual."""
        usual = group.rounds[kind]
        return usual if not self.samples else self.samples if group.name == "serial" else min(usual, self.samples)
