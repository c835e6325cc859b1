"""``base-size``, on this side of the lab: one containerd whose devmapper makes base images of another size each time it is started.

For each size an image is unpacked in a containerd namespace of its own, where its snapshots are made anew. Its samples are then taken while containerd has that size again, because devmapper
gives every new device the size that it is configured with.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lab.place import Place

_CONFIG: Final = "/etc/containerd/config.toml"
_SIZE: Final = re.compile(rb'base_image_size = "[^"]*"')
#: Seconds in which an image of one layer is unpacked onto a new file system of any size.
_SECONDS: Final = 300.0


def namespace(gigabytes: int) -> str:
    """Where images lie on a base image of this size."""
    return f"bench-base-{gigabytes}"


class Bases:
    """The sizes of a lab's base image. :param archive: the image that is unpacked; empty: there will be none."""

    def __init__(self, place: Place, archive: str) -> None:
        self._place = place
        self._archive = archive
        self._usual = b""
        self._now = 0
        self._unpacked: set[int] = set()

    def use(self, gigabytes: int) -> None:
        """Have containerd run with base images of this size, and the image unpacked on one; 0: with the lab's usual size. :raise LabError: it does not start."""
        if gigabytes == self._now:
            return
        self._usual = self._usual or self._place.get(_CONFIG)
        size = f'base_image_size = "{gigabytes}GB"'.encode()
        self._place.put(_CONFIG, _SIZE.sub(size, self._usual) if gigabytes else self._usual)
        self._place.restart_containerd()
        self._now = gigabytes
        if gigabytes and gigabytes not in self._unpacked:
            self._place.import_image(self._archive, namespace=namespace(gigabytes), timeout=_SECONDS)
            self._unpacked.add(gigabytes)
