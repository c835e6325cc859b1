"""Threads for what may block, asked from an event loop.

As an executor of the standard library, with less around each piece of work: the way there and back is a good part of what a start costs the daemon.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from unikeel.errors import Unavailable
from unikeel.values import NamedTuple

T = TypeVar("T")
_NAME: Final = "work"


class _Piece(NamedTuple):
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    function: Callable[[], Any]


class Workers:
    """Up to so many threads, which are started as they are needed and never keep a process from ending."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._queue: SimpleQueue[_Piece | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._under_way = 0
        self._closed = False

    def run(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Have something done, from the event loop's thread; its result, or what it raised. :raise Unavailable: all is over."""
        if self._closed:
            raise Unavailable("the daemon is ending")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._under_way += 1
        if self._under_way > len(self._threads) and len(self._threads) < self._most:
            thread = threading.Thread(target=self._work, name=f"{_NAME}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._queue.put(_Piece(loop, future, function))
        return future

    def _work(self) -> None:
        while (piece := self._queue.get()) is not None:
            result: object = None
            error: BaseException | None = None
            try:
                result = piece.function()
            except BaseException as raised:  # noqa: BLE001 - it is handed to whoever waits
                error = raised
            try:
                piece.loop.call_soon_threadsafe(self._done, piece.future, result, error)
            except RuntimeError:
                return  # the loop is closed: nobody waits
            del piece, result, error

    def _done(self, future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
        self._under_way -= 1
        if future.done():
            return  # whoever waited was cancelled
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def close(self) -> None:
        """Begin nothing any more; what is under way goes on."""
        self._closed = True
        try:
            while True:
                piece = self._queue.get_nowait()
                if piece is not None:
                    piece.future.cancel()
        except Empty:
            pass
        for _ in self._threads:
            self._queue.put(None)
