"""A run under containerd as text: the common parts, and what the strategies are worth, beyond what is promised of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unikeel.bench import tables
from unikeel.bench.containerd.plan import RUNC, STRATEGIES, UNIKEEL, WORLDS
from unikeel.bench.containerd.promises import one, select, verdicts
from unikeel.bench.promises import ratio
from unikeel.bench.rows import Document, Row, Series


def render(document: Document, failed: Sequence[Series], notices: Sequence[str] = ()) -> str:
    """All of it, ending with a line break."""
    return tables.render(document, failed, notices, list(_ratios(document.rows)), verdicts(document.rows))


def _ratios(rows: Sequence[Row]) -> Iterator[str]:
    """Quotients within one world."""
    for snapshotter in (world.snapshotter for world in WORLDS):
        for row in select(rows, metric="view_mount", scenario="warm", snapshotter=snapshotter):
            for strategy in STRATEGIES:
                common = {"scenario": "warm", "snapshotter": snapshotter, "image": row.image, "strategy": strategy}
                times = ratio(row, one(rows, metric="acquire", **common))
                what = f"{snapshotter}, {row.image}: (View + mount) / acquire by {strategy}"
                yield from tables.quotient(what, times)
        started = {"metric": "task_create_start", "scenario": "warm", "snapshotter": snapshotter}
        runc = one(rows, **started, image="busybox", runtime=RUNC)
        for row in select(rows, **started, runtime=UNIKEEL):
            what = f"{snapshotter}, {row.image} by {row.strategy} / runc's busybox: create + start"
            yield from tables.quotient(what, ratio(row, runc))
