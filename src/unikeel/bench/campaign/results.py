"""Reading journals back: every series with its samples and failures. Hostile or damaged files give a clear error."""

from __future__ import annotations

import gzip
import json
import math
import statistics
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from unikeel.bench.campaign.journal import Kind
from unikeel.bench.inference import Sampled
from unikeel.bench.rows import Board, Document, Json, Key
from unikeel.errors import BadContent, NotFound
from unikeel.values import NamedTuple

_MOST_BYTES: Final = 1 << 28
_GZIP: Final = b"\x1f\x8b"

Spans = list[tuple[str, float, float]]


class Series(NamedTuple):
    """One series: samples in the order in which they were taken, failures by their kind, the first one's message, warm-ups, and the steps of some starts.

    :ivar attempts: of each block that took some, its attempts; a failure is infinite.
    """

    key: Key
    values: tuple[float, ...]
    failed: Mapping[Kind, int]
    reason: str
    warm_ups: tuple[float, ...]
    spans: tuple[Spans, ...]
    attempts: tuple[tuple[float, ...], ...] = ()

    @property
    def by_block(self) -> Sampled:
        """The median of each block's attempts: what there is to compare where all of a block were taken in one stretch, and what the host did then hit all of them."""
        medians = [statistics.median(each) for each in self.attempts]
        known = tuple(value for value in medians if not math.isinf(value))
        return Sampled(known, len(medians) - len(known))

    @property
    def sampled(self) -> Sampled:
        """For conclusions."""
        return Sampled(self.values, sum(self.failed.values()))


class Results(NamedTuple):
    """What one or several journals have."""

    campaigns: list[dict[str, Any]]
    environments: list[dict[str, Json]]
    series: dict[Key, Series]
    notices: list[str]
    blocks: int

    def document(self) -> Document:
        """In the format of every benchmark's file."""
        board = Board()
        for key, series in self.series.items():
            row = board.series(key)
            for value in series.values:
                row.add(value)
            for _ in range(series.sampled.failures):
                row.fail(series.reason)
        environment: dict[str, Json] = {} if not self.environments else dict(self.environments[-1])
        return Document(environment, board.rows())


class _Taken:
    """A series while it is read."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.warm_ups: list[float] = []
        self.failed: dict[Kind, int] = {}
        self.reason = ""
        self.spans: list[Spans] = []
        self.attempts: dict[int, list[float]] = {}

    def take(self, line: Mapping[str, Any], block: int) -> None:
        if "value" in line:
            self.values.append(float(line["value"]))
            self.attempts.setdefault(block, []).append(float(line["value"]))
        elif "failure" in line:
            self.attempts.setdefault(block, []).append(math.inf)
            kind = Kind(line["kind"])
            self.failed[kind] = self.failed.get(kind, 0) + 1
            self.reason = self.reason or str(line["failure"])
        elif "warm_up" in line:
            self.warm_ups.append(float(line["warm_up"]))
        elif "spans" in line:
            self.spans.append([(str(name), float(begin), float(end)) for name, begin, end in line["spans"]])


def read(paths: Iterable[str]) -> Results:
    """Journals, plain or compressed by gzip; several add up. :raise NotFound: one is not there. :raise BadContent: one is none, or damaged."""
    found = Results([], [], {}, [], 0)
    taken: dict[Key, _Taken] = {}
    blocks = 0
    for path in paths:
        for number, text in enumerate(_lines(path), 1):
            try:
                line = json.loads(text)
                if not isinstance(line, dict):
                    raise TypeError
                if number == 1:
                    found.campaigns.append(dict(line["campaign"]))
                elif "key" in line:
                    taken.setdefault(Key(*line["key"]), _Taken()).take(line, blocks)
                elif "environment" in line:
                    found.environments.append(dict(line["environment"]))
                elif "notice" in line:
                    found.notices.append(str(line["notice"]))
                blocks += "done" in line
            except (ValueError, TypeError, KeyError, AttributeError):
                raise BadContent(f"{path}: line {number} is none of a campaign's journal") from None
    series = {
        key: Series(
            key, tuple(each.values), each.failed, each.reason, tuple(each.warm_ups), tuple(each.spans), tuple(map(tuple, each.attempts.values()))
        )
        for key, each in taken.items()
    }  # fmt: skip
    return found._replace(series=series, blocks=blocks)


def _lines(path: str) -> list[bytes]:
    """The whole lines of a file: the last one may have been cut off by a kill."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if data.startswith(_GZIP):
            with gzip.open(path, "rb") as packed:
                data = packed.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"there are no results {path}", "`unikeel bench run` makes them") from None
    except (OSError, EOFError, zlib.error) as error:
        raise BadContent(f"{path} cannot be read: {error}") from None
    if len(data) > _MOST_BYTES:
        raise BadContent(f"{path} has more than {_MOST_BYTES >> 20} MiB")
    whole = data[: data.rfind(b"\n") + 1].splitlines()
    if not whole:
        raise BadContent(f"{path} has no whole line")
    return whole
