"""A state root whose images are a containerd's: the stand-in's, with real images and directories."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from unikeel.boot.contract import LOWEST, WHOLE, Limits, Parent, Source
from unikeel.boot.ledger import Ledger
from unikeel.boot.objects import Door
from unikeel.boot.reached import ReachedRows
from unikeel.boot.service import BootFiles
from unikeel.containerd.bridge import Bridge
from unikeel.containerd.identify import Identifier, consumer_of
from unikeel.containerd.reach import ContainerdReach
from unikeel.containerd.records import Mount
from unikeel.kernel.mounts import sealed_clone
from unikeel.records.database import Database
from unikeel.records.intents import Intents
from unikeel.records.owners import Owner
from unikeel.testing.boot_containerd import FakeContainerd
from unikeel.testing.fake_boot import FakeHolder

MIB = 1 << 20
SNAPSHOTTER = "snapshotter"
CHAIN = "sha256:chain"
CONSUMER = consumer_of("/run/fake.sock", "uuid")


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        if self.loop.is_closed():
            return
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@dataclass
class ContainerdWorld:
    """One daemon's view. A second one on the same directory is the next daemon, with the same containerd."""

    root: str
    mounts: tuple[Mount, ...] = ()
    linger: float = 0.0
    limits: Limits = Limits()  # noqa: RUF009 - a named tuple is immutable
    door: Door = sealed_clone

    def __post_init__(self) -> None:
        os.makedirs(os.path.join(self.root, "owners"), exist_ok=True)
        self.database = Database(os.path.join(self.root, "records.db"))
        self.owner = Owner(os.path.join(self.root, "owners"))
        Ledger(self.database)
        self.loop = Loop()
        self.containerd = FakeContainerd(os.path.join(self.root, "containerd"))
        self.snapshots = self.containerd.snapshots(SNAPSHOTTER)
        if self.mounts and CHAIN not in self.snapshots.names("committed"):
            self.snapshots.commit(CHAIN, "", self.mounts)
        self.reach = ContainerdReach(self.database, Bridge(self.loop.loop), self.root)
        self.reach.attach(Identifier(self.containerd, CONSUMER), self.containerd)
        self.rows = ReachedRows(self.database)
        self.holder = FakeHolder()
        self.files = BootFiles(
            os.path.join(self.root, "boot"),
            self.database,
            self.owner,
            Intents(self.database, self.owner),
            self.holder,
            self.reach,
            cache_size=64 * MIB,
            limits=self.limits,
            layers=self.reach,
            linger=self.linger,
            door=self.door,
        )

    def source(self, container: str = "c1", *, name: str = CHAIN, trusted: bool = True, lowest: bool = False) -> Source:
        """A container of the image."""
        parent = Parent(CONSUMER, "default", SNAPSHOTTER, name, 1, "", trusted)
        return Source(parent, container, (), False, 4242, LOWEST if lowest else WHOLE)

    def views(self) -> list[str]:
        """The views in containerd."""
        return self.snapshots.names()

    def leftovers(self) -> list[str]:
        """What is there that should not be, after every container is gone."""
        found = [f"view {name}" for name in self.views()]
        found += [f"lease {name}" for name in self.containerd.leases.names()]
        found += [f"row {row}" for row in self.rows.all()]
        found += [f"held {name}" for name in self.holder.names()]
        found += [f"intent {row}" for row in self.database.query("SELECT kind, subject FROM intents")]
        found += [f"user {row}" for row in self.database.query("SELECT * FROM boot_users")]
        return found

    def close(self) -> None:
        """As the end of the process would."""
        self.files.close()
        self.reach.close()
        self.loop.close()
        self.holder.close()
        self.owner.close()
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
