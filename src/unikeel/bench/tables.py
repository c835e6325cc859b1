"""A run in labs as text: where it ran, the table, the failures, the promises. Pure; each benchmark adds its own ratios."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from unikeel.bench.promises import Ratio, Verdict
from unikeel.bench.rows import Document, Json, Row, Series

_COLUMNS: Final = (
    "metric", "scenario", "snapshotter", "image", "runtime", "strategy", "concurrency", "siblings", "unit", "n", "failures",
    "min", "p50", "p90", "p95", "p99", "max", "ci",
)  # fmt: skip
_HEADS: Final = {"snapshotter": "from", "concurrency": "at once", "siblings": "beside", "failures": "failed"}
#: Columns whose cells begin at the left.
_TEXTS: Final = ("metric", "scenario", "snapshotter", "image", "runtime", "strategy")
_WORDS: Final = {True: "kept", False: "MISSED", None: "not measured"}
_PREFIX: Final = "io.containerd."


def render(
    document: Document,
    failed: Sequence[Series],
    notices: Sequence[str],
    ratios: Sequence[str],
    verdicts: Sequence[Verdict],
) -> str:
    """All of it, ending with a line break."""
    parts = [environment(document.environment), table(document.rows)]
    parts += [titled("ratios of medians [by their intervals]", ratios)]
    parts += [titled("failures", list(failures(failed))), titled("notices", list(dict.fromkeys(notices)))]
    parts += [titled("promises", promises(verdicts))]
    return "\n\n".join(part for part in parts if part) + "\n"


def titled(title: str, lines: Sequence[str]) -> str:
    """Lines below a title; nothing without lines."""
    return "\n".join([title, *(f"  {line}" for line in lines)]) if lines else ""


def environment(found: dict[str, Json]) -> str:
    """Where it ran, a line for each entry."""
    return "\n".join(f"{name:>13}  {_text(value)}" for name, value in found.items())


def _text(value: Json) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in value.items() if inner is not None)
    return " ".join(map(_text, value)) if isinstance(value, list) else str(value)


def table(rows: Sequence[Row]) -> str:
    """All rows; columns in which none has anything are left out."""
    columns = [name for name in _COLUMNS if any(getattr(row, name) is not None for row in rows)]
    heads = [_HEADS.get(column, column) for column in columns]
    lines = [heads, *([_cell(row, column) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(_padded, columns, line, widths)).rstrip() for line in lines)


def _padded(column: str, cell: str, width: int) -> str:
    return cell.ljust(width) if column in _TEXTS else cell.rjust(width)


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


def quotient(what: str, times: Ratio | None) -> Iterator[str]:
    """A line about a quotient; none if it was not measured."""
    if times is not None:
        yield f"{what} = {times}"


def failures(failed: Sequence[Series]) -> Iterator[str]:
    """One line for each reason: a sample that fails is missing in several rows."""
    reasons: dict[tuple[str, int], list[Series]] = {}
    for series in failed:
        reasons.setdefault((series.first_failure, series.failures), []).append(series)
    for (reason, count), among in reasons.items():
        more = f" and {len(among) - 1} more" if len(among) > 1 else ""
        yield f"{_words(among[0])}{more}: {count} failed, the first: {reason}"


def _words(series: Series) -> str:
    key = series.key
    return ", ".join(word for word in (key.metric, key.scenario, key.snapshotter, key.image, key.strategy) if word)


def promises(found: Sequence[Verdict]) -> list[str]:
    """A line for each promise: kept or not, what it was, what was measured."""
    width = max((len(verdict.promise) for verdict in found), default=0)
    return [f"{_WORDS[item.kept]:>12}  {item.promise:<{width}}  {item.measured}".rstrip() for item in found]
