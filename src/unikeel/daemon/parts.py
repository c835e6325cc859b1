"""What the daemon is made of, put together, for one event loop."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from unikeel.config import Config
from unikeel.daemon import exporting, reconciling
from unikeel.daemon.containerds import Containerds
from unikeel.daemon.control import ControlService
from unikeel.daemon.metrics import Metrics
from unikeel.daemon.snapshotting import Snapshotter
from unikeel.daemon.watching import Watcher
from unikeel.engine.tasks import Task
from unikeel.errors import Unavailable, UnikeelError
from unikeel.shim.desk import Desk
from unikeel.shim.ending import Ending
from unikeel.shim.launching import LauncherService
from unikeel.shim.live import TASKS, Registry
from unikeel.shim.looking import Looker
from unikeel.shim.making import Making
from unikeel.shim.node import Node, TaskLayout, TaskServices
from unikeel.shim.oom import OomWatch
from unikeel.shim.orphans import Known, Orphans
from unikeel.shim.publisher import Publisher
from unikeel.shim.running import Running
from unikeel.shim.server import Server
from unikeel.shim.service import TaskService
from unikeel.shim.sweeping import Sweeper

_LOG = logging.getLogger("unikeel.daemon")
_TEND_SECONDS = 5.0
_SETTLE_SECONDS = 8.0


class Parts:
    """The daemon's parts. :meth:`begin` before anything is served, :meth:`close` at the end.

    :param lost: called when the keeper is gone.
    """

    def __init__(
        self,
        layout: TaskLayout,
        config: Config,
        lost: Callable[[], None],
    ) -> None:
        services = TaskServices(layout, config, _LOG.warning)
        self.node = node = Node(services, Metrics())
        self.snapshotter = Snapshotter(layout, config, services.database, services.owner, services.keeper, node.metrics)
        self.registry = Registry()
        self.publisher = Publisher(node.outbox, node.later, self.registry.ttrpc)
        self.oom = OomWatch(self._limit_hit)
        self.desk = Desk(node, self.registry, self.publisher, self.oom)
        self.ending = Ending(self.desk)
        self.containerds = Containerds(services.reach, self._attached)
        self.looker = Looker(node, self.containerds.get)
        self.making = Making(self.desk, self.looker, self.ending)
        self.sweeper = Sweeper(self.registry, self.making)
        self.orphans = Orphans(self.registry, self.making, self._known)
        self.running = Running(self.desk, self.ending)
        self.watcher = Watcher(self.ending.told, lost)
        self.launcher = LauncherService(self.desk, self.looker, self.making)
        self.connections: Callable[[], int] = lambda: 0
        self.control = ControlService(node, self.registry, self._count, self.snapshotter.pools.gauges)
        task = TaskService(self.desk, self.making, self.running, os.getppid)
        self.server = Server({**task.services(), **self.launcher.services(), **self.control.services()})
        self._consumers: list[str] = []
        self._swept = False
        self._servers: list[asyncio.Server] = []
        self._tending: asyncio.Task[None] | None = None

    def _limit_hit(self, ident: str) -> None:
        self.ending.limit_hit(ident)

    async def _known(self, task: Task) -> Known:
        return await self.containerds.get(task.containerd).knows(task.namespace, task.id)

    def _count(self) -> int:
        return self.connections()

    @property
    def summary(self) -> str:
        """What is served, for the log."""
        return f"{len(self.registry)} tasks"

    async def begin(self) -> None:
        """Bring records and reality together; requests can be answered when this returns.

        Snapshots are served first: containerd, which is asked here, may have to ask for them.
        """
        node = self.node
        await self.snapshotter.try_to_begin()
        await node.work(self.watcher.open, node.keeper)
        await self.containerds.attach({place.containerd for place in node.tasks.places()})
        await node.work(reconciling.recover, node, self.registry)
        for consumer in self._consumers:
            await node.work(self._sweep, consumer)
        self._swept = True
        self.publisher.resume()
        self.orphans.doubt()
        await reconciling.resume(node, self.registry, self.ending, self.running, self.oom)
        self.watcher.listen()
        await node.work(self._warm_up)
        self._tending = asyncio.get_running_loop().create_task(self._tend())
        try:
            self._servers = await exporting.export(
                self.control.metrics, node.layout.metrics_socket, node.config.daemon_metrics
            )
        except Unavailable as error:
            _LOG.error("%s", error)

    def _attached(self, consumer: str) -> None:
        """A containerd has answered for the first time: what nobody claims of ours there goes, now or when all records are in order."""
        self._consumers.append(consumer)
        if self._swept:
            self.node.begin(self.node.work(self._sweep, consumer))

    def _sweep(self, consumer: str) -> None:
        try:
            for freed in self.node.services.reach.sweep(consumer):
                _LOG.info("took away a %s that nobody claims: %s", freed.kind, freed.name)
        except UnikeelError as error:
            _LOG.warning("%s is not swept: %s", consumer, error)

    def _warm_up(self) -> None:
        """What the first task would wait for: the choice of OCI runtime, the monitor's facts, imports. What fails is for the task to tell."""
        import qemu.qmp  # noqa: F401 - imported for what imports it later

        services = self.node.services
        for step in (lambda: services.sandboxes, lambda: services.acceleration(services.facts("qemu"), "")):
            try:
                step()
            except (UnikeelError, OSError) as error:
                _LOG.warning("%s", error)
        self.launcher.sweep_relays(restore=True)

    async def _tend(self) -> None:
        """What is due from time to time: views that nobody uses, leases that end, tasks that nobody has any more."""
        while True:
            await asyncio.sleep(_TEND_SECONDS)
            try:
                await self.node.work(self.node.services.tend)
                await self.node.work(self.launcher.sweep_relays)
                await self.sweeper.sweep()
                await self.orphans.sweep()
            except UnikeelError as error:
                _LOG.warning("%s", error)

    def connection_closed(self, number: int, listener: str) -> None:
        """A connection's peer is gone: nothing is asked again on it. The launcher's questions have no outcomes that are kept."""
        if listener.startswith(TASKS):
            self.node.later(lambda cursor: self.node.outcomes.forget(cursor, number))

    async def close(self) -> None:
        """Finish what is under way, for a while, and let go of everything."""
        if self._tending is not None:
            self._tending.cancel()
        for server in self._servers:
            server.close()
        await self.node.settle(_SETTLE_SECONDS)
        await self.publisher.close()
        await self.looker.close()
        self.watcher.close()
        self.oom.close()
        await self.node.work(self.node.services.reach.close)
        await self.snapshotter.close()
        self.node.close()
