"""A daemon that makes a disk of a containerd's image for a task, and takes it away, for a test that kills it at a step. Arguments: state root, the layers.

Also what tests have of disks in a :class:`~containerd_stages.ContainerdWorld`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from unittest import mock

from containerd_stages import ContainerdWorld
from unikeel.boot.mounted import Mounter
from unikeel.containerd.records import Mount
from unikeel.engine.disk_making import DiskMaker, MakingLimits
from unikeel.engine.made import CONSUMER, MadeDisks
from unikeel.snapshots.file_store import FileStore

MIB = 1 << 20
LIMITS = MakingLimits(64 * MIB, 4 * MIB, 30)


def made_disks(world: ContainerdWorld) -> MadeDisks:
    """The disks of a world."""
    owner = world.owner
    directory = os.path.join(world.root, "snapshots")
    return MadeDisks(FileStore(directory, world.database, consumer=CONSUMER, owner=owner.token, is_dead=owner.is_dead))


def maker(world: ContainerdWorld, made: MadeDisks, limits: MakingLimits = LIMITS) -> DiskMaker:
    """Who makes them."""
    locks = os.path.join(world.root, "snapshots", "locks")
    return DiskMaker(made, world.reach, Mounter(locks), locks, limits)


def overlay(layers: str) -> tuple[Mount, ...]:
    """The mounts of an image of layers."""
    return (Mount("overlay", "overlay", "", (f"lowerdir={layers}", "index=off")),)


def main() -> None:
    root, layers = sys.argv[1:]
    with ContainerdWorld(root, overlay(layers)) as world:
        made = made_disks(world)
        maker(world, made).provide(world.source().parent, "t1", lambda *_step: None, read_only=False)
        made.release("t1")
        made.collect()
        made.close()
        world.reach.close()


def stop_here(_pid: int, number: int) -> None:
    """As in ``boot_containerd_child``."""
    signal.pthread_kill(threading.get_ident(), number)


if __name__ == "__main__":
    with mock.patch.object(os, "kill", stop_here):
        main()
