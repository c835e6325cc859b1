"""The back end ``thin``: every snapshot with content of its own is a thin device of a device-mapper pool, made by a few ioctls.

- :mod:`.store`: the store.
- :mod:`.reference`, :mod:`.identity`, :mod:`.ownership`: which pool, whose it is, and that pool and records belong together.
- :mod:`.devices`, :mod:`.locks`, :mod:`.contents`: its devices, one at a time for each of them, and which there are.
- :mod:`.beside`: two things at once. :mod:`.spares`, :mod:`.idle`: snapshots made ahead, while nobody is served.
- :mod:`.base`, :mod:`.importing`, :mod:`.filling`: empty file systems and images, written to devices.
- :mod:`.tidying`: what is taken away. :mod:`.errors`: what the kernel says, as our errors.
"""

from __future__ import annotations

from unikeel.snapshots.thin.reference import ThinPoolRef

__all__ = ["ThinPoolRef"]
