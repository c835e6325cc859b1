"""The names of guests and monitors, which pairs fit, and the nearest spelling of a name that is wrong.

The pairs are those of urunc's validation (the images we must run are made for it), plus our own guest ``generic`` and the monitor ``uml``, user-mode
Linux. A known name need not be offered by this version: the registries (:mod:`unikeel.guests`, :mod:`unikeel.monitors`) decide that.
"""

from __future__ import annotations

from collections.abc import Iterable

from unikeel.errors import BadContent
from unikeel.lean import Final

#: Which guests each monitor can run. The one table behind validation, ``doctor`` and the documentation.
PAIRS: Final[dict[str, tuple[str, ...]]] = {
    "qemu": ("unikraft", "mirage", "mewz", "linux", "hermit", "generic"),
    "firecracker": ("unikraft", "linux"),
    "cloud-hypervisor": ("linux",),
    "hvt": ("rumprun", "mirage"),
    "spt": ("rumprun", "mirage"),
    "uml": ("linux",),
    "hyperlight-unikraft": ("unikraft",),
}

#: Every monitor that an image may name.
MONITORS: Final = tuple(PAIRS)

#: Every guest type that an image may name.
GUESTS: Final = tuple(dict.fromkeys(guest for guests in PAIRS.values() for guest in guests))


def nearest(word: str, known: Iterable[str]) -> str:
    """The known name most like ``word``, or an empty string if none is like it."""
    import difflib

    found = difflib.get_close_matches(word[:256].lower(), list(known), n=1, cutoff=0.6)
    return found[0] if found else ""


def quote(text: str, limit: int = 80) -> str:
    """Foreign text for a message: on one line, escaped where it does not print, cut to ``limit`` characters."""
    return repr(text) if len(text) <= limit else repr(text[:limit]) + "..."


def unknown_hint(word: str, known: Iterable[str]) -> str:
    """A hint that names the nearest spelling, if any, and everything that is known."""
    names = sorted(known)
    near = nearest(word, names)
    meant = f"did you mean {near!r}? " if near else ""
    return f"{meant}known: {', '.join(names)}"


def check_pair(guest: str, monitor: str, source: str) -> None:
    """Refuse an unknown guest type, an unknown monitor, and a monitor that cannot run this guest.

    :param source: the input that named them, for the message.
    :raises BadContent: with the known names and the nearest spelling, or the pairs that fit, as the hint.
    """
    if guest not in GUESTS:
        raise BadContent(f"{source}: guest type {quote(guest)} is unknown", unknown_hint(guest, GUESTS))
    if monitor not in PAIRS:
        raise BadContent(f"{source}: monitor {quote(monitor)} is unknown", unknown_hint(monitor, MONITORS))
    if guest not in PAIRS[monitor]:
        fitting = ", ".join(name for name, guests in PAIRS.items() if guest in guests)
        raise BadContent(f"{source}: monitor {monitor!r} cannot run guest {guest!r}", f"monitors that can: {fitting}")
