"""What the timeline itself costs: one span, opened and closed, with the attributes that a step has."""

from __future__ import annotations

import time
from typing import Final

from unikeel.bench.plan import Plan, Progress
from unikeel.bench.rows import Board, Key
from unikeel.bench.stage import Stage
from unikeel.engine.timeline import Timeline

_BATCHES: Final = 200
_SPANS: Final = 500


def measure(_stage: Stage | None, plan: Plan, board: Board, progress: Progress) -> None:
    """Each sample is the mean of a batch, since one span is not much longer than the clock's steps."""
    if not plan.wants("span"):
        return
    series = board.series(Key("loop", "span", "µs"))
    count = plan.count(_BATCHES)
    for number in range(count):
        progress.at("spans", number, count)
        timeline = Timeline()
        start = time.perf_counter_ns()
        for _ in range(_SPANS):
            with timeline.span("step", strategy="cache") as span:
                span.attributes["hit"] = True
        series.add((time.perf_counter_ns() - start) / _SPANS / 1000)
