"""Timed steps for the timeline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from unikeel.boot.contract import Timeline


@contextmanager
def span(timeline: Timeline, name: str, **attributes: str | int | bool) -> Iterator[dict[str, str | int | bool]]:
    """Report the block as a step when it ends, also by an error; attributes may be added to what is yielded."""
    start = time.monotonic_ns()
    try:
        yield attributes
    except BaseException as error:
        attributes["error"] = type(error).__name__
        raise
    finally:
        timeline(name, start, time.monotonic_ns(), attributes)
