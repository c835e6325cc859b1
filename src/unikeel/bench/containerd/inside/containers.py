"""Containers and tasks: made as any client of containerd makes them, and taken away."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from unikeel.bench.containerd.inside.processes import RUN
from unikeel.bench.containerd.inside.session import Session
from unikeel.bench.containerd.plan import UNIKEEL
from unikeel.containerd import workflow
from unikeel.containerd.oci import Process
from unikeel.containerd.records import Mount
from unikeel.engine.tasks import identify
from unikeel.engine.timeline import Timeline
from unikeel.errors import NotFound
from unikeel.values import NamedTuple

_ANNOTATION: Final = "org.unikeel.boot-files"
#: hello would have its snapshot as a disk, where there is one.
_DISK: Final = "com.urunc.unikernel.mountRootfs"
_KILL: Final = 9
_SECONDS: Final = 60.0
#: How many tasks are started and ended at once where it is not timed.
_AT_ONCE: Final = 4
_numbers = itertools.count()


class Kind(NamedTuple):
    """What a task is: the sample image (or ``busybox``), its runtime, the strategy for boot files (empty: not ours), its program."""

    image: str
    runtime: str
    strategy: str
    args: tuple[str, ...]


class Prepared(NamedTuple):
    """A container with its snapshot, ready for a task."""

    id: str
    kind: Kind
    mounts: tuple[Mount, ...]


async def prepare(session: Session, kind: Kind) -> Prepared:
    """Make a container and its snapshot. :raise UnikeelError: containerd refuses."""
    name = f"bench-{os.getpid()}-{next(_numbers)}"
    annotations = {_ANNOTATION: kind.strategy} if kind.strategy else {}
    if kind.strategy and not session.request.block:
        annotations[_DISK] = "false"
    await workflow.new_container(
        session.containerd,
        session.request.images[kind.image],
        name,
        snapshotter=session.snapshotter,
        runtime=kind.runtime,
        process=Process(kind.args),
        annotations=annotations,
    )
    return Prepared(name, kind, await session.containerd.snapshots(session.snapshotter).mounts(name))


async def import_image(session: Session, image: str) -> None:
    """Import and unpack a sample in the session's namespace, under the name that it has in the others."""
    archive, name = session.request.archives[image], session.request.images[image]
    record = await workflow.import_image(session.containerd, archive, name)
    await workflow.unpack(session.containerd, record, session.snapshotter)


async def end(session: Session, prepared: Prepared) -> None:
    """Kill a task that runs, wait for it, delete it."""
    tasks = session.containerd.tasks
    with suppress(NotFound):
        await tasks.kill(prepared.id, _KILL)
    await tasks.wait(prepared.id, timeout=_SECONDS)
    await tasks.delete(prepared.id)


async def remove(session: Session, prepared: Prepared) -> None:
    """Remove a container with its task and its snapshot, in whatever state they are."""
    with suppress(NotFound):
        await end(session, prepared)
    await workflow.remove_container(session.containerd, prepared.id)


@asynccontextmanager
async def running(session: Session, kinds: Sequence[Kind], count: int) -> AsyncIterator[list[Prepared]]:
    """So many tasks, of these kinds in turn; they are gone afterwards. :raise UnikeelError: one of them does not start."""
    limit = asyncio.Semaphore(_AT_ONCE)
    prepared: list[Prepared] = []

    async def started(kind: Kind) -> None:
        async with limit:
            each = await prepare(session, kind)
            prepared.append(each)
            await session.containerd.tasks.create(each.id, each.mounts)
            await session.containerd.tasks.start(each.id)

    async def removed(each: Prepared) -> None:
        async with limit:
            await remove(session, each)

    try:
        await _all([started(kinds[number % len(kinds)]) for number in range(count)])
        yield prepared
    finally:
        await _all([removed(each) for each in prepared])


async def _all(work: list[Any]) -> None:
    """Do all of it, whatever fails; the first failure is raised afterwards."""
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def served(session: Session, prepared: Prepared) -> str:
    """What is wrong with how a task of ours got its boot files, by its timeline; empty for others, and if it is as asked for."""
    if prepared.kind.runtime != UNIKEEL:
        return ""
    ident = identify(session.containerd.address, session.containerd.namespace, prepared.id)
    try:
        with open(os.path.join(RUN, "tasks", ident, "timeline.json"), encoding="utf-8") as file:
            return judge(Timeline.from_json(json.load(file)), prepared.kind.strategy)
    except (OSError, ValueError, KeyError) as error:
        return f"the task's timeline cannot be read: {error}"


def judge(timeline: Timeline, strategy: str) -> str:
    """Why a start was none by this strategy, warm; empty if it was one."""
    acquire = timeline.find("boot.acquire")
    if acquire is None:
        return "the timeline has no step 'boot.acquire'"
    found = acquire.attributes.get("strategy")
    if found != strategy:
        return f"{found} served instead ({acquire.attributes.get('fallbacks', '')})"
    if strategy in ("cache", "shared-view") and acquire.attributes.get("hit") is not True:
        return "not a hit, although it was acquired before"
    return ""
