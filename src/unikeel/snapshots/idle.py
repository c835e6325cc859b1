"""When a store has nothing to do for anybody, so that work which nobody waits for is in nobody's way.

The answer to a call is not its end: whoever called goes on with it, on the same processors and the same disk. So a store counts as idle only some time after
its last call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unikeel.lean import Final

#: How long nobody must have called, in seconds.
QUIET: Final = 0.5
#: How long work can be put off, in seconds: in a store that is never idle it is done all the same, now and then.
PATIENCE: Final = 3.0


class Idleness:
    """Knows a store's calls. A call costs next to nothing, takes no lock and wakes nobody.

    :param clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._under_way: set[object] = set()
        self._ended = clock() - QUIET

    @contextmanager
    def calling(self) -> Iterator[None]:
        """A call is being answered."""
        call = object()
        self._under_way.add(call)
        try:
            yield
        finally:
            self._ended = self._clock()
            self._under_way.discard(call)

    def put_off(self, since: float) -> float:
        """For how many seconds work is to be put off that was wanted at this time, at least; 0: now is the time for it."""
        now = self._clock()
        left = since + PATIENCE - now
        quiet = QUIET if self._under_way else self._ended + QUIET - now
        return max(0.0, min(left, quiet))
