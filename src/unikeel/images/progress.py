"""How long work on images reports where it stands."""

from __future__ import annotations

from collections.abc import Callable

from unikeel.lean import TypeAlias

#: Called with what is being done, the bytes done so far and the bytes in all (0 when unknown). Called from the thread that
#: does the work, at most once per mebibyte; what it raises ends the work, which then leaves nothing behind.
Progress: TypeAlias = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """A progress that tells nobody."""
    del what, done, total
