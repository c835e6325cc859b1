"""Counting: what was started, how boot files were got, how long things took. Written out in Prometheus's text format (version 0.0.4).

A few counters and histograms of our own: the library for it brings 4 MB into the process.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from unikeel.values import NamedTuple

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
#: Reasons of falling back begin with what failed; more of it would make a series for each snapshot.
_REASON: Final = 60
_SERIES: Final = 256

Labels = tuple[tuple[str, str], ...]


class Gauge(NamedTuple):
    """A number that is looked up when somebody reads."""

    name: str
    doc: str
    values: Sequence[tuple[Labels, float]]


class _Histogram:
    """Durations of one thing."""

    __slots__ = ("counts", "number", "total")

    def __init__(self) -> None:
        self.counts = [0] * len(_BUCKETS)
        self.number = 0
        self.total = 0.0

    def add(self, seconds: float) -> None:
        index = bisect_left(_BUCKETS, seconds)
        if index < len(_BUCKETS):
            self.counts[index] += 1
        self.number += 1
        self.total += seconds


class Metrics:
    """All that is counted in this process, since it began."""

    def __init__(self) -> None:
        self._counters: dict[str, dict[Labels, int]] = {}
        self._durations: dict[str, _Histogram] = {}

    def count(self, name: str, **labels: str) -> None:
        """One more; of the table :data:`COUNTERS`."""
        series = self._counters.setdefault(name, {})
        key = tuple(labels.items())
        if key in series or len(series) < _SERIES:
            series[key] = series.get(key, 0) + 1

    def value(self, name: str, **labels: str) -> int:
        """How many, so far."""
        return self._counters.get(name, {}).get(tuple(labels.items()), 0)

    def took(self, what: str, seconds: float) -> None:
        """Something was done, in this time."""
        histogram = self._durations.get(what)
        if histogram is None:
            histogram = self._durations[what] = _Histogram()
        histogram.add(seconds)

    def failed(self, what: str, kind: str) -> None:
        """Something failed."""
        self.count("failures", operation=what, error=kind)

    def served(self, strategy: str, *, hit: bool, fallbacks: Sequence[tuple[str, str]]) -> None:
        """Boot files were had."""
        self.count("starts", strategy=strategy)
        self.count("hits" if hit else "fills", strategy=strategy)
        for name, reason in fallbacks:
            self.count("fallbacks", strategy=name, reason=reason.partition(":")[0][:_REASON])

    def ended(self) -> None:
        """A task has ended."""
        self.count("ends")

    def text(self, gauges: Sequence[Gauge]) -> str:
        """All of it, and these."""
        return "\n".join([*self._lines(gauges), ""])

    def _lines(self, gauges: Sequence[Gauge]) -> Iterator[str]:
        for name, doc in COUNTERS.items():
            yield f"# HELP unikeel_{name}_total {doc}"
            yield f"# TYPE unikeel_{name}_total counter"
            for labels, number in self._counters.get(name, {}).items():
                yield f"unikeel_{name}_total{_labels(labels)} {number}"
        yield "# HELP unikeel_duration_seconds How long requests took."
        yield "# TYPE unikeel_duration_seconds histogram"
        for what, histogram in self._durations.items():
            below = 0
            for limit, count in zip(_BUCKETS, histogram.counts, strict=True):
                below += count
                yield f'unikeel_duration_seconds_bucket{{operation="{what}",le="{limit:g}"}} {below}'
            yield f'unikeel_duration_seconds_bucket{{operation="{what}",le="+Inf"}} {histogram.number}'
            yield f'unikeel_duration_seconds_sum{{operation="{what}"}} {histogram.total:.6f}'
            yield f'unikeel_duration_seconds_count{{operation="{what}"}} {histogram.number}'
        for gauge in gauges:
            yield f"# HELP unikeel_{gauge.name} {gauge.doc}"
            yield f"# TYPE unikeel_{gauge.name} gauge"
            for labels, value in gauge.values:
                yield f"unikeel_{gauge.name}{_labels(labels)} {value:g}"


COUNTERS: Final[Mapping[str, str]] = {
    "starts": "Tasks created, by the strategy that served their boot files.",
    "ends": "Tasks that ended.",
    "hits": "Boot files that were there already, by strategy.",
    "fills": "Boot files that had to be read, mounted or copied first, by strategy.",
    "fallbacks": "Strategies that could not serve, by the reason.",
    "failures": "Requests that failed, by the kind of error.",
}


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    escaped = ((name, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for name, value in labels)
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"
