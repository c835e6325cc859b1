"""What the steps of a container's life work with: the records, the stores, the keeper, each opened when first needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from unikeel.boot.contract import Limits, Parent
from unikeel.boot.service import BootFiles
from unikeel.config import Config
from unikeel.engine.containers import Containers
from unikeel.engine.layout import Layout
from unikeel.engine.reaching import CONSUMER, StoreReach
from unikeel.errors import NotFound, Unavailable
from unikeel.keeper.client import KeeperClient, KeeperSettings
from unikeel.lean import TYPE_CHECKING
from unikeel.records.database import Database
from unikeel.records.intents import Intents
from unikeel.records.owners import Owner
from unikeel.snapshots.file_store import FileStore

if TYPE_CHECKING:
    from unikeel.engine.made import MadeDisks
    from unikeel.images.store import ImageStore
    from unikeel.monitors.contract import Facts
    from unikeel.monitors.kvm_probe import Acceleration
    from unikeel.network.attachments import Attachments
    from unikeel.sandbox.runtime import Sandboxes

Notice = Callable[[str], None]


class Services:
    """Everything that belongs to one state root, for one process.

    :param notice: receives sentences meant for the user. :param reaper: the command that the keeper runs after the end of a monitor
        that nobody watches; empty: none.
    """

    def __init__(self, layout: Layout, config: Config, notice: Notice, reaper: tuple[str, ...] = ()) -> None:
        self.layout = layout
        self.config = config
        self.notice = notice
        self.reaper = reaper
        self.owner = Owner(layout.owners)
        try:
            self.database = Database(layout.database)
        except BaseException:
            self.owner.close()
            raise
        self.intents = Intents(self.database, self.owner)
        self.containers = Containers(self.database, self.owner.token, config.sandbox_uid_count)
        self.keeper = KeeperClient(KeeperSettings(layout.run, config.keeper_idle, config.keeper_view_idle))

    @cached_property
    def images(self) -> ImageStore:
        """The image store."""
        from unikeel.images.store import ImageStore

        return ImageStore(self.layout.images, self.layout.owners)

    @cached_property
    def snapshots(self) -> FileStore:
        """The snapshot store."""
        return FileStore(
            self.layout.snapshots,
            self.database,
            consumer=CONSUMER,
            owner=self.owner.token,
            is_dead=self.owner.is_dead,
        )

    @cached_property
    def made(self) -> MadeDisks:
        """The disks that were made for tasks of containerd."""
        from unikeel.engine.made import CONSUMER as MADE
        from unikeel.engine.made import MadeDisks

        owner = self.owner
        store = FileStore(self.layout.snapshots, self.database, consumer=MADE, owner=owner.token, is_dead=owner.is_dead)
        return MadeDisks(store)

    @cached_property
    def boot(self) -> BootFiles:
        """The boot files."""
        config = self.config
        return BootFiles(
            self.layout.boot,
            self.database,
            self.owner,
            self.intents,
            self.keeper,
            StoreReach(lambda: self.snapshots),
            cache_size=config.boot_cache_size,
            limits=Limits(
                kernel_size=config.boot_kernel_limit,
                initrd_size=config.boot_initrd_limit,
                seconds=config.boot_fill_timeout,
            ),
        )

    @cached_property
    def attachments(self) -> Attachments:
        """The containers' own network namespaces, connected by CNI."""
        from unikeel.network.attachments import Attachments

        return Attachments(self.database)

    @cached_property
    def sandboxes(self) -> Sandboxes:
        """The sandboxes. :raise Unavailable: there is no OCI runtime."""
        from unikeel.sandbox.choosing import Place, choose_runtime
        from unikeel.sandbox.runtime import Sandboxes

        layout = self.layout
        place = Place(
            layout.runtime_state,
            layout.trial,
            layout.sandbox_root,
            layout.facts,
            self.config.sandbox_uid_base,
        )
        runtime = choose_runtime(self.config.sandbox_runtime, self.keeper, place, self.notice)
        return Sandboxes(runtime, self.keeper, layout.runtime_state)

    def facts(self, monitor: str) -> Facts:
        """What is true of a monitor on this host. :raise Unavailable: it is not installed."""
        from unikeel.monitors import monitor as find

        return find(monitor).probe(self.config.monitor_path(monitor), self.layout.facts)

    def acceleration(self, facts: Facts, wish: str) -> Acceleration:
        """Which accelerator QEMU's guests get: measured once per boot of the host."""
        from unikeel.monitors.kvm_probe import choose_accel

        return choose_accel(wish or self.config.monitor_accel, facts, self.layout.facts)

    def accelerator(self, monitor: str, facts: Facts, wish: str) -> str:
        """What runs the processors of a monitor's guests: ``kvm``, ``tcg``, or ``host`` where they run as any process does.

        :raise Unavailable: the monitor needs KVM, and it cannot be opened.
        """
        from unikeel.monitors import monitor as find

        choices = find(monitor).traits.accels
        if not choices:
            return "host"
        if "tcg" in choices:
            return self.acceleration(facts, wish).accel
        from unikeel.monitors.kvm_probe import kvm_problem

        problem = kvm_problem()
        if problem:
            raise Unavailable(
                f"the monitor {monitor} needs KVM, and {problem}", "choose another monitor; see `unikeel doctor`"
            )
        return "kvm"

    def parent(self, name: str) -> Parent:
        """A committed snapshot as the boot files' source. :raise NotFound: it is gone."""
        info = self.snapshots.stat(name)
        return Parent(
            consumer=CONSUMER,
            namespace="",
            snapshotter="file",
            name=name,
            created_ns=info.created_ns,
            fstype="ext4",
            trusted=info.labels.get("unikeel/unpacked") == "true",
        )

    def uid(self, slot: int) -> int:
        """The user that the monitor of a container runs as."""
        return self.config.sandbox_uid_base + slot

    def remove_snapshot(self, key: str) -> None:
        """Remove a snapshot; one that is not there is fine."""
        try:
            self.snapshots.remove(key)
        except NotFound:
            return
        self.snapshots.cleanup()

    def close(self) -> None:
        """Let go of everything; the owner's lock last."""
        for name in ("boot", "snapshots", "made"):
            if name in self.__dict__:
                getattr(self, name).close()
        self.keeper.close()
        self.database.close()
        self.owner.close()


def read_text(path: str, limit: int = 1 << 20) -> str:
    """The beginning of a text file; an empty string if it does not exist."""
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode(errors="replace")
    except FileNotFoundError:
        return ""


__all__ = ["Notice", "Services", "read_text"]
