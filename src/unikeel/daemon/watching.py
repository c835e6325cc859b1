"""The ends of monitors, as the keeper tells them on a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from unikeel.errors import Unavailable
from unikeel.keeper.client import Connection, KeeperClient

#: It is there already; should it not be, the loop is not to stop for it.
_INSTANT = 0.001


class Watcher:
    """Passes on what the keeper tells: ``ended`` gets a task's name of ours; ``lost`` is called once, when the keeper is gone."""

    def __init__(self, ended: Callable[[str], None], lost: Callable[[], None]) -> None:
        self._ended = ended
        self._lost = lost
        self._connection: Connection | None = None

    def open(self, keeper: KeeperClient) -> None:
        """Watch from now on; what ended before is not told. Blocks for a moment. :raise Unavailable: there is no keeper."""
        self._connection = keeper.watch_all()

    def listen(self) -> None:
        """Have the running event loop read what is told."""
        assert self._connection is not None
        asyncio.get_running_loop().add_reader(self._connection.fileno(), self._readable)

    def _readable(self) -> None:
        if self._connection is None:
            return
        try:
            message = self._connection.event(_INSTANT)
        except Unavailable:
            self.close()
            self._lost()
            return
        if message is not None and message.get("event") == "exit":
            self._ended(str(message.get("id")))

    def close(self) -> None:
        """Watch no more."""
        connection, self._connection = self._connection, None
        if connection is not None:
            asyncio.get_running_loop().remove_reader(connection.fileno())
            connection.close()
