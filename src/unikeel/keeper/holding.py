"""Descriptors held under names, for the commands: those of shared views. One that nobody uses or asks for is let go after a while."""

from __future__ import annotations

import os
import time
from collections.abc import Collection

#: The most descriptors that are held; one more is refused.
MAX_HELD = 1024


class _Held:
    __slots__ = ("fd", "touched")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.touched = time.monotonic()


class Holding:
    """What is held. ``idle``: seconds until an unused one is let go."""

    def __init__(self, idle: float) -> None:
        self._idle = idle
        self._held: dict[str, _Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def put(self, name: str, fd: int) -> None:
        """Hold a copy of a descriptor, in place of what was held under the name. :raise ValueError: too many are held."""
        if name not in self._held and len(self._held) >= MAX_HELD:
            raise ValueError(f"{MAX_HELD} descriptors are held already")
        copy = os.dup(fd)
        self.drop(name)
        self._held[name] = _Held(copy)

    def get(self, name: str) -> int | None:
        """The descriptor, still ours."""
        held = self._held.get(name)
        if held is None:
            return None
        held.touched = time.monotonic()
        return held.fd

    def touch(self, names: Collection[str]) -> None:
        """These were in use until now."""
        for name in names:
            self.get(name)

    def drop(self, name: str) -> None:
        """Let go of it, so that its loop device can go; one that is not held is fine."""
        held = self._held.pop(name, None)
        if held is not None:
            os.close(held.fd)

    def names(self) -> list[str]:
        """All names."""
        return list(self._held)

    def due(self, used: Collection[str]) -> float | None:
        """When the next unused one is let go, on the monotonic clock."""
        return min((held.touched + self._idle for name, held in self._held.items() if name not in used), default=None)

    def tick(self, now: float, used: Collection[str]) -> None:
        """Let go of those that are not among the used ones and that nobody asked for lately."""
        for name, held in list(self._held.items()):
            if name not in used and now >= held.touched + self._idle:
                self.drop(name)
