"""Named spans of a start, on the monotonic clock.

Always on: a span costs two readings of the clock and one object, about 2 µs (`make bench` says what it is here). A span has a
parent by nesting; attributes say which strategy served, whether it was a hit, how many bytes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from unikeel.lean import Any

Attribute = str | int | float | bool


class Span:
    """One step: ``start`` and ``end`` in nanoseconds of the monotonic clock (``end`` 0 while it is open)."""

    __slots__ = ("attributes", "end", "name", "parent", "start")

    def __init__(self, name: str, parent: str, start: int, end: int = 0) -> None:
        self.name = name
        self.parent = parent
        self.start = start
        self.end = end
        self.attributes: dict[str, Attribute] = {}

    @property
    def milliseconds(self) -> float:
        """How long it took."""
        return (self.end - self.start) / 1e6

    def to_json(self) -> dict[str, object]:
        """As it is stored and printed by ``timeline --json``."""
        return {
            "name": self.name,
            "parent": self.parent,
            "start": self.start,
            "end": self.end,
            "attributes": self.attributes,
        }


class _Block:
    """The block of a ``with`` that a span times."""

    __slots__ = ("_attributes", "_name", "_span", "_timeline")

    def __init__(self, timeline: Timeline, name: str, attributes: dict[str, Attribute]) -> None:
        self._timeline = timeline
        self._name = name
        self._attributes = attributes
        self._span: Span | None = None

    def __enter__(self) -> Span:
        self._span = self._timeline._begin(self._name, self._attributes)  # noqa: SLF001 - two halves of one thing
        return self._span

    def __exit__(self, *_: object) -> None:
        assert self._span is not None
        self._timeline._end(self._span)  # noqa: SLF001


class Timeline:
    """The spans of one start, in the order in which they began. Not for several threads at once."""

    def __init__(self, start: int | None = None) -> None:
        self.start = time.monotonic_ns() if start is None else start
        self.spans: list[Span] = []
        self._open: list[str] = []

    def span(self, name: str, **attributes: Attribute) -> _Block:
        """Time a block; more attributes may be set on the span that it yields."""
        return _Block(self, name, attributes)

    def _begin(self, name: str, attributes: dict[str, Attribute]) -> Span:
        span = Span(name, self._open[-1] if self._open else "", time.monotonic_ns())
        span.attributes = attributes
        self.spans.append(span)
        self._open.append(name)
        return span

    def _end(self, span: Span) -> None:
        self._open.pop()
        span.end = time.monotonic_ns()

    def add(self, name: str, start: int, end: int, attributes: Mapping[str, Attribute] | None = None) -> Span:
        """A step that was timed elsewhere."""
        span = Span(name, self._open[-1] if self._open else "", start, end)
        span.attributes.update(attributes or {})
        self.spans.append(span)
        return span

    def note(self, name: str, start: int, end: int, attributes: Mapping[str, str | int | bool]) -> None:
        """The same, in the form that the boot package reports its steps."""
        self.add(name, start, end, dict(attributes))

    def find(self, name: str) -> Span | None:
        """The first span of this name."""
        return next((span for span in self.spans if span.name == name), None)

    def to_json(self) -> dict[str, object]:
        """As stored: the zero point and all spans."""
        return {"clock": "monotonic", "start": self.start, "spans": [span.to_json() for span in self.spans]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Timeline:
        """The inverse of :meth:`to_json`."""
        timeline = cls(int(values["start"]))
        for item in values["spans"]:
            span = Span(item["name"], item["parent"], item["start"], item["end"])
            span.attributes.update(item["attributes"])
            timeline.spans.append(span)
        return timeline

    @property
    def milliseconds(self) -> float:
        """From the zero point to the end of the last step."""
        return (max((span.end for span in self.spans), default=self.start) - self.start) / 1e6
