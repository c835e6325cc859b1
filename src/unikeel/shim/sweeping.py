"""Tasks that could not be taken away when it was due: tried again from time to time, until it works."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from unikeel.errors import UnikeelError
from unikeel.model.task_states import TaskState

if TYPE_CHECKING:
    from unikeel.shim.live import Registry
    from unikeel.shim.making import Making

_LOG = logging.getLogger("unikeel.tasks")
_FIRST_SECONDS: Final = 5.0
_MOST_SECONDS: Final = 300.0


class Sweeper:
    """Takes away what is in the state ``deleting``."""

    def __init__(self, registry: Registry, making: Making) -> None:
        self._registry = registry
        self._making = making
        #: By task: when it is tried next, and how long is waited after that.
        self._waits: dict[str, tuple[float, float]] = {}

    async def sweep(self) -> None:
        """Try those again whose time has come."""
        left = {live.task.ident: live for live in self._registry if live.task.state is TaskState.DELETING}
        for ident in self._waits.keys() - left.keys():
            del self._waits[ident]
        for ident, live in left.items():
            due, pause = self._waits.get(ident, (0.0, _FIRST_SECONDS))
            if live.lock.locked() or time.monotonic() < due:
                continue
            try:
                await self._making.discard(live)
            except UnikeelError as error:
                _LOG.error("task %s is not taken away yet, tried again in %.0f s: %s", live.task.id, pause, error)
                self._waits[ident] = (time.monotonic() + pause, min(2 * pause, _MOST_SECONDS))
            else:
                _LOG.info("took task %s away", live.task.id)
