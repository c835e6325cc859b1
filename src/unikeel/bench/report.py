"""A run as text: the table, the ratios, the failures, the promises. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from unikeel.bench.promises import Verdict, ratio, verdicts, warm
from unikeel.bench.rows import Document, Json, Row, Series
from unikeel.bench.statistics import LEAST

_COLUMNS: Final = (
    "metric", "scenario", "image", "strategy", "siblings", "unit", "n", "failures", "min", "p50", "p90", "p95", "p99", "max", "ci",
)  # fmt: skip
_LEFT: Final = 6
_RATIO_IMAGES: Final = ("bulky", "nginx", "hello")
_WORDS: Final = {True: "kept", False: "MISSED", None: "not measured"}


def render(document: Document, failed: Sequence[Series], notices: Sequence[str] = ()) -> str:
    """All of it, ending with a line break."""
    parts = [_environment(document.environment), _table(document.rows), _ratios(document.rows)]
    parts += [_failures(failed), _notices(notices), _promises(verdicts(document.rows))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _environment(environment: dict[str, Json]) -> str:
    def text(value: Json) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{name} {text(inner)}" for name, inner in value.items() if inner is not None)
        return " ".join(map(str, value)) if isinstance(value, list) else str(value)

    return "\n".join(f"{name:>13}  {text(value)}" for name, value in environment.items())


def _table(rows: Sequence[Row]) -> str:
    lines = [list(_COLUMNS), *([_cell(row, column) for column in _COLUMNS] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(_COLUMNS))]
    least = ", ".join(f"p{percent} from n = {n}" for percent, n in LEAST.items() if n > 1)
    text = "\n".join(
        "  ".join(
            cell.ljust(width) if index < _LEFT else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
    return f"{text}\n({least}; ci: of the median, 95 %)"


def _cell(row: Row, column: str) -> str:
    value = getattr(row, column)
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return f"[{_number(value[0])}, {_number(value[1])}]"
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    """Three decimals for small values, fewer for large ones."""
    if value >= 1000:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 100 else f"{value:.3f}"


def _ratios(rows: Sequence[Row]) -> str:
    """What the strategies and the image's size are worth: quotients of warm acquire medians of this one run."""
    lines = []
    for image in _RATIO_IMAGES:
        for strategy in ("cache", "shared-view", "view"):
            times = ratio(warm(rows, image, "copy"), warm(rows, image, strategy))
            if times is not None:
                lines.append(f"  {image}: copy / {strategy} = {times}")
    for strategy in ("cache", "shared-view", "view", "copy"):
        times = ratio(warm(rows, "ballast", strategy), warm(rows, "hello", strategy))
        if times is not None:
            lines.append(f"  {strategy}: ballast / hello = {times}")
    return "\n".join(["ratios of the medians of acquire, warm [by the intervals]", *lines]) if lines else ""


def _failures(failed: Sequence[Series]) -> str:
    lines = [
        f"  {series.key.metric}, {series.key.scenario}, {series.key.image}, {series.key.strategy}: {series.failures} failed, the first: {series.first_failure}"
        for series in failed
    ]
    return "\n".join(["failures", *lines]) if lines else ""


def _notices(notices: Sequence[str]) -> str:
    lines = [f"  {notice}" for notice in dict.fromkeys(notices)]
    return "\n".join(["notices", *lines]) if lines else ""


def _promises(found: Sequence[Verdict]) -> str:
    width = max(len(verdict.promise) for verdict in found)
    lines = [f"  {_WORDS[item.kept]:>12}  {item.promise:<{width}}  {item.measured}".rstrip() for item in found]
    return "\n".join(["promises", *lines])
