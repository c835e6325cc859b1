"""What the task service works with: records, stores, keeper, one writer; and where a task's things are."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from unikeel.boot.contract import Limits
from unikeel.boot.ledger import Ledger
from unikeel.boot.mounted import Mounter
from unikeel.boot.service import BootFiles
from unikeel.config import Config
from unikeel.containerd.bridge import Bridge
from unikeel.containerd.reach import ContainerdReach
from unikeel.eager import begun
from unikeel.engine.disk_making import DiskMaker, MakingLimits
from unikeel.engine.layout import Layout, daemon_directory, open_layout
from unikeel.engine.services import Notice, Services
from unikeel.engine.tasks import Tasks
from unikeel.errors import InvalidArgument, PermissionDenied, of_system
from unikeel.keeper.client import KeeperClient, KeeperSettings
from unikeel.records.writer import Change, Writer
from unikeel.sandbox.root import prepare_root
from unikeel.shim.outbox import Outbox
from unikeel.shim.outcomes import Outcomes
from unikeel.shim.workers import Workers

if TYPE_CHECKING:
    from unikeel.daemon.metrics import Metrics
    from unikeel.monitors.contract import Facts
    from unikeel.monitors.kvm_probe import Acceleration

T = TypeVar("T")
P = ParamSpec("P")
#: Short: an event of which it is not written down that containerd took it is told again by the next daemon. Whatever else is written meanwhile takes it along,
#: the task's own next change above all.
_FLUSH_SECONDS: Final = 0.5
_DIRECTORIES: Final = ("c", "r", "tasks")


class TaskLayout(Layout):
    """Where things of tasks are: a state root whose ``run`` is the daemon's directory."""

    __slots__ = ()

    def container(self, ident: str) -> str:
        return f"{self.run}/tasks/{ident}"  # asked for a dozen times a start

    def bundle(self, ident: str) -> str:
        return f"{self.run}/tasks/{ident}/bundle"

    @property
    def trial(self) -> str:
        return os.path.join(self.run, "trial")

    @property
    def launch_socket(self) -> str:
        """Where the launcher asks."""
        return os.path.join(self.run, "launch.sock")

    def task_socket(self, short: str) -> str:
        """Where a containerd talks to its tasks of one namespace."""
        return os.path.join(self.run, "c", f"{short}.sock")

    def relay_socket(self, ident: str) -> str:
        """Where a containerd talks to a pod's pause container, by way of us."""
        return os.path.join(self.run, "r", f"{ident}.sock")

    @property
    def metrics_socket(self) -> str:
        """Where metrics can be read."""
        return os.path.join(self.run, "metrics.sock")


def open_task_layout(root: str, config: Config) -> TaskLayout:
    """The state root with the daemon's directory, made as far as it is missing. Errors: :func:`open_layout`."""
    root = os.path.abspath(root)
    run = daemon_directory(root, config.run_root)
    open_layout(root, os.path.dirname(run))
    try:
        for name in ("", *_DIRECTORIES):
            os.makedirs(os.path.join(run, name), mode=0o700, exist_ok=True)
    except PermissionError as error:
        raise PermissionDenied(f"{run} cannot be made: {error.strerror}", "run as root") from error
    except OSError as error:
        raise InvalidArgument(f"{run} cannot be made: {error.strerror}") from error
    return TaskLayout(root, run)


