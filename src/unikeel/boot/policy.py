"""Which strategies are tried, in which order: pure functions of what is known beforehand."""

from __future__ import annotations

from collections.abc import Collection

from unikeel.boot.contract import Choice
from unikeel.lean import Final
from unikeel.values import NamedTuple

#: Where a failure of the means leads. ``view`` is never a fallback: it costs most and gives no more than ``shared-view``.
_ORDER: Final = (Choice.CACHE, Choice.SHARED_VIEW, Choice.VIEW, Choice.COPY)
_FALLBACKS: Final = frozenset({Choice.SHARED_VIEW, Choice.COPY})
#: File systems that our own readers read; others only the kernel does. Unknown as yet: the cache finds out.
_READABLE: Final = frozenset({"ext2", "ext3", "ext4", "erofs", ""})


class Step(NamedTuple):
    """A strategy, and why it may not be tried (empty: it may)."""

    choice: Choice
    refusal: str = ""


def automatic(fstype: str, *, trusted: bool, available: Collection[Choice]) -> Choice:
    """What ``auto`` stands for.

    The cache wherever it works, whatever the snapshotter: warm, it costs what a shared view costs, and needs neither a loop
    device, nor a host mount of the image, nor trust, nor somebody to keep it alive; and its files are 0444, so that no id-mapped
    clone is ever needed. The first start of an image pays for reading the files once.
    """
    order = [Choice.CACHE] if fstype in _READABLE or not trusted else []
    for choice in [*order, Choice.SHARED_VIEW, Choice.COPY]:
        if choice in available and (not mounts(choice) or trusted):
            return choice
    return Choice.CACHE


def mounts(choice: Choice) -> bool:
    """Whether a strategy has the host's kernel mount the image."""
    return choice not in (Choice.CACHE, Choice.AUTO)


def steps(choice: Choice, *, trusted: bool, available: Collection[Choice]) -> list[Step]:
    """The strategies to try for a choice (not ``auto``): itself, then those behind it that serve as fallbacks.

    Of an image that is not trusted nothing is ever mounted, whatever was chosen.
    """
    behind = _ORDER[_ORDER.index(choice) + 1 :]
    return [_step(step, trusted, available) for step in (choice, *(step for step in behind if step in _FALLBACKS))]


def _step(choice: Choice, trusted: bool, available: Collection[Choice]) -> Step:  # noqa: FBT001 - one caller, above
    if choice not in available:
        return Step(choice, "it is not set up here")
    if mounts(choice) and not trusted:
        return Step(choice, "the parent is not the image's own chain of layers, so the host must not mount it")
    return Step(choice)


class Kept(NamedTuple):
    """A cache object as the choice of victims sees it: when it was last used (ns), and whether it is in use."""

    digest: str
    size: int
    last_used_ns: int
    used: bool


def victims(kept: Collection[Kept], room: int) -> list[Kept]:
    """Which objects must go so that the rest occupies at most ``room`` bytes: least recently used first, never one in use.

    What is in use may alone be more than ``room``; then all others go.
    """
    excess = sum(entry.size for entry in kept) - room
    gone: list[Kept] = []
    for entry in sorted((entry for entry in kept if not entry.used), key=lambda entry: entry.last_used_ns):
        if excess <= 0:
            break
        gone.append(entry)
        excess -= entry.size
    return gone
