"""The back end ``thin``: every snapshot with content of its own is a thin device of a device-mapper pool, made by a few ioctls.

- :mod:`.reference`: which pool.
"""

from __future__ import annotations

from unikeel.snapshots.thin.reference import ThinPoolRef

__all__ = ["ThinPoolRef"]
