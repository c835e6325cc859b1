"""Where and how often each thing is measured: a run is a list of blocks, each some rounds of one group of metrics in one world. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from unikeel.values import NamedTuple

#: Every metric that ``--only`` takes, and the groups of samples that give it.
METRICS: Final[Mapping[str, tuple[str, ...]]] = {
    "identify": ("warm",),
    "acquire": ("warm", "first"),
    "view_mount": ("warm", "first"),
    "task_create": ("tasks", "crowd"),
    "task_start": ("tasks",),
    "task_create_start": ("tasks", "siblings"),
    "daemon_cpu": ("tasks",),
    "daemon_pss": ("memory",),
    "task_pss": ("memory",),
    "daemon_return": ("killed",),
}
NATIVE: Final = "native"
VM: Final = "vm"
STRATEGIES: Final = ("cache", "shared-view", "view", "copy")
#: What our tasks are compared with: containerd's own runtime, running the lab's busybox.
UNIKEEL: Final = "io.containerd.unikeel.v2"
RUNC: Final = "io.containerd.runc.v2"
#: How long a block may take, as a multiple of what is guessed for it, and at least, in seconds.
_GENEROUS: Final = 12.0
_LEAST_SECONDS: Final = 120.0


class World(NamedTuple):
    """A containerd with a snapshotter: in a native lab on this root, or in the lab's virtual machine.

    :ivar block: whether a container's snapshot is a block device or a file, and so can be a guest's disk.
    """

    where: str
    root: str
    snapshotter: str
    block: bool


WORLDS: Final = (
    World(NATIVE, "trixie", "blockfile", block=True),
    World(NATIVE, "sid", "erofs", block=False),
    World(VM, "vm", "devmapper", block=True),
)
#: Where campaigns can measure, too: no promise is about these.
FURTHER: Final = (
    World(NATIVE, "trixie", "overlayfs", block=False),
    World(NATIVE, "trixie", "unikeel", block=True),
    World(VM, "vm", "thin", block=True),  # our own on a pool of its own
)


class Group(NamedTuple):
    """Samples that are taken together.

    :ivar rounds: how many natively, in the virtual machine, and with ``--quick``. :ivar block: rounds of one block, natively and in the virtual machine.
    :ivar siblings: how many containers run beside (or are made at once), natively, in the virtual machine, and with ``--quick``.
    :ivar per_round: samples that one round gives each series, likewise. :ivar seconds: what a round is guessed to take natively.
    """

    name: str
    rounds: tuple[int, int, int]
    block: tuple[int, int]
    siblings: tuple[int, int, int] = (0, 0, 0)
    per_round: tuple[int, int, int] = (1, 1, 1)
    seconds: float = 1.0


#: At least 30 samples of each series; ``siblings`` natively the 100 that its promise needs, in few rounds, since to start and end so many takes longest.
GROUPS: Final = (
    Group("first", (30, 30, 2), (10, 3), seconds=2.0),
    Group("warm", (50, 30, 3), (25, 6), seconds=1.0),
    Group("tasks", (30, 30, 2), (5, 2), seconds=6.0),
    Group("siblings", (5, 2, 1), (1, 1), (30, 5, 2), (20, 15, 2), seconds=45.0),
    Group("crowd", (3, 3, 1), (1, 1), (32, 32, 4), seconds=40.0),
    Group("memory", (3, 0, 1), (1, 1), (30, 0, 2), seconds=40.0),
    Group("killed", (10, 0, 1), (10, 1), (20, 0, 2), seconds=14.0),
)
#: What only campaigns take (:mod:`unikeel.bench.campaign`).
LAYERS: Final = "layers"
BASE: Final = "base"
#: How many times longer samples are guessed to take in the virtual machine.
SLOWER: Final = 12.0


class Block(NamedTuple):
    """Some rounds of one group in one world, run as one process in there; ``first`` is the number of its first round.

    :ivar siblings: how many containers run beside, or what else the group has levels of.
    :ivar runtimes: other runtimes of containerd's, by name, that run the same as runc does in ``tasks``.
    """

    world: World
    group: str
    first: int
    rounds: int
    siblings: int
    per_round: int
    images: tuple[str, ...]
    guess: float
    runtimes: tuple[str, ...] = ()

    @property
    def timeout(self) -> float:
        """Seconds after which it counts as stuck."""
        return max(_LEAST_SECONDS, self.guess * _GENEROUS)


class Plan(NamedTuple):
    """What is asked for; ``samples`` 0: as many as each group needs. ``where`` and ``snapshotter`` empty: all."""

    metrics: tuple[str, ...] = tuple(METRICS)
    where: str = ""
    samples: int = 0
    quick: bool = False
    snapshotter: str = ""

    def worlds(self) -> list[World]:
        """Where it is measured: of all worlds those asked for, with ``quick`` the first of them."""
        found = [
            world for world in WORLDS if self.where in ("", world.where) and self.snapshotter in ("", world.snapshotter)
        ]
        return found[:1] if self.quick else found

    def images(self, group: str, world: World) -> tuple[str, ...]:
        """The sample images that a group needs. nginx has its files on its disk; without one, a guest of the same kernel stands for it."""
        if group in ("siblings", "crowd", "memory", "killed"):
            return ("hello",)
        if group == "tasks":
            return ("hello",) if self.quick else ("hello", "nginx" if world.block else "initrd")
        return ("bulky",) if self.quick or group == "first" else ("hello", "nginx", "bulky")

    def groups(self) -> list[Group]:
        """The groups that the metrics need."""
        wanted = {name for metric in self.metrics for name in METRICS[metric]}
        return [group for group in GROUPS if group.name in wanted]

    def blocks(self, world: World) -> Iterator[Block]:
        """What is run in a world, in order."""
        for group in self.groups():
            kind = self._kind(world)
            per_round = group.per_round[kind]
            rounds = self._rounds(group, kind, per_round)
            size = group.block[1 if world.where == VM else 0]
            seconds = group.seconds * (SLOWER if world.where == VM else 1)
            images = self.images(group.name, world)
            for first in range(0, rounds, size):
                some = min(size, rounds - first)
                yield Block(world, group.name, first, some, group.siblings[kind], per_round, images, seconds * some)

    def _kind(self, world: World) -> int:
        return 2 if self.quick else 1 if world.where == VM else 0

    def _rounds(self, group: Group, kind: int, per_round: int) -> int:
        usual = group.rounds[kind]
        if not self.samples or group.name in ("crowd", "memory", "killed"):
            return usual
        return -(-self.samples // per_round) if usual else 0