class TaskServices(Services):
    """What the steps of a task's life work with. Used by several threads."""

    layout: TaskLayout

    def __init__(self, layout: TaskLayout, config: Config, notice: Notice) -> None:
        super().__init__(layout, config, notice)
        self.keeper = KeeperClient(KeeperSettings(layout.run, starts=False))
        self.tasks = Tasks(self.database, config.sandbox_uid_count)
        Ledger(self.database)  # whose tables the next one needs
        self.reach = ContainerdReach(self.database, Bridge(asyncio.get_running_loop()), layout.run)
        self._facts: dict[str, tuple[tuple[int, ...], Facts]] = {}
        self._accelerations: dict[tuple[str, str], Acceleration] = {}
        self._prepared: set[tuple[str, ...]] = set()

    def facts(self, monitor: str) -> Facts:
        """What is true of a monitor, remembered for as long as its program is the same file."""
        known = self._facts.get(monitor)
        if known is not None and _file_identity(known[1].path) == known[0]:
            return known[1]
        found = super().facts(monitor)
        self._facts[monitor] = (_file_identity(found.path), found)
        return found

    def acceleration(self, facts: Facts, wish: str) -> Acceleration:
        """Which accelerator guests get, remembered as long as the monitor's facts are the same."""
        key = (facts.identity, wish)
        found = self._accelerations.get(key)
        if found is None:
            found = self._accelerations[key] = super().acceleration(facts, wish)
        return found

    def prepare_root(self, binds: tuple[str, ...]) -> None:
        """Have the root of all sandboxes, with these mount points; made once. :raise Unavailable: the host lacks one of them."""
        root = self.layout.sandbox_root
        if binds not in self._prepared or not os.path.isdir(root):
            prepare_root(root, binds)
            self._prepared.add(binds)

    @cached_property
    def boot(self) -> BootFiles:
        """The boot files of containerd's snapshots."""
        config = self.config
        return BootFiles(
            self.layout.boot,
            self.database,
            self.owner,
            self.intents,
            self.keeper,
            self.reach,
            cache_size=config.boot_cache_size,
            limits=Limits(
                kernel_size=config.boot_kernel_limit,
                initrd_size=config.boot_initrd_limit,
                seconds=config.boot_fill_timeout,
            ),
            layers=self.reach,
            linger=config.boot_view_linger,
        )

    @cached_property
    def disks(self) -> DiskMaker:
        """Who makes disks for guests where containerd has none to give."""
        config = self.config
        limits = MakingLimits(config.containerd_made_limit, config.snapshots_free_space, config.containerd_made_timeout)
        locks = os.path.join(self.layout.snapshots, "locks")
        return DiskMaker(self.made, self.reach, Mounter(locks), locks, limits)

    def tend(self) -> None:
        """What is due from time to time: shared views and made disks that nobody has used for a while, leases that end."""
        self.boot.tick()
        self.made.tick(self.config.containerd_made_linger, self.reach.is_gone)


async def _told(coroutine: Coroutine[Any, Any, T], waiter: asyncio.Future[T]) -> None:
    """Run something, and tell a future, unless nobody waits for that any more, what came of it."""
    try:
        result = await coroutine
    except asyncio.CancelledError:
        waiter.cancel()
        raise
    except BaseException as error:  # noqa: BLE001 - it is handed to whoever waits
        if not waiter.done():
            waiter.set_exception(error)
    else:
        if not waiter.done():
            waiter.set_result(result)


def _file_identity(path: str) -> tuple[int, ...]:
    try:
        info = os.stat(path)
    except OSError:
        return ()
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


class Node:
    """The task service's means, for one process and its event loop."""

    def __init__(self, services: TaskServices, metrics: Metrics) -> None:
        self.services = services
        self.layout = services.layout
        self.config = services.config
        self.keeper = services.keeper
        self.tasks = services.tasks
        self.metrics = metrics
        self.outcomes = Outcomes(services.database)
        self.outbox = Outbox(services.database)
        self.writer = Writer(services.database)
        self._workers = Workers(services.config.daemon_workers)
        self._flushing: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Future[Any]] = set()

    async def work(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Do something that may block, in one of the workers. What the kernel refuses is told as an error of ours."""
        try:
            return await self._workers.run(partial(function, *arguments, **named))
        except OSError as error:
            raise of_system(error, "the daemon's log may tell more") from error

    async def finish(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something to its end even if who asked for it goes away meanwhile; its result."""
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.begin(_told(coroutine, waiter))
        return await waiter

    def begin(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run something that nobody waits for."""
        self._keep(begun(coroutine))

    def _keep(self, future: asyncio.Future[Any]) -> None:
        if not future.done():
            self._running.add(future)
            future.add_done_callback(self._ended)
        elif not future.cancelled():
            future.exception()

    def later(self, change: Change[object]) -> None:
        """Have a change made soon, together with others; nobody waits for it, and to lose it does little harm. From the event loop."""
        self.writer.later(change)
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        self._flushing = None
        if self.writer.waiting:
            self._keep(self._workers.run(self.writer.flush))

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody else needs to know

    async def settle(self, seconds: float) -> None:
        """Wait for what runs, for a time."""
        if self._running:
            await asyncio.wait(list(self._running), timeout=seconds)

    def close(self) -> None:
        """Write what is to be written, and let go of everything."""
        self._workers.close()
        self.writer.close()
        self.services.close()
