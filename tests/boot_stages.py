"""Stages for the boot tests: a state root with a record store, an image, stand-ins for holder and snapshot store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from unikeel.boot.contract import HostMount, Limits, Parent, Source
from unikeel.boot.objects import Door
from unikeel.boot.service import BootFiles
from unikeel.kernel import loop, mounts
from unikeel.records.database import Database
from unikeel.records.intents import Intents
from unikeel.records.owners import Owner
from unikeel.testing.fake_boot import FakeHolder, FakeReach

MIB = 1 << 20
PARENT = "sha256:chain"


def parent(fstype: str = "ext4", *, name: str = PARENT, trusted: bool = True) -> Parent:
    """A committed snapshot."""
    return Parent("engine", "default", "file", name, 1, fstype, trusted)


@dataclass
class World:
    """One process's view of a state root. A second one on the same directory is another process, as far as boot is concerned."""

    root: str
    image: str
    fstype: str = "ext4"
    cache_size: int = 64 * MIB
    limits: Limits = Limits()  # noqa: RUF009 - a named tuple is immutable
    door: Door = mounts.sealed_clone

    def __post_init__(self) -> None:
        os.makedirs(os.path.join(self.root, "owners"), exist_ok=True)
        self.database = Database(os.path.join(self.root, "records.db"))
        self.owner = Owner(os.path.join(self.root, "owners"))
        self.intents = Intents(self.database, self.owner)
        self.holder = FakeHolder()
        mounts = (HostMount(self.fstype, self.image),)
        self.views = FakeReach(os.path.join(self.root, "views"), dict.fromkeys((PARENT, "another parent"), mounts))
        self.files = BootFiles(
            os.path.join(self.root, "boot"),
            self.database,
            self.owner,
            self.intents,
            self.holder,
            self.views,
            cache_size=self.cache_size,
            limits=self.limits,
            door=self.door,
        )

    def source(self, container: str = "c1", *, name: str = PARENT, trusted: bool = True) -> Source:
        """A container of the image."""
        return Source(parent(self.fstype, name=name, trusted=trusted), container, (), False, 4242)

    def close(self) -> None:
        """As the end of the process would."""
        self.files.close()
        self.holder.close()
        self.owner.close()
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def leftovers(world: World) -> list[str]:
    """What is there that should not be, after every container is gone: files, mounts, loop devices, views, intents."""
    boot = os.path.join(world.root, "boot")
    world.files.settle()
    found = [f"unfinished {name}" for name in os.listdir(os.path.join(boot, "tmp"))]
    found += [f"unfinished {name}" for name in os.listdir(os.path.join(boot, "objects", "pending"))]
    found += [f"loop device {name}" for name in loop.attached_to(os.stat(world.image))]
    found += [f"view {key}" for key in world.views.names()]
    found += [f"held {name}" for name in world.holder.names()]
    found += [f"intent {row}" for row in world.database.query("SELECT kind, subject FROM intents")]
    found += [f"user {row}" for row in world.database.query("SELECT * FROM boot_users")]
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        found += [line for line in file if f" {boot}" in line]
    copies = os.path.join(boot, "copies")
    found += os.listdir(copies) if os.path.isdir(copies) else []
    return found
