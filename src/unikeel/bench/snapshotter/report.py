"""A run as text: the common parts, and how many times containerd's own snapshotter takes as long as each of ours. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unikeel.bench import tables
from unikeel.bench.promises import ratio
from unikeel.bench.rows import Document, Row, Series
from unikeel.bench.snapshotter.plan import WORLDS
from unikeel.bench.snapshotter.promises import verdicts


def render(document: Document, failed: Sequence[Series], notices: Sequence[str] = ()) -> str:
    """All of it, ending with a line break."""
    return tables.render(document, failed, notices, list(_ratios(document.rows)), verdicts(document.rows))


def _ratios(rows: Sequence[Row]) -> Iterator[str]:
    """Every row of containerd's own over the same of ours."""
    for world in WORLDS:
        for base in rows:
            if base.snapshotter != world.snapshotter:
                continue
            for row in rows:
                same = (row.metric, row.scenario, row.concurrency) == (base.metric, base.scenario, base.concurrency)
                if same and row.snapshotter in world.ours:
                    what = f"{base.metric}, {base.scenario}: {base.snapshotter} / {row.snapshotter}"
                    yield from tables.quotient(what, ratio(base, row))
