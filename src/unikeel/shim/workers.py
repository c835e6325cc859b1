"""Threads for what may block, asked from an event loop.

As an executor of the standard library, with less around each piece of work: the way there and back is a good part of what a start costs the daemon. What is done comes back
by a descriptor of our own, since the loop's own way reads until there is nothing left, and makes a handle for each.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from unikeel.errors import Unavailable
from unikeel.values import NamedTuple

T = TypeVar("T")
_NAME: Final = "work"


class _Piece(NamedTuple):
    future: asyncio.Future[Any]
    function: Callable[[], Any]


class Workers:
    """Up to so many threads, which are started as they are needed and never keep a process from ending. For one event loop, until :meth:`close`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._queue: SimpleQueue[_Piece | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._under_way = 0
        self._closed = False
        #: What is done, and how the event loop is told (-1: nobody works).
        self._done: deque[tuple[asyncio.Future[Any], object, BaseException | None]] = deque()
        self._wake = -1
        self._telling = threading.Lock()

    def run(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Have something done, from the event loop's thread; its result, or what it raised. :raise Unavailable: all is over."""
        if self._closed:
            raise Unavailable("the daemon is ending")
        loop = asyncio.get_running_loop()
        if self._wake < 0:
            self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            loop.add_reader(self._wake, self._take)
        future: asyncio.Future[T] = loop.create_future()
        self._under_way += 1
        if self._under_way > len(self._threads) and len(self._threads) < self._most:
            thread = threading.Thread(target=self._work, name=f"{_NAME}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._queue.put(_Piece(future, function))
        return future

    def _work(self) -> None:
        while (piece := self._queue.get()) is not None:
            result: object = None
            error: BaseException | None = None
            try:
                result = piece.function()
            except BaseException as raised:  # noqa: BLE001 - it is handed to whoever waits
                error = raised
            with self._telling:
                self._done.append((piece.future, result, error))
                os.eventfd_write(self._wake, 1)
            del piece, result, error

    def _take(self) -> None:
        os.eventfd_read(self._wake)
        while self._done:
            self._settle(*self._done.popleft())
        if self._closed:
            self._hang_up()

    def _settle(self, future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
        self._under_way -= 1
        if future.done():
            return  # whoever waited was cancelled
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def close(self) -> None:
        """Begin nothing any more; what is under way goes on, and is told while the event loop runs. From the event loop."""
        self._closed = True
        try:
            while True:
                piece = self._queue.get_nowait()
                if piece is not None:
                    self._under_way -= 1
                    piece.future.cancel()
        except Empty:
            pass
        for _ in self._threads:
            self._queue.put(None)
        self._hang_up()

    def _hang_up(self) -> None:
        """Close the way back, once nobody is under way who would write to it."""
        if self._wake >= 0 and not self._under_way:
            asyncio.get_running_loop().remove_reader(self._wake)
            with self._telling:  # who has just done the last piece has told it, too
                os.close(self._wake)
                self._wake = -1
