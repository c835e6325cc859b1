"""``full``: Prepare in a store with few snapshots and in one with many, at the snapshotter's own socket.

containerd's database grows with every snapshot made over it, too, and is not what is asked about. Nor is what the file system still has to write after so many
were made in seconds (XFS goes on for several): that is waited for. The store is left full: it is the last block of a world.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Final

from unikeel.bench.snapshotter.inside.filling import fill
from unikeel.bench.snapshotter.inside.session import LONG, Contender, Session, ms_since
from unikeel.containerd.snapshots import Snapshots
from unikeel.errors import UnikeelError

#: Seconds for each snapshot in it that a store rests after everything was written, until it is timed.
_REST: Final = 0.002


async def measure(session: Session) -> None:
    """Both stores of each contender, the one with fewer first."""
    request = session.request
    for contender in request.contenders:
        store = session.straight(contender)
        if store is None:
            continue
        parent = await session.parent_at_socket(contender)
        there = 0
        for siblings in (request.few, request.many):
            names = [session.name("full") for _ in range(siblings - there)]
            await asyncio.to_thread(fill, contender, parent, names)
            there = siblings
            await asyncio.to_thread(os.sync)
            await asyncio.sleep(siblings * _REST)
            session.begin_round()
            for number in range(request.samples + 1):
                await _sample(session, contender, store, parent, siblings, count=number > 0)


async def _sample(
    session: Session, contender: Contender, store: Snapshots, parent: str, siblings: int, *, count: bool
) -> None:
    key = session.key("full", "prepare", contender, siblings=siblings)
    name = session.name("sample")
    try:
        begun = time.perf_counter_ns()
        await store.prepare(name, parent, timeout=LONG)
        taken = ms_since(begun)
        await store.remove(name, timeout=LONG)
    except UnikeelError as error:
        session.failure([key], error)
        return
    if count:
        session.sample(key, taken)
