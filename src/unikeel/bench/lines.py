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


def take(board: Board, text: Iterable[str]) -> Found:
    """Put the samples of some lines on a board. :raise BadContent: a line is not what this module writes."""
    notices: list[str] = []
    about: dict[str, Json] = {}
    complete = False
    for line in text:
        try:
            said = json.loads(line)
            if "key" in said:
                series = board.series(Key(*said["key"]))
                if "failure" in said:
                    series.fail(str(said["failure"]))
                else:
                    series.add(float(said["value"]))
            elif "notice" in said:
                notices.append(str(said["notice"]))
            elif "environment" in said:
                about.update(said["environment"])
            complete = complete or said.get("end") is True
        except (ValueError, TypeError, KeyError, AttributeError):
            raise BadContent(f"the lab printed something that is no sample: {line[:200]!r}") from None
    return Found(notices, about, complete)
