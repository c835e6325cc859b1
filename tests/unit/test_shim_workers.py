"""Threads asked from the event loop: results and errors come back, some at once, none after the end."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest

from ttrpc_service import run
from unikeel.errors import Unavailable
from unikeel.shim.workers import Workers


def test_results_and_errors_come_back() -> None:
    async def test() -> None:
        workers = Workers(2)
        assert await workers.run(lambda: 5) == 5
        with pytest.raises(KeyError):
            await workers.run(lambda: {"a": 1}["b"])
        workers.close()
        with pytest.raises(Unavailable):
            workers.run(lambda: 5)

    run(test)


def test_as_many_at_once_as_there_are_threads() -> None:
    async def test() -> None:
        workers, both = Workers(2), threading.Barrier(2, timeout=10)
        await asyncio.gather(workers.run(both.wait), workers.run(both.wait))
        names: set[str] = set()
        await asyncio.gather(*(workers.run(lambda: names.add(threading.current_thread().name)) for _ in range(20)))
        assert names <= {"work-0", "work-1"}
        workers.close()

    run(test)


def test_who_gives_up_harms_nobody() -> None:
    async def test() -> None:
        workers = Workers(1)
        task = asyncio.ensure_future(workers.run(lambda: time.sleep(0.05)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task, 0.01)
        assert await workers.run(lambda: 7) == 7
        workers.close()

    run(test)


def test_what_is_under_way_at_the_end_is_told_still() -> None:
    async def test() -> None:
        before = set(os.listdir("/proc/self/fd"))
        workers, both, go = Workers(1), threading.Barrier(2, timeout=60), threading.Event()
        under_way = workers.run(lambda: both.wait() < 2 and go.wait(60))
        waiting = workers.run(lambda: 5)
        both.wait()
        workers.close()
        go.set()
        assert await under_way
        assert waiting.cancelled()
        assert set(os.listdir("/proc/self/fd")) == before

    run(test)
