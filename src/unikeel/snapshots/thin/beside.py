"""Something done in another thread while this one waits for the kernel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unikeel.lean import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

T = TypeVar("T")
_THREADS: Final = 16


class Beside:
    """Threads that are made when they are first wanted, until :meth:`close`."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    @contextmanager
    def __call__(self, work: Callable[[], T]) -> Iterator[Future[T]]:
        """Do the work while the block runs. It has ended when the block ends, however that does; what it raises is raised then, unless the block did."""
        doing = self._pool().submit(work)
        try:
            yield doing
        except BaseException:
            doing.exception()
            raise
        doing.result()

    def _pool(self) -> ThreadPoolExecutor:
        with self._turn:
            if self._threads is None:
                from concurrent.futures import ThreadPoolExecutor

                self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="thin")
            return self._threads

    def close(self) -> None:
        """End the threads. Closing twice is fine."""
        with self._turn:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown()
