"""``crowd`` and ``hundred``: many Prepares of one parent at once, by containerd: until the last is there, and how long after the first that is."""

from __future__ import annotations

import asyncio
import time

from unikeel.bench.reporting import rotated
from unikeel.bench.snapshotter.inside.session import KEPT, LONG, Contender, Session, ms_since
from unikeel.containerd.snapshots import Snapshots
from unikeel.errors import UnikeelError


async def measure(session: Session) -> None:
    """A crowd of each contender in each round. Before the first one there is one that is not counted for those that make snapshots ahead, by what was wanted lately."""
    for contender in session.request.contenders:
        if contender.spares:
            await _round(session, contender, count=False)
    for number in session.request.numbers:
        session.begin_round()
        for contender in rotated(session.request.contenders, number):
            await session.spares_made(contender, session.request.many)
            await _round(session, contender, count=True)


async def _round(session: Session, contender: Contender, *, count: bool) -> None:
    many, scenario = session.request.many, session.request.group
    last = session.key(scenario, "prepare_last", contender, concurrency=many)
    gap = last._replace(metric="prepare_gap")
    names = [session.name("crowd") for _ in range(many)]
    store = session.through(contender)
    try:
        begun = time.perf_counter_ns()
        work = [_prepared(store, name, contender.parent, begun) for name in names]
        times = await asyncio.gather(*work, return_exceptions=True)
        failed = [time for time in times if isinstance(time, BaseException)]
        if failed:
            session.failure([last, gap], f"{len(failed)} of {many} failed, the first: {failed[0]}")
        elif count:
            done = [time for time in times if isinstance(time, float)]
            session.sample(last, max(done))
            session.sample(gap, max(done) - min(done))
    finally:
        try:
            await session.clear(contender, names)
        except UnikeelError as error:
            session.failure([last, gap], error)


async def _prepared(store: Snapshots, name: str, parent: str, begun: int) -> float:
    """Milliseconds from the beginning of them all to this one's answer."""
    await store.prepare(name, parent, KEPT, timeout=LONG)
    return ms_since(begun)
