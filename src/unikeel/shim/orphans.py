"""Tasks that containerd has given up while nobody was there to hear it: found, ended and taken away.

containerd tells that it gives a task up by executing the launcher with ``delete``. If the daemon is away for longer than that waits, or containerd's
state was removed, a guest would run on that nobody can ask for any more. Two witnesses are heard, more than once, before a guest is ended: containerd's
task service, and either the bundle, which containerd makes before it asks for a task and removes after it has given it up, or the container's record. A
containerd that does not answer is no witness; one that has just started answers only when it has loaded its tasks.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from unikeel.engine.tasks import Task
from unikeel.errors import UnikeelError
from unikeel.model.task_states import TaskState
from unikeel.values import NamedTuple

if TYPE_CHECKING:
    from unikeel.shim.live import Live, Registry
    from unikeel.shim.making import Making

_LOG = logging.getLogger("unikeel.tasks")
#: For so long the witnesses must have said the same, in seconds: two looks and one more.
_GRACE: Final = 8.0
_BUSY: Final = frozenset({TaskState.CREATING, TaskState.DELETING})


class Known(NamedTuple):
    """What containerd knows: the task, the container that it is of."""

    task: bool
    container: bool


class Orphans:
    """Looks for them. ``ask`` asks a task's containerd, and raises an error of ours if that cannot be asked."""

    def __init__(self, registry: Registry, making: Making, ask: Callable[[Task], Awaitable[Known]]) -> None:
        self._registry = registry
        self._making = making
        self._ask = ask
        #: The tasks of an earlier daemon that containerd was not asked for yet. Of others a look at the bundle is enough.
        self._unsure: set[str] = set()
        #: Since when the witnesses have said that a task is given up.
        self._since: dict[str, float] = {}

    def doubt(self) -> None:
        """Ask containerd for each task that there is now: they are an earlier daemon's."""
        self._unsure = {live.task.ident for live in self._registry}

    async def sweep(self) -> None:
        """Look once, and take away what was given up for long enough."""
        suspects = {live.task.ident: live for live in self._registry if self._is_suspect(live)}
        self._unsure &= {live.task.ident for live in self._registry}
        self._since = {ident: since for ident, since in self._since.items() if ident in suspects}
        for live in suspects.values():
            await self._look(live)

    def _is_suspect(self, live: Live) -> bool:
        if live.task.state in _BUSY or live.lock.locked():
            return False  # somebody is at work on it
        return live.task.ident in self._unsure or not _has_bundle(live.task)

    async def _look(self, live: Live) -> None:
        ident = live.task.ident
        try:
            known = await self._ask(live.task)
        except UnikeelError:
            self._since.pop(ident, None)  # asked again
            return
        if known.task or (known.container and _has_bundle(live.task)):
            self._unsure.discard(ident)
            self._since.pop(ident, None)
            return
        if time.monotonic() - self._since.setdefault(ident, time.monotonic()) < _GRACE:
            return
        try:
            await self._making.discard(live)
        except UnikeelError as error:
            _LOG.error(
                "task %s, which containerd does not know any more, is not taken away yet: %s", live.task.id, error
            )
        else:
            _LOG.warning("took task %s away: containerd does not know it any more", live.task.id)


def _has_bundle(task: Task) -> bool:
    return os.path.isdir(task.asked("bundle"))
