"""The promised figures of the snapshotter, required and hoped for, and whether a run's rows keep them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from unikeel.bench.promises import Ratio, Verdict, ratio
from unikeel.bench.rows import Row
from unikeel.values import NamedTuple

#: A store with 5,000 snapshots may take so many times as long for a Prepare as one with 50.
FULL: Final = 1.2
_MANY: Final = 5000
_FEW: Final = 50


class Times(NamedTuple):
    """How many times containerd's own must take as long as ours, at least; ``goal`` is what was hoped for (0: nothing more)."""

    metric: str
    scenario: str
    base: str
    ours: str
    what: str
    required: float
    goal: float = 0
    concurrency: int | None = 1


#: In the order of the issue.
TIMES: Final = (
    Times("prepare", "serial", "devmapper", "thin", "Prepare with a parent", 5, 8),
    Times("prepare", "serial", "devmapper", "thin-spare", "Prepare with a spare", 12, 20),
    Times("view_first", "serial", "devmapper", "thin", "the first View of a parent", 5, 8),
    Times("view", "serial", "devmapper", "thin", "a later View of it", 12, 20),
    Times("prepare_last", "crowd", "devmapper", "thin", "16 Prepares at once, the last", 4, 6, 16),
    Times("prepare_last", "crowd", "devmapper", "thin-spare", "16 Prepares at once with spares, the last", 10, 15, 16),
    Times("prepare_gap", "hundred", "devmapper", "thin", "100 at once, between first and last", 5, 8, 100),
    Times("unpack", "serial", "devmapper", "thin", "unpacking five layers", 1),
    Times("prepare", "serial", "blockfile", "file", "Prepare of 256 MB that hold 32 MB, ext4", 5),
    Times("prepare", "serial", "blockfile-xfs", "file-xfs", "the same on XFS", 1),
    Times("prepare", "serial", "blockfile-xfs", "file-xfs-spare", "the same on XFS, with a spare", 1),
    Times("prepare", "serial", "blockfile", "file-loop", "our XFS on a loop file against ext4", 20),
)
_OURS: Final = ("thin", "thin-spare", "file", "file-loop", "file-xfs", "file-xfs-spare")


_GOAL: Final = "the goal"


def missed(rows: Sequence[Row]) -> bool:
    """Whether anything that is required was measured and is not kept; goals are not required."""
    return any(verdict.kept is False and _GOAL not in verdict.promise for verdict in verdicts(rows))


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """All promises."""
    found = [verdict for times in TIMES for verdict in _times(rows, times)]
    full = [row.snapshotter for row in rows if row.scenario == "full" and row.snapshotter in _OURS]
    found += [_full(rows, name) for name in dict.fromkeys(full)] or [_full(rows, "thin")]
    failed, taken = sum(row.failures for row in rows), sum(row.n for row in rows)
    kept = None if failed + taken == 0 else failed == 0
    return [*found, Verdict("no sample failed", f"{failed} of {failed + taken}", kept)]


def _times(rows: Sequence[Row], times: Times) -> list[Verdict]:
    among = {"metric": times.metric, "scenario": times.scenario, "concurrency": times.concurrency}
    measured = ratio(_one(rows, snapshotter=times.base, **among), _one(rows, snapshotter=times.ours, **among))
    what = f"{times.base} / {times.ours}: {times.what}"
    found = [_compared(f"{what}: at least {times.required:g}", measured, lambda value: value >= times.required)]
    if times.goal:
        found.append(_compared(f"{what}: {_GOAL}, {times.goal:g}", measured, lambda value: value >= times.goal))
    return found


def _full(rows: Sequence[Row], name: str) -> Verdict:
    among = {"metric": "prepare", "scenario": "full", "snapshotter": name}
    measured = ratio(_one(rows, siblings=_MANY, **among), _one(rows, siblings=_FEW, **among))
    promise = f"{name}: Prepare with 5,000 snapshots / with 50: at most {FULL:g}"
    return _compared(promise, measured, lambda value: value <= FULL)


def _compared(promise: str, measured: Ratio | None, keeps: Callable[[float], bool]) -> Verdict:
    if measured is None:
        return Verdict(promise, "", None)
    return Verdict(promise, str(measured), keeps(measured.value))


def _one(rows: Iterable[Row], **wanted: str | int | None) -> Row | None:
    found = (row for row in rows if row.n and all(getattr(row, name) == value for name, value in wanted.items()))
    return next(found, None)
