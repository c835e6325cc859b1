"""Time-outs of many short calls, with one timer of the event loop among them.

Hardly any call is late. A timer for each costs more than all else that a call does here: it is made, put into the loop's heap, cancelled, and taken out in the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable

Late = Callable[[], object]


class Deadlines:
    """The time-outs of one connection's calls, each known by a key. Belongs to one event loop; :meth:`clear` ends it.

    :param loop: which one.
    """

    def __init__(self, loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.get_running_loop) -> None:
        self._loop = loop
        self._due: dict[Hashable, tuple[float, Late]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0

    def add(self, key: Hashable, when: float, late: Late) -> None:
        """Have ``late`` called at a time of the event loop's clock, unless :meth:`remove` comes before."""
        self._due[key] = (when, late)
        if self._timer is None or when < self._at:
            self._set(when)

    def remove(self, key: Hashable) -> None:
        """It is done, or was never added. The timer stays for those that come: they will be later."""
        self._due.pop(key, None)

    def clear(self) -> None:
        """Call nobody any more."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at = when
        self._timer = self._loop().call_at(when, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._loop().time()
        late = [(key, call) for key, (when, call) in self._due.items() if when <= now]
        for key, _ in late:
            del self._due[key]
        if self._due:
            self._set(min(when for when, _ in self._due.values()))
        for _, call in late:
            call()
