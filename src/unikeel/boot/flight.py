"""Doing a thing once, whoever asks, however many at once, in one process or in many, and within a time.

The lock is a ``flock`` on a file: whoever holds it works, the others wait, look again and find the work done. The kernel gives
the lock of a process that dies to the next one waiting. The work runs in a thread of its own, so that a caller whose time
is up (or who is cancelled) goes away without cancelling it: what it makes serves the next caller.
"""

from __future__ import annotations

import threading
from _thread import start_new_thread
from collections.abc import Callable

from unikeel.errors import DeadlineExceeded
from unikeel.kernel.locks import locked
from unikeel.lean import Generic, TypeVar

T = TypeVar("T")


class _Job(Generic[T]):
    """Work under a lock, its outcome, and whether somebody still waits for it."""

    def __init__(self, path: str, work: Callable[[], T], afterwards: Callable[[], None] | None) -> None:
        self._path = path
        self._work = work
        self._afterwards = afterwards
        self._turn = threading.Lock()
        self._abandoned = False
        self.finished = threading.Event()
        self.result: list[T] = []
        self.error: BaseException | None = None

    def run(self, discard: Callable[[T], None]) -> None:
        try:
            with locked(self._path):
                result = self._work()
                if self._given(result):
                    self.finished.set()
                else:
                    discard(result)
                if self._afterwards is not None:
                    self._afterwards()
        except BaseException as error:  # noqa: BLE001 - handed to who waits
            self.error = error
        finally:
            self.finished.set()

    def _given(self, result: T) -> bool:
        """Whether somebody waits for it still."""
        with self._turn:
            if not self._abandoned:
                self.result.append(result)
            return not self._abandoned

    def abandon(self) -> bool:
        """Nobody waits any more; False if the result is already there."""
        with self._turn:
            self._abandoned = not self.result
            return self._abandoned


def once(
    path: str,
    seconds: float,
    what: str,
    work: Callable[[], T],
    discard: Callable[[T], None],
    meanwhile: Callable[[], None] | None = None,
    afterwards: Callable[[], None] | None = None,
) -> T:
    """What ``work`` gives, done under the lock at ``path``; waiting for the lock and working take at most ``seconds``.

    :param work: looks first whether another has done it meanwhile. It must bound itself: it is not interrupted.
    :param discard: is given a result that came too late. :param meanwhile: what the caller does before it waits.
    :param afterwards: what is still done under the lock while the caller has its result; it must not raise.
    :raise DeadlineExceeded: the time is up; the work goes on.
    """
    job = _Job(path, work, afterwards)
    start_new_thread(job.run, (discard,))  # threading.Thread would wait until it runs
    try:
        if meanwhile is not None:
            meanwhile()
        in_time = job.finished.wait(seconds)
    except BaseException:
        if not job.abandon():
            discard(job.result[0])
        raise
    if not in_time and job.abandon():
        raise DeadlineExceeded(
            f"{what} took longer than {seconds:g} s", "raise boot.seconds, or see what the disk does"
        )
    job.finished.wait()
    if not job.result:
        assert job.error is not None
        raise job.error
    return job.result[0]
