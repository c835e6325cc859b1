"""What unikeel would cost if nothing had to be on the disk before something else is done: its flushes left out. **For measuring alone.**

No setting, option or variable of unikeel leads here: a benchmark does this to its own process, or to a command that it starts by :func:`command`, on a state root that is
thrown away. What others flush is flushed as ever: the keeper, crun, the guest.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from unikeel.records.database import Database

#: Both kinds of command run the same words, so that they differ in nothing but what is left out.
_PROGRAM: Final = (
    "import os, sys; nothing = lambda _file: None; os.fsync, os.fdatasync = {}; "
    "from unikeel.cli.main import entry; sys.exit(entry())"
)
_FLUSHED: Final = "os.fsync, os.fdatasync"
_UNFLUSHED: Final = "nothing, nothing"
#: As `Database` sets it.
_USUAL: Final = "NORMAL"


class Flushes:
    """How many flushes there were."""

    count = 0


def command(*, flushed: bool) -> list[str]:
    """The words that ``unikeel``'s arguments follow, for a command with its flushes or without. SQLite's own, when its log is copied back (every ten starts or so), stay."""
    return [sys.executable, "-c", _PROGRAM.format(_FLUSHED if flushed else _UNFLUSHED)]


@contextmanager
def counted(flushes: Flushes) -> Iterator[None]:
    """This process's flushes happen, and are counted."""

    def wrapped(flush: Callable[[int], None]) -> Callable[[int], None]:
        def wrapper(file: int) -> None:
            flushes.count += 1
            flush(file)

        return wrapper

    with _instead(wrapped):
        yield


@contextmanager
def without(*databases: Database) -> Iterator[None]:
    """This process's flushes do not happen, nor SQLite's own for these record stores. Afterwards everything is as before, and on the disk."""
    for database in databases:
        database.query("PRAGMA synchronous=OFF")
    try:
        with _instead(lambda _flush: lambda _file: None):
            yield
    finally:
        for database in databases:
            database.query(f"PRAGMA synchronous={_USUAL}")
        os.sync()


@contextmanager
def _instead(made: Callable[[Callable[[int], None]], Callable[[int], None]]) -> Iterator[None]:
    """Both calls replaced, for the whole process: nothing else may be at work in it."""
    fsync, fdatasync = os.fsync, os.fdatasync
    os.fsync, os.fdatasync = made(fsync), made(fdatasync)  # type: ignore[assignment]
    try:
        yield
    finally:
        os.fsync, os.fdatasync = fsync, fdatasync
