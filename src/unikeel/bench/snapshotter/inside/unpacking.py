"""``unpack``: an image of five layers that is in the content store, into the snapshotter: five times Prepare, apply, Commit."""

from __future__ import annotations

import time

from unikeel.bench.reporting import rotated
from unikeel.bench.snapshotter.inside.session import Contender, Session, ms_since
from unikeel.containerd import workflow
from unikeel.errors import UnikeelError
from unikeel.images.digests import chain_id


async def measure(session: Session) -> None:
    """An unpacking by each contender in each round. Its own image is the parent of other groups: it is taken away, and back at the end."""
    found = await workflow.describe(session.containerd, session.request.image)
    diff_ids = [layer.diff_id for layer in found.image.layers]
    names = [chain_id(diff_ids[: count + 1]) for count in range(len(diff_ids))]
    for number in session.request.numbers:
        session.begin_round()
        for contender in rotated(session.request.contenders, number):
            await _round(session, contender, found, names)


async def _round(session: Session, contender: Contender, found: workflow.Described, names: list[str]) -> None:
    key = session.key("serial", "unpack", contender)
    try:
        await session.clear(contender, list(reversed(names)))
        begun = time.perf_counter_ns()
        await workflow.unpack(session.containerd, found, contender.snapshotter)
        session.sample(key, ms_since(begun))
    except UnikeelError as error:
        session.failure([key], error)
