"""From worker threads to the event loop that containerd's client belongs to."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from unikeel.errors import DeadlineExceeded, Internal, Unavailable

T = TypeVar("T")

#: Seconds beyond what the calls allow themselves.
_GRACE: Final = 5.0


class Bridge:
    """Runs coroutines on a loop, for threads that wait for them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def call(self, coroutine: Coroutine[Any, Any, T], seconds: float) -> T:
        """What a coroutine gives.

        :param seconds: how long its calls may take together; it is cancelled soon after.
        :raise DeadlineExceeded: it took longer. :raise Unavailable: the loop is closed.
        """
        try:
            if asyncio.get_running_loop() is self._loop:
                coroutine.close()
                raise Internal("the event loop would wait for itself")
        except RuntimeError:
            pass
        return self.wait(self.start(coroutine), seconds)

    def start(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Have a coroutine run, to be waited for later. :raise Unavailable: the loop is closed."""
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise Unavailable("the daemon is ending") from None

    def wait(self, future: concurrent.futures.Future[T], seconds: float) -> T:
        """What a coroutine that was started gives. Parameters and errors as of :meth:`call`."""
        try:
            return future.result(seconds + _GRACE)
        except concurrent.futures.CancelledError:
            raise Unavailable("the daemon is ending") from None
        except concurrent.futures.TimeoutError:
            if future.done():
                raise
            future.cancel()
            raise DeadlineExceeded(f"containerd did not answer within {seconds:g} s") from None
