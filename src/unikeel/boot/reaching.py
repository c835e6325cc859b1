"""Asking a :class:`~unikeel.boot.contract.Reach`, with the errors that strategies know."""

from __future__ import annotations

import time
from collections.abc import Callable

from unikeel.boot.contract import Parent, Reach, Reached, Timeline, no_timeline, nothing_asked
from unikeel.errors import BadContent, Unavailable, UnikeelError


def reach(
    way: Reach,
    parent: Parent,
    purpose: str,
    container: str = "",
    timeline: Timeline = no_timeline,
    asked: Callable[[], None] = nothing_asked,
) -> Reached:
    """:meth:`Reach.reach`; the timeline hears of a view that was asked for. :raise BadContent: as that. :raise Unavailable: anything else
    that went wrong."""
    start = time.monotonic_ns()
    try:
        reached = way.reach(parent, purpose, container, asked)
    except (BadContent, Unavailable):
        raise
    except UnikeelError as error:
        raise Unavailable(f"the snapshot {parent.name} cannot be reached: {error.message}", error.hint) from error
    if reached.view:
        timeline("boot.reach", start, time.monotonic_ns(), {"purpose": purpose, "view": reached.view})
    return reached
