"""``killed``: how long nobody answers for tasks whose daemon was killed: SIGKILL → containerd has the state of each of them from the next daemon.

The keeper lets a daemon that dies soon after its start wait for its successor; so each one has served for a while before it is killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from typing import Final

from unikeel.bench.containerd.inside import containers
from unikeel.bench.containerd.inside.containers import Prepared
from unikeel.bench.containerd.inside.processes import resident
from unikeel.bench.containerd.inside.session import Session
from unikeel.bench.containerd.inside.tasks import ours
from unikeel.bench.containerd.plan import UNIKEEL
from unikeel.containerd.records import RUNNING
from unikeel.errors import UnikeelError
from unikeel.kernel.pidfd import open_pid, send
from unikeel.records.owners import start_time

_STRATEGIES: Final = ("shared-view", "cache")
#: A daemon of this age, in seconds, has proved itself to the keeper (:mod:`unikeel.keeper.supervisor`).
_PROVED: Final = 12.0
#: How long an answer is waited for on a host that is very busy; containerd itself waits for 2 s.
_SECONDS: Final = 60.0
_PAUSE: Final = 0.01


async def measure(session: Session) -> None:
    """Rounds with the same tasks, which all of the deaths leave alone."""
    count = session.request.siblings
    key = session.key("killed", "daemon_return", "hello", None, UNIKEEL, concurrency=count, siblings=count)
    async with containers.running(session, [ours("hello", strategy) for strategy in _STRATEGIES], count) as prepared:
        for _ in range(session.request.rounds):
            await asyncio.sleep(max(0.0, _PROVED - _age(resident().daemon)))
            session.begin_round()
            try:
                session.sample(key, await _returned(session, prepared))
            except (UnikeelError, OSError) as error:
                session.failure([key], error)


def _age(pid: int) -> float:
    """For how many seconds a process has lived."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - start_time(pid) / os.sysconf("SC_CLK_TCK")


async def _returned(session: Session, prepared: Sequence[Prepared]) -> float:
    """Milliseconds until all are answered for. :raise UnikeelError: a task does not run as before, or nobody answers."""
    killed = resident().daemon
    with open_pid(killed) as process:
        begun = time.perf_counter_ns()
        send(process, signal.SIGKILL)
    await asyncio.gather(*(_runs(session, each) for each in prepared))
    took = (time.perf_counter_ns() - begun) / 1e6
    if resident().daemon == killed:
        raise UnikeelError("the daemon was not killed")
    return took


async def _runs(session: Session, prepared: Prepared) -> None:
    """Wait until containerd knows that a task runs. :raise UnikeelError: it does not."""
    end = time.monotonic() + _SECONDS
    while True:
        try:
            if (await session.containerd.tasks.get(prepared.id)).status == RUNNING:
                return
        except UnikeelError:
            if time.monotonic() > end:
                raise
        if time.monotonic() > end:
            raise UnikeelError(f"the task {prepared.id} does not run any more")
        await asyncio.sleep(_PAUSE)
