"""The daemon's care for pools: made ready when it begins, looked at from time to time, told of in the metrics."""

from __future__ import annotations

import logging
from typing import Final

from unikeel.daemon.metrics import Gauge, Labels
from unikeel.errors import UnikeelError
from unikeel.records.database import Database
from unikeel.snapshots.pools.lifecycle import reactivate, settle
from unikeel.snapshots.pools.means import means_of
from unikeel.snapshots.pools.registry import Registry
from unikeel.snapshots.pools.watching import FillWatch, PoolFill

_LOG: Final = logging.getLogger("unikeel.pools")


class PoolTending:
    """All pools of a state root. Methods may block for a moment: not for the event loop, but for :meth:`gauges`.

    :param directory: where pools are written down; it need not exist.
    """

    def __init__(self, directory: str, database: Database) -> None:
        self._registry = Registry(directory)
        self._database = database
        self._watches: dict[str, FillWatch] = {}
        self._fills: dict[str, PoolFill] = {}

    def begin(self) -> None:
        """Finish or undo what a kill left, activate the others as after a restart of the host, and look at them. What fails is told in the log."""
        if not self._registry.names():
            return
        from unikeel.snapshots.catalog import Catalog

        try:
            for sentence in settle(self._registry, Catalog(self._database).forget):
                _LOG.warning("%s", sentence)
        except (UnikeelError, OSError) as error:
            _LOG.error("a pool that was half made or half taken away stays so: %s", error)
        reactivate(self._registry, _LOG.error)
        self.look()

    def look(self) -> None:
        """See how full they are; what got worse is told in the log."""
        fills = {}
        for name in self._registry.names():
            try:
                pool = self._registry.find(name)
                means = means_of(self._registry, pool)
                if not means.is_active():
                    continue
                watch = self._watches.setdefault(pool.uuid, FillWatch(name, means.fill, notice=_LOG.warning))
                watch.verdict()
                fills[name] = watch.look()
            except (UnikeelError, OSError) as error:
                _LOG.warning("pool %s cannot be looked at: %s", name, error)
        self._fills = fills

    def gauges(self) -> list[Gauge]:
        """How full they were when last looked at."""
        used: list[tuple[Labels, float]] = []
        size: list[tuple[Labels, float]] = []
        for name, fill in self._fills.items():
            for room, found in (("data", fill.data), ("metadata", fill.metadata)):
                if found is not None:
                    labels = (("pool", name), ("room", room))
                    used.append((labels, found.used))
                    size.append((labels, found.total))
        if not used:
            return []
        return [
            Gauge("pool_used_bytes", "Bytes of pools that are in use.", used),
            Gauge("pool_size_bytes", "Bytes that pools have.", size),
        ]
