"""The daemon's snapshotter: a socket for each consumer, a store behind each, and what is due from time to time.

Consumers are named in the configuration (``snapshotter.sockets``). The sockets are lent by the keeper, so that a containerd which calls while
one daemon ends and the next begins waits instead of being refused: it hands over who came meanwhile. A store is opened with its first call. One process serves the
snapshots of a state root; where another one does already, this one has no snapshotter and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from unikeel.config import Config
from unikeel.daemon.metrics import Metrics
from unikeel.daemon.pooling import PoolTending
from unikeel.engine.layout import Layout, snapshot_socket
from unikeel.errors import FailedPrecondition, UnikeelError, of_system
from unikeel.keeper.client import KeeperClient
from unikeel.records.database import Database
from unikeel.records.owners import Owner
from unikeel.shim.workers import Workers
from unikeel.snapshots.contract import SnapshotStore
from unikeel.snapshots.service.claim import Claim
from unikeel.snapshots.service.handlers import SnapshotsService
from unikeel.snapshots.service.opening import Opening
from unikeel.snapshots.service.serving import Serving
from unikeel.snapshots.stores import Spares, StorePlace, open_store, socket_consumer

_LOG: Final = logging.getLogger("unikeel.snapshots")
#: Seconds between looks for removed snapshots whose space nobody has asked to be given back.
_TEND_SECONDS: Final = 30.0
#: Seconds that calls have to be answered once the daemon is told to end.
_SETTLE_SECONDS: Final = 5.0

Work = Callable[[Callable[[], Any]], Awaitable[Any]]


class _Consumer:
    """One socket and what is behind it."""

    def __init__(self, name: str, opening: Opening, service: SnapshotsService, path: str) -> None:
        self.name = name
        self.opening = opening
        self.service = service
        self.path = path
        self.serving: Serving | None = None


class Snapshotter:
    """All consumers. :meth:`begin` before anything is answered, :meth:`close` at the end."""

    def __init__(
        self, layout: Layout, config: Config, database: Database, owner: Owner, keeper: KeeperClient, metrics: Metrics
    ) -> None:
        self._layout = layout
        self._config = config
        self._keeper = keeper
        self._metrics = metrics
        self._workers = Workers(config.snapshotter_workers)
        self._claim: Claim | None = None
        self._tending: asyncio.Task[None] | None = None
        self.pools = PoolTending(layout.pools, database)
        size = config.snapshotter_empty_size
        spares = Spares(config.snapshotter_spares, config.snapshotter_spares_total)
        place = StorePlace(
            layout.snapshots, database, owner.token, owner.is_dead, size, layout.pools, _LOG.warning, spares
        )
        self._consumers = [self._consumer(name, place) for name in config.snapshotter_sockets.split()]

    def _consumer(self, name: str, place: StorePlace) -> _Consumer:
        store = self._config.snapshotter_store
        opening = Opening(lambda: _opened(store, place, name), store)
        path = snapshot_socket(self._layout.root, self._config.run_root, name)
        return _Consumer(name, opening, SnapshotsService(opening, self._workers.run, self._told), path)

    def _told(self, method: str, seconds: float, error: str) -> None:
        self._metrics.took(f"snapshots {method}", seconds)
        if error:
            self._metrics.failed(f"snapshots {method}", error)

    @property
    def paths(self) -> list[str]:
        """Where it is served."""
        return [consumer.path for consumer in self._consumers]

    async def begin(self) -> None:
        """Serve. :raise FailedPrecondition: another process serves this state root's snapshots. :raise Unavailable: there can be no socket."""
        self._claim = Claim(self._layout.root)
        await self._workers.run(self.pools.begin)
        await self._workers.run(lambda: self._keeper.hold_only(consumer.name for consumer in self._consumers))
        for consumer in self._consumers:
            sock, waiting = await self._workers.run(partial(self._listen, consumer))
            consumer.serving = Serving(sock, consumer.service, waiting)
            consumer.serving.begin()
            _LOG.info("serving the snapshots of %s at %s", consumer.name, consumer.path)
        self._tending = asyncio.get_running_loop().create_task(self._tend())

    def _listen(self, consumer: _Consumer) -> tuple[Any, list[Any]]:  # sockets, which commands do not import
        try:
            os.makedirs(os.path.dirname(consumer.path), mode=0o700, exist_ok=True)
        except OSError as error:
            raise of_system(error) from error
        sock = self._keeper.listener(consumer.name, consumer.path)
        try:
            return sock, self._keeper.waiting(consumer.name)
        except BaseException:
            sock.close()
            raise

    async def try_to_begin(self) -> None:
        """The same; another process that serves them is fine, and what fails otherwise is told in the log."""
        try:
            await self.begin()
        except FailedPrecondition as error:
            _LOG.info("no snapshots are served here: %s", error.message)
        except UnikeelError as error:
            _LOG.error("no snapshots are served: %s", error)

    async def _tend(self) -> None:
        """Look at the pools, and give back the space of removed snapshots that no call for it came after."""
        while True:
            await asyncio.sleep(_TEND_SECONDS)
            await self._workers.run(self.pools.look)
            for consumer in self._consumers:
                if not consumer.service.dirty:
                    continue
                try:
                    await consumer.service.cleanup()
                except (UnikeelError, OSError) as error:
                    _LOG.warning("removed snapshots of %s still take space: %s", consumer.name, error)

    async def close(self) -> None:
        """Finish what is being answered, for a while; then answer nobody any more, let go of the stores, and of the claim."""
        if self._tending is not None:
            self._tending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._tending
        await asyncio.gather(*(consumer.service.settle(_SETTLE_SECONDS) for consumer in self._consumers))
        for consumer in self._consumers:
            if consumer.serving is not None:
                await consumer.serving.close()
        self._workers.close()
        for consumer in self._consumers:
            consumer.opening.close()
        if self._claim is not None:
            self._claim.close()


def _opened(store: str, place: StorePlace, name: str) -> SnapshotStore:
    """The store as the consumer of this name sees it; flushes of its records are cheap from now on."""
    place.database.reserve_log()
    return open_store(store, place, socket_consumer(name))
