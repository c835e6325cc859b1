"""Timed steps for the timeline."""

from __future__ import annotations

import time
from types import TracebackType

from unikeel.boot.contract import Timeline

Attributes = dict[str, str | int | bool]


def span(timeline: Timeline, name: str, **attributes: str | int | bool) -> _Span:
    """Report the block of a ``with`` as a step when it ends, also by an error; attributes may be added to what is yielded."""
    return _Span(timeline, name, attributes)


class _Span:
    __slots__ = ("_attributes", "_name", "_start", "_timeline")

    def __init__(self, timeline: Timeline, name: str, attributes: Attributes) -> None:
        self._timeline = timeline
        self._name = name
        self._attributes = attributes
        self._start = 0

    def __enter__(self) -> Attributes:
        self._start = time.monotonic_ns()
        return self._attributes

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._attributes["error"] = kind.__name__
        self._timeline(self._name, self._start, time.monotonic_ns(), self._attributes)
