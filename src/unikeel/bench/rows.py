"""The file that a benchmark writes: its environment, and one row per series of samples.

Every benchmark of the project has this format (docs/benchmarks.md); a later one may add keys to its rows and environment, so a reader ignores
those it does not know.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, TypeAlias

from unikeel.bench.statistics import summarize
from unikeel.values import NamedTuple

Json: TypeAlias = str | int | float | bool | list["Json"] | dict[str, "Json"] | None

_DIGITS: Final = 4


class Key(NamedTuple):
    """What a series is of; ``None`` where a field does not apply.

    ``strategy`` is the one that really served; ``concurrency`` how many starts ran at once; ``siblings`` how many other containers ran.
    """

    scenario: str
    metric: str
    unit: str
    image: str | None = None
    strategy: str | None = None
    snapshotter: str | None = None
    runtime: str | None = None
    concurrency: int | None = None
    siblings: int | None = None


class Row(NamedTuple):
    """One row of the file. ``n`` counts the samples in the figures, ``failures`` those that are not; ``ci`` is for the median."""

    scenario: str
    metric: str
    unit: str
    image: str | None
    strategy: str | None
    snapshotter: str | None
    runtime: str | None
    concurrency: int | None
    siblings: int | None
    n: int
    failures: int
    min: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    max: float | None
    ci: tuple[float, float] | None


class Listener(Protocol):
    """Who is told of each sample as it is taken, so that it can be kept."""

    def sample(self, key: Key, value: float) -> None:
        """A sample."""
        ...

    def failure(self, key: Key, message: str) -> None:
        """An attempt that is none."""
        ...


class Series:
    """The samples of one row while they are taken. A failure never becomes a figure."""

    def __init__(self, key: Key, listener: Listener | None = None) -> None:
        self.key = key
        self._listener = listener
        self.samples: list[float] = []
        self.failures = 0
        self.first_failure = ""

    def add(self, value: float) -> None:
        """A sample."""
        self.samples.append(value)
        if self._listener is not None:
            self._listener.sample(self.key, value)

    def fail(self, message: str) -> None:
        """A sample that is none; the first one's message is kept."""
        self.failures += 1
        self.first_failure = self.first_failure or message
        if self._listener is not None:
            self._listener.failure(self.key, message)

    def row(self) -> Row:
        """The row as it is now."""
        found = summarize([round(value, _DIGITS) for value in self.samples])
        return Row(
            *self.key,
            n=found.n,
            failures=self.failures,
            min=found.min,
            p50=_rounded(found.p50),
            p90=_rounded(found.p90),
            p95=_rounded(found.p95),
            p99=_rounded(found.p99),
            max=found.max,
            ci=found.ci,
        )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)


class Document(NamedTuple):
    """The whole file."""

    environment: dict[str, Json]
    rows: list[Row]

    def to_text(self) -> str:
        """As it is written."""
        rows = [row._asdict() for row in self.rows]
        return json.dumps({"environment": self.environment, "rows": rows}, indent=1, ensure_ascii=False) + "\n"

    def write(self, path: str) -> None:
        """Write it, whole or not at all. :raise OSError: it cannot be written."""
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with open(path + ".new", "w", encoding="utf-8") as file:
            file.write(self.to_text())
        os.replace(path + ".new", path)


_TEXTS: Final = ("scenario", "metric", "unit")
_NAMES: Final = ("image", "strategy", "snapshotter", "runtime")
_NUMBERS: Final = ("concurrency", "siblings")
_COUNTS: Final = ("n", "failures")
_FIGURES: Final = ("min", "p50", "p90", "p95", "p99", "max")


def problems(value: object) -> list[str]:
    """What is wrong with a parsed file, one sentence each; keys that are not known are fine."""
    if not isinstance(value, dict) or not isinstance(value.get("environment"), dict):
        return ["there is no object `environment`"]
    rows = value.get("rows")
    if not isinstance(rows, list):
        return ["there is no list `rows`"]
    return [f"row {number}: {problem}" for number, row in enumerate(rows) for problem in _row_problems(row)]


def _row_problems(row: object) -> list[str]:
    if not isinstance(row, dict):
        return ["not an object"]
    missing = [name for name in Row._fields if name not in row]
    if missing:
        return [f"no key {name}" for name in missing]
    found = [f"{name} is not text" for name in _TEXTS if not isinstance(row[name], str)]
    found += [f"{name} is neither text nor null" for name in _NAMES if not isinstance(row[name], str | None)]
    found += [
        f"{name} is neither a number nor null" for name in _NUMBERS if not (row[name] is None or _count(row[name]))
    ]
    found += [f"{name} is not a count" for name in _COUNTS if not _count(row[name])]
    found += [
        f"{name} is neither a number nor null" for name in _FIGURES if not (row[name] is None or _number(row[name]))
    ]
    interval = row["ci"]
    if interval is not None and not (isinstance(interval, list) and len(interval) == 2 and all(map(_number, interval))):
        found.append("ci is neither two numbers nor null")
    return found or _order_problems(row)


def _order_problems(row: Mapping[str, object]) -> list[str]:
    """Figures that contradict each other or the number of samples."""
    from unikeel.bench.statistics import LEAST

    n = row["n"]
    found = []
    for percent, least in LEAST.items():
        given, due = row[f"p{percent}"] is not None, isinstance(n, int) and n >= least
        if given != due:
            found.append(f"p{percent} is {'given' if given else 'missing'} with {n} samples")
    figures = [value for name in _FIGURES if isinstance(value := row[name], int | float)]
    if figures != sorted(figures):
        found.append("the figures are not in ascending order")
    return found


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def find(
    rows: Sequence[Row], metric: str, scenario: str, image: str | None = None, strategy: str | None = None
) -> Row | None:
    """The first row of this kind that has samples."""
    wanted = (scenario, metric, image, strategy)
    return next((row for row in rows if (row.scenario, row.metric, row.image, row.strategy) == wanted and row.n), None)


class Board:
    """All series of a run, in the order in which they were first asked for. :param listener: told of every sample."""

    def __init__(self, listener: Listener | None = None) -> None:
        self._series: dict[Key, Series] = {}
        self._listener = listener

    def series(self, key: Key) -> Series:
        """The series of this key, made when it is first asked for."""
        return self._series.setdefault(key, Series(key, self._listener))

    def rows(self) -> list[Row]:
        """A row of each."""
        return [series.row() for series in self._series.values()]

    def failures(self) -> list[Series]:
        """The series with failures."""
        return [series for series in self._series.values() if series.failures]
