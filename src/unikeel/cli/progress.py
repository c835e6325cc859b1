"""How long work shows itself: a bar on standard error if that is a terminal, nothing otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from unikeel.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Display
    from rich.progress import TaskID

    from unikeel.images.progress import Progress


def is_terminal(fd: int) -> bool:
    """Whether a descriptor is an open terminal that can move its cursor."""
    return os.environ.get("TERM", "") != "dumb" and os.isatty(fd)


@contextmanager
def shown() -> Iterator[Progress | None]:
    """A progress to hand to the library, or ``None`` where nobody would see it. The bar is gone at the end."""
    if not is_terminal(2):
        yield None
        return
    bars = _Bars()
    try:
        yield bars.report
    finally:
        bars.close()


class _Bars:
    """One bar per kind of work. rich is imported at the first report: short work never pays for it."""

    def __init__(self) -> None:
        self._display: Display | None = None
        self._tasks: dict[str, TaskID] = {}

    def report(self, what: str, done: int, total: int) -> None:
        """As :data:`unikeel.images.progress.Progress`."""
        if self._display is None:
            self._display = _display()
            self._display.start()
        if what not in self._tasks:
            self._tasks[what] = self._display.add_task(what, total=total or None)
        self._display.update(self._tasks[what], completed=done, total=total or None)

    def close(self) -> None:
        """Take the bars away."""
        if self._display is not None:
            self._display.stop()


def _display() -> Display:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
