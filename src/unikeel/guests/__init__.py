"""Guests, one file per kind: what each is told on its kernel command line, and what it supports.

The registry is the directory: guest ``x`` is the object ``GUEST`` of ``unikeel/guests/x.py`` (a dash becomes an underscore), imported when
it is first asked for. To add a guest, add its file, and its name to :data:`unikeel.model.names.PAIRS` if urunc does not know it.
"""

from __future__ import annotations

import sys
from functools import cache

from unikeel.errors import InvalidArgument, Unimplemented
from unikeel.lean import TYPE_CHECKING
from unikeel.model.names import GUESTS, quote, unknown_hint

if TYPE_CHECKING:
    from unikeel.guests.contract import Guest


@cache
def guest(name: str) -> Guest:
    """The guest of this type.

    :raises InvalidArgument: no such type is known; the hint names those known and the nearest spelling.
    :raises Unimplemented: known, and not offered by this version.
    """
    if name not in GUESTS:
        raise InvalidArgument(f"guest type {quote(name)} is unknown", unknown_hint(name, GUESTS))
    module = f"{__name__}.{name.replace('-', '_')}"
    try:
        __import__(module)  # importlib would be a module more
        found: Guest = sys.modules[module].GUEST
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise Unimplemented(
            f"guest {name!r} is known but not offered by this version", f"offered: {', '.join(offered())}"
        ) from None
    return found


def offered() -> tuple[str, ...]:
    """The guest types that this version offers, sorted."""
    from importlib.util import find_spec

    return tuple(sorted(name for name in GUESTS if find_spec(f"{__name__}.{name.replace('-', '_')}")))
