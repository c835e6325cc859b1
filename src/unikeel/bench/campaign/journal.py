"""A campaign's journal: one line of JSON for each sample, on disk before the next sample is taken.

Killed at any instant, it has every finished sample; a line that was being written is cut off when the campaign goes on. Lines:

    {"campaign": {…}}                            the first one: what is measured; a journal is of one campaign
    {"environment": {…}}                         of each run that added to it
    {"key": […], "value": 1.5}                   a sample; the key is :class:`unikeel.bench.rows.Key`
    {"key": […], "failure": "…", "kind": "…"}    an attempt that gave none
    {"key": […], "warm_up": 1.5}                 before the samples that count; in no figure
    {"key": […], "spans": [[name, ms, ms], …]}   the steps of one start: from, to
    {"done": "block"}                            a block that is not run again
    {"notice": "…"}
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final, Self

from unikeel.bench.campaign.plan import Campaign
from unikeel.bench.rows import Json, Key
from unikeel.errors import FailedPrecondition

_DIGITS: Final = 4


class Kind(StrEnum):
    """Why an attempt gave no sample."""

    FAILURE = "failure"
    #: Another strategy than the one asked for served.
    FALLBACK = "fallback"
    TIMEOUT = "time-out"
    #: Something was left on the host that was not there before, or was there already.
    UNCLEAN = "unclean"


def kind_of(message: str) -> Kind:
    """What a message is about: samples come out of a lab as text."""
    if " served instead" in message:
        return Kind.FALLBACK
    if "left behind" in message or "not clean" in message:
        return Kind.UNCLEAN
    late = ("in time", "time is up", "DeadlineExceeded", "still runs after", "timed out")
    return Kind.TIMEOUT if any(words in message for words in late) else Kind.FAILURE


class Journal:
    """The file, open for adding; a listener of boards. A context manager.

    :param path: made if it is not there; continued if it is of the same campaign.
    :raise FailedPrecondition: it is of another campaign, or another run adds to it now. :raise OSError: it cannot be written.
    """

    def __init__(self, path: str, campaign: Campaign) -> None:
        import fcntl

        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        self.path = path
        self.done: frozenset[str] = frozenset()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FailedPrecondition(
                    f"another run adds to {path}", "wait for it, or choose another --output"
                ) from None
            self._continue(json.loads(json.dumps(described(campaign))))
        except BaseException:
            os.close(self._fd)
            raise

    def _continue(self, campaign: Json) -> None:
        """Cut off what a killed run had not finished writing, and learn what is done."""
        with open(self._fd, "rb", closefd=False) as file:
            data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            os.ftruncate(self._fd, whole)
        lines = [json.loads(line) for line in data[:whole].splitlines()]
        if not lines:
            self.write({"campaign": campaign})
        elif lines[0].get("campaign") != campaign:
            raise FailedPrecondition(
                f"{self.path} is of another campaign, or of another version of it", "choose another --output"
            )
        self.done = frozenset(line["done"] for line in lines if "done" in line)

    def write(self, line: Mapping[str, object]) -> None:
        """Add a line; it is on disk when this returns. :raise OSError: no space, and the like."""
        data = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        while data:
            data = data[os.write(self._fd, data) :]
        os.fdatasync(self._fd)

    # -- what a board tells ----------------------------------------------------------------------------------------

    def sample(self, key: Key, value: float) -> None:
        """A sample."""
        self.write({"key": list(key), "value": round(value, _DIGITS)})

    def failure(self, key: Key, message: str) -> None:
        """An attempt that is none."""
        self.write({"key": list(key), "failure": message, "kind": kind_of(message).value})

    # -- what a world tells ----------------------------------------------------------------------------------------

    def warm_up(self, key: Key, value: float) -> None:
        """A sample that does not count."""
        self.write({"key": list(key), "warm_up": round(value, _DIGITS)})

    def spans(self, key: Key, spans: Sequence[tuple[str, float, float]]) -> None:
        """The steps of a start, in milliseconds from its beginning."""
        self.write({"key": list(key), "spans": [[name, round(begin, 3), round(end, 3)] for name, begin, end in spans]})

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def described(campaign: Campaign) -> dict[str, object]:
    """A campaign as its journal keeps it: whatever changes the samples' meaning."""
    return {
        "name": campaign.name,
        "about": campaign.about,
        "samples": campaign.samples,
        "warm_up": campaign.warm_up,
        "timeout": campaign.timeout,
        "tables": [[table.samples, [list(cell) for cell in table.cells]] for table in campaign.tables],
    }
