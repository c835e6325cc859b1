"""``base``: a writable snapshot, and a view with its mount, of an image that was unpacked with a base image of so many gigabytes; containerd runs with that size now."""

from __future__ import annotations

import os
import time
from typing import Final

from unikeel.bench.containerd import bases
from unikeel.bench.containerd.inside import census, plain
from unikeel.bench.containerd.inside.session import Session
from unikeel.containerd import workflow
from unikeel.errors import UnikeelError

_SECONDS: Final = 120.0
#: What keeps a snapshot from the collector while it is timed.
_KEPT: Final = {"containerd.io/gc.root": "bench"}


async def measure(session: Session) -> None:
    """Rounds with one size; one before them is not counted."""
    request = session.request
    [image] = request.samples
    gigabytes = request.siblings
    inner = session.within(bases.namespace(gigabytes))
    found = await workflow.describe(inner.containerd, request.images[image])
    parent = await workflow.unpack(inner.containerd, found, session.snapshotter)
    scenario = f"base-size, {gigabytes} GB"
    keys = {name: session.key(scenario, name, image) for name in ("prepare", "view", "mount", "view_mount")}
    for number in range(-1, request.rounds):
        session.begin_round()
        try:
            times = await _sample(inner, parent)
        except (UnikeelError, OSError) as error:
            session.failure(keys.values() if number >= 0 else [], error)
            continue
        if number >= 0:
            for name, value in times.items():
                session.sample(keys[name], value)


async def _sample(session: Session, parent: str) -> dict[str, float]:
    """Milliseconds of each. :raise UnikeelError: it failed, or left something behind."""
    before = await census.take(session.containerd, session.snapshotter)
    store, key = session.containerd.snapshots(session.snapshotter), f"bench-base-{os.getpid()}-{time.monotonic_ns()}"
    begun = time.perf_counter_ns()
    await store.prepare(key, parent, _KEPT, timeout=_SECONDS)
    prepared = (time.perf_counter_ns() - begun) / 1e6
    await store.remove(key, timeout=_SECONDS)
    times = await plain.sampled(session, parent, {})
    if left := await census.gone(before, session.containerd, session.snapshotter):
        raise UnikeelError(left)
    return {"prepare": prepared, "view": times.view, "mount": times.mount, "view_mount": times.view + times.mount}
