"""A run as text: where it ran, the table, the ratios, the failures, the promises. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from unikeel.bench.containerd.plan import RUNC, STRATEGIES, UNIKEEL, WORLDS
from unikeel.bench.containerd.promises import one, select, verdicts
from unikeel.bench.promises import Ratio, Verdict, ratio
from unikeel.bench.rows import Document, Json, Row, Series

_COLUMNS: Final = (
    "metric", "scenario", "snapshotter", "image", "runtime", "strategy", "concurrency", "siblings", "unit", "n", "failures",
    "min", "p50", "p90", "p95", "p99", "max", "ci",
)  # fmt: skip
_HEADS: Final = {"snapshotter": "from", "concurrency": "at once", "siblings": "beside", "failures": "failed"}
_LEFT: Final = 6
_WORDS: Final = {True: "kept", False: "MISSED", None: "not measured"}
_PREFIX: Final = "io.containerd."


def render(document: Document, failed: Sequence[Series], notices: Sequence[str] = ()) -> str:
    """All of it, ending with a line break."""
    said = list(dict.fromkeys(notices))
    parts = [_environment(document.environment), _table(document.rows)]
    parts += [_titled("ratios of medians [by their intervals]", list(_ratios(document.rows)))]
    parts += [_titled("failures", list(_failures(failed))), _titled("notices", said)]
    parts += [_titled("promises", _promises(verdicts(document.rows)))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _titled(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, *(f"  {line}" for line in lines)]) if lines else ""


def _environment(environment: dict[str, Json]) -> str:
    return "\n".join(f"{name:>13}  {_text(value)}" for name, value in environment.items())


def _text(value: Json) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in value.items() if inner is not None)
    return " ".join(map(_text, value)) if isinstance(value, list) else str(value)


def _table(rows: Sequence[Row]) -> str:
    heads = [_HEADS.get(column, column) for column in _COLUMNS]
    lines = [heads, *([_cell(row, column) for column in _COLUMNS] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(_padded, range(len(line)), line, widths)).rstrip() for line in lines)


def _padded(index: int, cell: str, width: int) -> str:
    return cell.ljust(width) if index < _LEFT else cell.rjust(width)


def _cell(row: Row, column: str) -> str:
    value = getattr(row, column)
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return f"[{_number(value[0])}, {_number(value[1])}]"
    if column == "runtime":
        return str(value).removeprefix(_PREFIX)
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    """Three decimals for small values, fewer for large ones."""
    if value >= 1000:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 100 else f"{value:.3f}"


def _ratios(rows: Sequence[Row]) -> Iterator[str]:
    """What the strategies are worth, beyond what is promised of them: quotients within one world."""
    for snapshotter in (world.snapshotter for world in WORLDS):
        for row in select(rows, metric="view_mount", scenario="warm", snapshotter=snapshotter):
            for strategy in STRATEGIES:
                common = {"scenario": "warm", "snapshotter": snapshotter, "image": row.image, "strategy": strategy}
                times = ratio(row, one(rows, metric="acquire", **common))
                yield from _line(f"{snapshotter}, {row.image}: (View + mount) / acquire by {strategy}", times)
        started = {"metric": "task_create_start", "scenario": "warm", "snapshotter": snapshotter}
        runc = one(rows, **started, image="busybox", runtime=RUNC)
        for row in select(rows, **started, runtime=UNIKEEL):
            yield from _line(
                f"{snapshotter}, {row.image} by {row.strategy} / runc's busybox: create + start", ratio(row, runc)
            )


def _line(what: str, times: Ratio | None) -> Iterator[str]:
    if times is not None:
        yield f"{what} = {times}"


def _failures(failed: Sequence[Series]) -> Iterator[str]:
    """One line for each reason: a start that fails is missing in several rows."""
    reasons: dict[tuple[str, int], list[Series]] = {}
    for series in failed:
        reasons.setdefault((series.first_failure, series.failures), []).append(series)
    for (reason, count), among in reasons.items():
        more = f" and {len(among) - 1} more" if len(among) > 1 else ""
        yield f"{_words(among[0])}{more}: {count} failed, the first: {reason}"


def _words(series: Series) -> str:
    key = series.key
    return ", ".join(word for word in (key.metric, key.scenario, key.snapshotter, key.image, key.strategy) if word)


def _promises(found: Sequence[Verdict]) -> list[str]:
    width = max(len(verdict.promise) for verdict in found)
    return [f"{_WORDS[item.kept]:>12}  {item.promise:<{width}}  {item.measured}".rstrip() for item in found]
