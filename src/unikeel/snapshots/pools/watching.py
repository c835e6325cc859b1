"""How full a pool is, when to warn of it, and when to refuse before the kernel does.

A thin pool whose data is used up fails the writes of every guest on it; one whose metadata is used up turns read-only and must be checked offline. So a new
snapshot is refused while there is room left for those that exist.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable

from unikeel.errors import ResourceExhausted
from unikeel.lean import Final
from unikeel.values import NamedTuple


class Level(enum.IntEnum):
    """How grave a pool's fill is."""

    FINE = 0
    WARN = 1  #: room is getting scarce: what can be given back should be
    FULL = 2  #: nothing new is made


class Fill(NamedTuple):
    """One kind of room: bytes in use, of all."""

    used: int
    total: int

    @property
    def percent(self) -> float:
        """From 0 to 100; of nothing, all is used."""
        return 100 * self.used / self.total if self.total else 100.0


class PoolFill(NamedTuple):
    """Data and metadata of a pool. ``metadata`` is ``None`` where a file system sees to its own.

    :ivar trouble: why nothing can be written at all (``read-only``, ``out of metadata``, ``failed``), or empty.
    """

    data: Fill
    metadata: Fill | None = None
    trouble: str = ""


class Limits(NamedTuple):
    """From which percentage on there is a warning, and a refusal.

    Metadata is refused earlier: one snapshot of a large, scattered parent needs more of it, when it is written to, than a whole small pool has left.
    """

    data_warn: float = 80.0
    data_full: float = 95.0
    metadata_warn: float = 70.0
    metadata_full: float = 85.0


#: What holds unless somebody says otherwise.
LIMITS: Final = Limits()


class Verdict(NamedTuple):
    """How grave it is, and why, in a sentence without a full stop; empty if all is fine."""

    level: Level
    reason: str = ""


def judge(fill: PoolFill, limits: Limits = LIMITS) -> Verdict:
    """The gravest that is to be said of a pool."""
    if fill.trouble:
        return Verdict(Level.FULL, f"it is {fill.trouble}")
    found = [_judged("data", fill.data, limits.data_warn, limits.data_full)]
    if fill.metadata is not None:
        found.append(_judged("metadata", fill.metadata, limits.metadata_warn, limits.metadata_full))
    return max(found, key=lambda verdict: verdict.level)


def _judged(what: str, fill: Fill, warn: float, full: float) -> Verdict:
    level = Level.FULL if fill.percent >= full else Level.WARN if fill.percent >= warn else Level.FINE
    if level is Level.FINE:
        return Verdict(level)
    limit = f"nothing new from {full:g} % on"
    return Verdict(level, f"{fill.percent:.1f} % of its {what} is used ({limit})")


class FillWatch:
    """Watches one pool: asked before anything is made in it; warns once each time that things get worse. For several threads.

    :param name: the pool's. :param look: how full it is now; a few microseconds. :param notice: gets sentences for the user or the log.
    """

    def __init__(
        self,
        name: str,
        look: Callable[[], PoolFill],
        *,
        limits: Limits = LIMITS,
        notice: Callable[[str], None] = lambda _sentence: None,
    ) -> None:
        self._name = name
        self._look = look
        self._limits = limits
        self._notice = notice
        self._said = Level.FINE
        self._turn = threading.Lock()

    def look(self) -> PoolFill:
        """How full it is now."""
        return self._look()

    def verdict(self) -> Verdict:
        """How grave that is; said aloud when it is graver than before."""
        found = judge(self._look(), self._limits)
        with self._turn:
            worse, self._said = found.level > self._said, found.level
        if worse:
            self._notice(f"pool {self._name}: {found.reason}")
        return found

    def level(self) -> Level:
        """:attr:`Verdict.level`."""
        return self.verdict().level

    def admit(self) -> None:
        """May something new be made? :raise ResourceExhausted: it may not."""
        found = self.verdict()
        if found.level is Level.FULL:
            raise ResourceExhausted(
                f"pool {self._name} takes nothing new: {found.reason}",
                f"remove images or containers, or grow it with `unikeel pool grow {self._name}`",
            )
