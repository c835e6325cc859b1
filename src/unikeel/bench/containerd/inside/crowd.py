"""``crowd``: many creates at once of an image that nobody has started yet, by ``shared-view``: one view for all of them.

Each round has a containerd namespace of its own, with the image imported and unpacked anew: what is known of the image in another one is not known there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from unikeel.bench.containerd.inside import containers
from unikeel.bench.containerd.inside.containers import Prepared
from unikeel.bench.containerd.inside.session import Session
from unikeel.bench.containerd.inside.tasks import ours
from unikeel.bench.containerd.plan import UNIKEEL
from unikeel.containerd.records import VIEW
from unikeel.errors import UnikeelError


async def measure(session: Session) -> None:
    """A crowd for each round."""
    for number in range(session.request.first, session.request.first + session.request.rounds):
        session.begin_round()
        inner = session.within(f"bench-crowd-{number}")
        await containers.import_image(inner, "hello")
        await _round(inner, session.request.siblings)


async def _round(session: Session, count: int) -> None:
    kind = ours("hello", "shared-view")
    key = session.key("crowd", "task_create", "hello", kind.strategy, UNIKEEL, concurrency=count)
    views = key._replace(metric="views", unit="views")
    prepared: list[Prepared] = []
    try:
        for _ in range(count):
            prepared.append(await containers.prepare(session, kind))  # noqa: PERF401 - what there is is removed if the next fails
        begun = time.perf_counter_ns()
        results = await asyncio.gather(*(_create(session, each, begun) for each in prepared), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                session.failure([key], str(result) or type(result).__name__)
            else:
                session.sample(key, result)
        session.sample(views, float(len(await _views(session))))
    except (UnikeelError, OSError) as error:
        session.failure([key, views], error)
    finally:
        for each in prepared:
            await containers.remove(session, each)


async def _create(session: Session, prepared: Prepared, begun: int) -> float:
    """Milliseconds from the beginning of them all to this one's answer."""
    await session.containerd.tasks.create(prepared.id, prepared.mounts)
    return (time.perf_counter_ns() - begun) / 1e6


async def _views(session: Session) -> Mapping[str, str]:
    """The views of the image: name → parent."""
    found = await session.containerd.snapshots(session.snapshotter).list()
    return {snapshot.name: snapshot.parent for snapshot in found if snapshot.kind == VIEW}
