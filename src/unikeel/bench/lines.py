"""How samples come out of a lab: a line of JSON each, on the standard output of the process that takes them. Pure.

``{"key": […], "value": 1.5}`` is a sample, ``{"key": […], "failure": "…"}`` one that is none, ``{"notice": "…"}`` something that the report
should say, ``{"environment": {…}}`` what was found out; ``{"end": true}`` is the last line of a process that came to its end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from unikeel.bench.rows import Board, Json, Key
from unikeel.errors import BadContent
from unikeel.values import NamedTuple


def sample(key: Key, value: float) -> str:
    """A sample."""
    return json.dumps({"key": list(key), "value": value})


def failure(key: Key, message: str) -> str:
    """A sample that is none."""
    return json.dumps({"key": list(key), "failure": message})


def notice(message: str) -> str:
    """Something that the report should say."""
    return json.dumps({"notice": message})


def environment(found: dict[str, Json]) -> str:
    """What was found out about the world."""
    return json.dumps({"environment": found})


def end() -> str:
    """The last line."""
    return json.dumps({"end": True})


class Found(NamedTuple):
    """What the lines said beside samples; ``complete``: the last one was there."""

    notices: list[str]
    environment: dict[str, Json]
    complete: bool


class Reader:
    """Takes what a lab prints as it comes, in pieces of any size: each sample is on the board as soon as its line is whole."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._rest = ""
        self._notices: list[str] = []
        self._about: dict[str, Json] = {}
        self._complete = False

    def feed(self, text: str) -> None:
        """What was printed next. :raise BadContent: a line is not what this module writes."""
        *whole, self._rest = (self._rest + text).split("\n")
        for line in whole:
            self.line(line)

    def line(self, line: str) -> None:
        """One whole line. :raise BadContent: it is not what this module writes."""
        try:
            said = json.loads(line)
            if "key" in said:
                series = self._board.series(Key(*said["key"]))
                if "failure" in said:
                    series.fail(str(said["failure"]))
                else:
                    series.add(float(said["value"]))
            elif "notice" in said:
                self._notices.append(str(said["notice"]))
            elif "environment" in said:
                self._about.update(said["environment"])
            self._complete = self._complete or said.get("end") is True
        except (ValueError, TypeError, KeyError, AttributeError):
            raise BadContent(f"the lab printed something that is no sample: {line[:200]!r}") from None

    def found(self) -> Found:
        """What was said beside samples."""
        return Found(self._notices, self._about, self._complete)


def take(board: Board, text: Iterable[str]) -> Found:
    """Put the samples of some lines on a board. :raise BadContent: a line is not what this module writes."""
    reader = Reader(board)
    for line in text:
        reader.line(line)
    return reader.found()
