"""The promised figures under containerd, and whether a run's rows keep them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from unikeel.bench.containerd.plan import RUNC, UNIKEEL, WORLDS, World
from unikeel.bench.promises import Ratio, Verdict, ratio
from unikeel.bench.rows import Row

ACQUIRE_MS: Final = 1.0
IDENTIFY_ACQUIRE_MS: Final = 3.0
VM_ACQUIRE: Final = 100.0
VM_IDENTIFY_ACQUIRE: Final = 20.0
FIRST: Final = 1.2
RUNC_RATIO: Final = 1.0
SIBLINGS: Final = 1.2
SPREAD: Final = 1.5
LEAST_SIBLINGS: Final = 100
DAEMON_MB: Final = 90.0
TASK_MB: Final = 0.5
CPU_MS: Final = 5.0
RETURN_MS: Final = 2000.0
RETURNED: Final = 20
#: The strategies that keep something, and so have a warm start.
KEEPING: Final = ("cache", "shared-view")


def select(rows: Iterable[Row], **wanted: str | int | None) -> list[Row]:
    """The rows with samples whose fields are these."""
    return [row for row in rows if row.n and all(getattr(row, name) == value for name, value in wanted.items())]


def one(rows: Iterable[Row], **wanted: str | int | None) -> Row | None:
    """The first of them."""
    return next(iter(select(rows, **wanted)), None)


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """All promises, in the order of the issue."""
    native = [world.snapshotter for world in WORLDS if world.where == "native"]
    [vm] = [world.snapshotter for world in WORLDS if world.where == "vm"]
    acquired = [row for row in rows if row.scenario == "warm" and row.strategy in KEEPING and row.snapshotter in native]
    found = [
        _largest(acquired, "acquire", "acquire by cache or shared-view, warm, native", ACQUIRE_MS),
        _largest(acquired, "identify_acquire", "identify + acquire, warm, native", IDENTIFY_ACQUIRE_MS),
    ]
    for metric, limit in (("acquire", VM_ACQUIRE), ("identify_acquire", VM_IDENTIFY_ACQUIRE)):
        found += [_warm(rows, vm, metric, strategy, limit) for strategy in KEEPING]
    for world in WORLDS:
        found += _first(rows, world.snapshotter)
    for snapshotter in native:
        found += [_runc(rows, snapshotter, strategy) for strategy in KEEPING]
    for world in WORLDS:
        found += [verdict for strategy in KEEPING for verdict in _siblings(rows, world, strategy)]
    found += [_crowd(rows, world.snapshotter) for world in WORLDS]
    found += _memory(rows)
    started = [row for row in rows if row.scenario == "start" and row.snapshotter in native]
    found.append(_largest(started, "daemon_cpu", "the daemon's processor time for a start, native", CPU_MS))
    return [*found, _returned(rows), _all_sampled(rows)]


def _largest(rows: Sequence[Row], metric: str, what: str, limit: float) -> Verdict:
    """Whether the largest median of some rows is under a limit."""
    found = [(row.p50, row) for row in select(rows, metric=metric) if row.p50 is not None]
    promise = f"{what}: p50 under {limit:g} ms"
    if not found:
        return Verdict(promise, "", None)
    worst, row = max(found, key=lambda pair: pair[0])
    where = ", ".join(str(value) for value in (row.snapshotter, row.image, row.strategy) if value)
    return Verdict(promise, f"{worst:.3f} ms at worst ({where}, n = {row.n})", worst < limit)


def _compared(promise: str, times: Ratio | None, keeps: Callable[[float], bool]) -> Verdict:
    """A promise about a quotient."""
    if times is None:
        return Verdict(promise, "", None)
    return Verdict(promise, str(times), keeps(times.value))


def _warm(rows: Sequence[Row], snapshotter: str, metric: str, strategy: str, limit: float) -> Verdict:
    """How many times the plain view costs more; of all images the least favourable."""
    times = []
    for row in select(rows, metric=metric, scenario="warm", snapshotter=snapshotter, strategy=strategy):
        plain = one(rows, metric="view_mount", scenario="warm", snapshotter=snapshotter, image=row.image)
        quotient = ratio(plain, row)
        if quotient is not None:
            times.append(quotient)
    what = f"(View + mount) / {metric.replace('_', ' + ')} by {strategy}, {snapshotter}: at least {limit:g}"
    worst = min(times, key=lambda quotient: quotient.value, default=None)
    return _compared(what, worst, lambda value: value >= limit)


def _first(rows: Sequence[Row], snapshotter: str) -> list[Verdict]:
    """The first container of an image, against what everybody would do."""
    found = []
    for strategy, scenario, what in (
        ("shared-view", "first", "(View + mount)"),
        ("cache", "first-copy", "(View + mount + copy)"),
    ):
        mine = one(rows, metric="acquire", scenario="first", snapshotter=snapshotter, strategy=strategy, image="bulky")
        plain = one(rows, metric="view_mount", scenario=scenario, snapshotter=snapshotter, image="bulky")
        promise = f"first acquire by {strategy} / {what}, 32 MB, {snapshotter}: at most {FIRST:g}"
        found.append(_compared(promise, ratio(mine, plain), lambda value: value <= FIRST))
    return found


def _runc(rows: Sequence[Row], snapshotter: str, strategy: str) -> Verdict:
    common = {"metric": "task_create_start", "scenario": "warm", "snapshotter": snapshotter}
    mine = one(rows, **common, image="hello", strategy=strategy, runtime=UNIKEEL)
    other = one(rows, **common, image="busybox", runtime=RUNC)
    promise = f"create + start of hello by {strategy} / runc's busybox, {snapshotter}: at most {RUNC_RATIO:g}"
    return _compared(promise, ratio(mine, other), lambda value: value <= RUNC_RATIO)


def _siblings(rows: Sequence[Row], world: World, strategy: str) -> list[Verdict]:
    """Whether others of the same image matter; the promise of enough samples is for native runs."""
    among = {"metric": "task_create_start", "scenario": "siblings", "snapshotter": world.snapshotter}
    found = select(rows, **among, strategy=strategy)
    least = LEAST_SIBLINGS if world.where == "native" else 1
    alone = next((row for row in found if row.siblings == 0 and row.n >= least), None)
    others = [row for row in found if row.siblings and row.n >= least]
    many = max(others, key=lambda row: row.siblings or 0, default=None)
    count = many.siblings if many else 30 if world.where == "native" else 5
    where = f"by {strategy}, {world.snapshotter}"
    promises = [
        _compared(
            f"create + start with {count} siblings / with none {where}: at most {SIBLINGS:g}",
            ratio(many, alone),
            lambda value: value <= SIBLINGS,
        )
    ]
    if world.where == "native":
        p90 = None if many is None or many.p90 is None or not many.p50 else many.p90 / many.p50
        times = None if p90 is None else Ratio(p90, p90, p90)
        promise = f"p90 / p50 of it with {count} siblings {where}: at most {SPREAD:g}"
        promises.append(_compared(promise, times, lambda value: value <= SPREAD))
    return promises


def _crowd(rows: Sequence[Row], snapshotter: str) -> Verdict:
    promise = f"32 creates at once of one image, {snapshotter}: one view, all succeed"
    crowd = [row for row in rows if row.scenario == "crowd" and row.snapshotter == snapshotter]
    views, creates = ([row for row in crowd if row.metric == metric] for metric in ("views", "task_create"))
    if not any(row.n or row.failures for row in views) or not creates:
        return Verdict(promise, "", None)
    most = max((row.max for row in views if row.max is not None), default=0.0)
    least = min((row.min for row in views if row.min is not None), default=0.0)
    failed = sum(row.failures for row in crowd)
    taken = sum(row.n for row in creates)
    said = f"{most:g} views, {failed} of {taken + failed} failed, {creates[0].concurrency} at once"
    return Verdict(promise, said, least == most == 1 and failed == 0 and all(row.concurrency == 32 for row in creates))


def _memory(rows: Sequence[Row]) -> list[Verdict]:
    """Of whatever strategy and snapshotter is worst, with the most tasks that ran."""
    mine = [row for row in rows if row.runtime == UNIKEEL and row.siblings and row.n]
    held = [row for row in mine if row.metric == "daemon_pss"]
    each = [row for row in mine if row.metric == "task_pss" and row.scenario == "beside-monitor"]
    shims = [row.p50 for row in select(rows, metric="task_pss", scenario="shim", runtime=RUNC) if row.p50 is not None]
    beside = f"; runc's shim: {max(shims):.1f} MB" if shims else ""
    found = []
    for among, what, limit, more in (
        (held, "daemon and keeper with 30 tasks", DAEMON_MB, ""),
        (each, "for each task, beside its monitor", TASK_MB, beside),
    ):
        medians = [(row.p50, row.siblings) for row in among if row.p50 is not None and row.siblings == 30]
        promise = (
            f"memory (PSS) of {what}: under {limit:g} MB"
            if among is held
            else f"memory (PSS) {what}: at most {limit:g} MB"
        )
        if not medians:
            found.append(Verdict(promise, "", None))
            continue
        worst = max(median for median, _ in medians)
        found.append(Verdict(promise, f"{worst:.2f} MB{more}", worst < limit if among is held else worst <= limit))
    return found


def _returned(rows: Sequence[Row]) -> Verdict:
    """Of all deaths the one after which it took longest; with as many tasks as the promise is about."""
    found = [row for row in select(rows, metric="daemon_return", siblings=RETURNED) if row.max is not None]
    promise = f"{RETURNED} tasks are managed again after the daemon's death: within {RETURN_MS / 1e3:g} s, always"
    longest = max((row.max for row in found if row.max is not None), default=None)
    if longest is None:
        return Verdict(promise, "", None)
    return Verdict(promise, f"{longest:.0f} ms at worst, n = {sum(row.n for row in found)}", longest < RETURN_MS)


def _all_sampled(rows: Sequence[Row]) -> Verdict:
    failed, taken = sum(row.failures for row in rows), sum(row.n for row in rows)
    kept = None if failed + taken == 0 else failed == 0
    return Verdict("no sample failed, no fallback", f"{failed} of {failed + taken}", kept)
