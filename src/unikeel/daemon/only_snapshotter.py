"""The daemon that serves nothing but snapshots: its own keeper beside that of the tasks' daemon, if there is one, and the same state root.

Its directory is ``snapshotter`` beside the other's ``daemon``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Final

from unikeel.config import Config
from unikeel.daemon import exporting
from unikeel.daemon.metrics import Gauge, Metrics
from unikeel.daemon.snapshotting import Snapshotter
from unikeel.engine.layout import Layout, daemon_directory, open_layout
from unikeel.errors import Unavailable, of_system
from unikeel.keeper.client import KeeperClient, KeeperSettings
from unikeel.records.database import Database
from unikeel.records.owners import Owner
from unikeel.shim.server import Server

_LOG: Final = logging.getLogger("unikeel.daemon")


def open_snapshotter_layout(root: str, config: Config) -> Layout:
    """The state root with this daemon's directory, made as far as it is missing. Errors: :func:`open_layout`."""
    root = os.path.abspath(root)
    parent = os.path.dirname(daemon_directory(root, config.run_root))
    open_layout(root, parent)
    run = os.path.join(parent, "snapshotter")
    try:
        os.makedirs(run, mode=0o700, exist_ok=True)
    except OSError as error:
        raise of_system(error) from error
    return Layout(root, run)


class SnapshotterParts:
    """What this daemon is made of; as :class:`unikeel.daemon.parts.Parts`, without tasks."""

    def __init__(self, layout: Layout, config: Config) -> None:
        self.server = Server({})
        self._metrics = Metrics()
        self._address = config.daemon_metrics
        self._path = os.path.join(layout.run, "metrics.sock")
        self._servers: list[asyncio.Server] = []
        self._owner = Owner(layout.owners)
        try:
            self._database = Database(layout.database)
        except BaseException:
            self._owner.close()
            raise
        self._keeper = KeeperClient(KeeperSettings(layout.run, starts=False))
        self.snapshotter = Snapshotter(layout, config, self._database, self._owner, self._keeper, self._metrics)

    @property
    def summary(self) -> str:
        """What is served, for the log."""
        return f"snapshots at {', '.join(self.snapshotter.paths)}"

    async def begin(self) -> None:
        """Serve. Errors: :meth:`Snapshotter.begin`."""
        await self.snapshotter.begin()
        try:
            self._servers = await exporting.export(self._text, self._path, self._address)
        except Unavailable as error:
            _LOG.error("%s", error)

    async def _text(self) -> str:
        cpu = Gauge("cpu_seconds", "CPU time of the daemon.", [((), time.process_time())])
        return self._metrics.text([cpu, *self.snapshotter.pools.gauges()])

    def connection_closed(self, number: int, listener: str) -> None:
        """There are no connections by way of the keeper."""

    async def close(self) -> None:
        """Let go of everything; the owner's lock last."""
        for server in self._servers:
            server.close()
        await self.snapshotter.close()
        self._keeper.close()
        self._database.close()
        self._owner.close()
