"""``memory``: what the daemon and its keeper hold with no task and with many, what a task takes beside its monitor, and runc's shim for comparison.

``task_pss`` has three scenarios: ``beside-monitor``: how much more the keeper and the daemon hold with N tasks than with none, and their helpers,
divided by N; ``monitor``: a monitor itself; ``shim``: a shim of containerd's own runtime, running busybox.
"""

from __future__ import annotations

import asyncio
from typing import Final

from unikeel.bench.containerd.inside import containers
from unikeel.bench.containerd.inside.processes import MB, helpers, named, pss, resident
from unikeel.bench.containerd.inside.session import Session
from unikeel.bench.containerd.inside.tasks import BUSYBOX, ours, sampled
from unikeel.bench.containerd.plan import RUNC, UNIKEEL
from unikeel.bench.reporting import rotated
from unikeel.errors import UnikeelError

_STRATEGIES: Final = ("shared-view", "cache")
#: Seconds after which what a start needed for a moment has been given back.
_SETTLED: Final = 1.0


async def measure(session: Session) -> None:
    """Rounds of our tasks by two strategies, and of runc's."""
    for strategy in _STRATEGIES:
        await sampled(session, ours("hello", strategy), count=False)
    count = session.request.siblings
    for number in range(session.request.first, session.request.first + session.request.rounds):
        session.begin_round()
        for strategy in rotated(_STRATEGIES, number):
            await _ours(session, strategy, count)
        await _shims(session, count)


async def _ours(session: Session, strategy: str, count: int) -> None:
    idle = session.key("idle", "daemon_pss", None, None, UNIKEEL, unit="MB", concurrency=None)
    full = session.key("idle", "daemon_pss", "hello", strategy, UNIKEEL, unit="MB", concurrency=None, siblings=count)
    each = full._replace(scenario="beside-monitor", metric="task_pss")
    monitor = each._replace(scenario="monitor")
    try:
        before = resident().pss
        async with containers.running(session, [ours("hello", strategy)], count):
            await asyncio.sleep(_SETTLED)
            pair, monitors = resident(), set(named("qemu-system"))
            if len(monitors) != count:
                raise UnikeelError(f"{len(monitors)} monitors run instead of {count}")
            beside = sum(pss(pid) for pid in helpers(pair, monitors)) / MB
            session.sample(idle, before)
            session.sample(full, pair.pss)
            session.sample(each, (pair.pss + beside - before) / count)
            session.sample(monitor, sum(map(pss, monitors)) / MB / count)
    except (UnikeelError, OSError) as error:
        session.failure([idle, full, each, monitor], error)


async def _shims(session: Session, count: int) -> None:
    key = session.key("shim", "task_pss", "busybox", None, RUNC, unit="MB", concurrency=None, siblings=count)
    try:
        async with containers.running(session, [BUSYBOX], count):
            await asyncio.sleep(_SETTLED)
            shims = named("containerd-shim")
            if len(shims) != count:
                raise UnikeelError(f"{len(shims)} shims run instead of {count}")
            session.sample(key, sum(map(pss, shims)) / MB / count)
    except (UnikeelError, OSError) as error:
        session.failure([key], error)
