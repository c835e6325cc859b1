"""What a run measures: which metrics, of which images, how often; and how it tells where it is."""

from __future__ import annotations

import sys
from typing import Final

from unikeel.values import NamedTuple

#: Every metric, and what ``--only`` takes.
METRICS: Final = ("acquire", "exec", "import", "ready", "host_memory", "tap", "plan", "span")
#: The images of a whole run, in the order in which they are loaded: hello and nginx are the samples proper, bulky has 32 MB of boot files,
#: ballast 1 GiB of others.
IMAGES: Final = ("hello", "nginx", "bulky", "ballast")

_QUICK_SAMPLES: Final = 3
_QUICK_IMAGES: Final = ("hello",)


class Plan(NamedTuple):
    """What is asked for; ``samples`` 0: as many as each metric needs."""

    images: tuple[str, ...] = ()
    metrics: tuple[str, ...] = METRICS
    samples: int = 0
    quick: bool = False

    def wants(self, *metrics: str) -> bool:
        """Whether one of these metrics is measured."""
        return any(metric in self.metrics for metric in metrics)

    def count(self, usual: int) -> int:
        """How many samples of a series are taken where ``usual`` are in a whole run."""
        return self.samples or (min(usual, _QUICK_SAMPLES) if self.quick else usual)

    def of(self, images: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the images that a metric is measured with which are asked for."""
        wanted = self.images or (_QUICK_IMAGES if self.quick else IMAGES)
        return tuple(image for image in images if image in wanted)


class Progress:
    """Where a run is, on a terminal; silent in a pipe."""

    def __init__(self, *, shown: bool | None = None) -> None:
        self._shown = sys.stderr.isatty() if shown is None else shown
        self._where = ""

    def where(self) -> str:
        """The step that was worked on last."""
        return self._where

    def at(self, what: str, done: int, of: int) -> None:
        """The step that is being worked on."""
        self._where = f"{what}, {done} of {of}"
        if self._shown:
            sys.stderr.write(f"\r\033[K{what}: {done}/{of}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Make room for something else."""
        if self._shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
