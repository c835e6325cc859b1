"""``tasks``: create and start of a task, through containerd's gRPC service, without stdio; ours by each strategy, and runc's busybox beside them.

The container and its snapshot are made before and removed after, outside of the time. Of our tasks, too: the processor time that the daemon
used for the start (create, start and what it does right after) and for the end (kill, wait, delete).
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from unikeel.bench.containerd.inside import census, containers
from unikeel.bench.containerd.inside.containers import Kind, Prepared
from unikeel.bench.containerd.inside.processes import Pair, processor_ms, resident
from unikeel.bench.containerd.inside.session import Session
from unikeel.bench.containerd.plan import RUNC, STRATEGIES, UNIKEEL
from unikeel.bench.reporting import rotated
from unikeel.bench.rows import Key
from unikeel.containerd.records import RUNNING
from unikeel.errors import UnikeelError
from unikeel.values import NamedTuple

#: Seconds in which the daemon does what it leaves for after its answer.
_AFTERWARDS: Final = 0.15
#: A view that nobody uses lingers for half a minute: in a slow world a start before the sample keeps it warm.
_FRESH: Final = 15.0
_WARM: Final = "warm"
BUSYBOX: Final = Kind("busybox", RUNC, "", ("sleep", "1000000"))
#: What the guests are told: hello halts in place of exiting; nginx takes its image's own command.
WORDS: Final = {"hello": ("hello", "wait"), "nginx": (), "initrd": ()}


class NoSample(UnikeelError):
    """A start that is no sample; the message says why."""


class Times(NamedTuple):
    """Milliseconds of one task; the daemon's processor time is 0 for those of others."""

    create: float
    start: float
    cpu_start: float
    cpu_end: float


def ours(image: str, strategy: str) -> Kind:
    """A task of ours."""
    return Kind(image, UNIKEEL, strategy, WORDS[image])


async def measure(session: Session) -> None:
    """Rounds over images and strategies; a start of each kind first that is not counted."""
    kinds = [ours(image, strategy) for image in session.request.samples for strategy in STRATEGIES]
    kinds.append(BUSYBOX)
    kinds += [BUSYBOX._replace(runtime=name) for name in session.request.runtimes if name not in (RUNC, UNIKEEL)]
    used = {}
    for kind in kinds * (1 if session.request.first else 2):
        await sampled(session, kind, count=False)  # what these fail at will fail again, and be counted
        used[kind] = time.monotonic()
    for number in range(session.request.rounds):
        session.begin_round()
        for kind in rotated(kinds, session.request.first + number):
            if kind.strategy == "shared-view" and time.monotonic() - used[kind] > _FRESH:
                await sampled(session, kind, count=False)
            await sampled(session, kind)
            used[kind] = time.monotonic()


async def sampled(
    session: Session, kind: Kind, *, scenario: str = _WARM, siblings: int = 0, count: bool = True
) -> None:
    """One sample of a kind, or its failure."""
    keys = _keys(session, kind, scenario, siblings)
    try:
        times = await one(session, kind, cpu=scenario == _WARM)
    except (UnikeelError, OSError) as error:
        if count:
            session.failure(keys.values(), error)
        return
    if not count:
        return
    values = {"create": times.create, "start": times.start, "both": times.create + times.start}
    values |= {"cpu_start": times.cpu_start, "cpu_end": times.cpu_end}
    for name, key in keys.items():
        session.sample(key, values[name])


def _keys(session: Session, kind: Kind, scenario: str, siblings: int) -> dict[str, Key]:
    both = session.key(
        scenario, "task_create_start", kind.image, kind.strategy or None, kind.runtime, siblings=siblings
    )
    if scenario != _WARM:
        return {"both": both}
    keys = {"create": both._replace(metric="task_create"), "start": both._replace(metric="task_start"), "both": both}
    if kind.runtime == UNIKEEL:
        keys["cpu_start"] = both._replace(metric="daemon_cpu", scenario="start")
        keys["cpu_end"] = both._replace(metric="daemon_cpu", scenario="end")
    return keys


async def one(session: Session, kind: Kind, *, cpu: bool) -> Times:
    """Make, start and take away one task.

    :param cpu: take the daemon's processor time, too, for which it must be waited until that has done what it leaves for later.
    :raise NoSample: it was not what was asked for, or left something behind.
    """
    before = await census.take(session.containerd, session.snapshotter)
    prepared = await containers.prepare(session, kind)
    try:
        times = await _timed(session, prepared, cpu=cpu)
    finally:
        await containers.remove(session, prepared)
    left = await census.gone(before, session.containerd, session.snapshotter)
    if left and not _kept(kind, left):
        raise NoSample(left)
    return times


def _kept(kind: Kind, left: str) -> bool:
    """A first shared view is meant to stay."""
    return kind.strategy == "shared-view" and "process" not in left and "task" not in left


async def _timed(session: Session, prepared: Prepared, *, cpu: bool) -> Times:
    tasks = session.containerd.tasks
    pair = resident() if cpu and prepared.kind.runtime == UNIKEEL else None
    before = _cpu(pair)
    begun = time.perf_counter_ns()
    await tasks.create(prepared.id, prepared.mounts)
    created = time.perf_counter_ns()
    await tasks.start(prepared.id)
    started = time.perf_counter_ns()
    if pair is not None:
        await asyncio.sleep(_AFTERWARDS)
    between = _cpu(pair)
    task = await tasks.get(prepared.id)
    if task.status != RUNNING:
        raise NoSample(f"the task is {task.status} after its start")
    if problem := containers.served(session, prepared):
        raise NoSample(problem)
    asked = _cpu(pair)
    await containers.end(session, prepared)
    if pair is not None:
        await asyncio.sleep(_AFTERWARDS)
    return Times((created - begun) / 1e6, (started - created) / 1e6, between - before, _cpu(pair) - asked)


def _cpu(pair: Pair | None) -> float:
    return processor_ms(pair.daemon) if pair else 0.0
