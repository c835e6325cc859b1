"""Images come and go: ``python -m lab_support.soak SNAPSHOTTER COUNT KEPT``, inside a lab, next to containerd.

Every image has a layer that all share and one of its own. They are imported, unpacked and given a container's snapshot; when more than ``KEPT`` are there, the
oldest goes with its snapshot, and containerd's garbage collector runs.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from typing import Final

from lab_support import archives
from lab_support.archives import Entry, Spec
from unikeel.containerd.bringing import import_image, unpack
from unikeel.containerd.client import Containerd
from unikeel.errors import NotFound

_LONG: Final = 600.0
_MIB: Final = 1 << 20
_KEPT: Final = {"containerd.io/gc.root": "soak"}


def image(number: int) -> Spec:
    """An image: a megabyte that all have, and one that no other has."""
    shared, own = random.Random(0).randbytes(_MIB), random.Random(number).randbytes(_MIB)
    return Spec(f"soak.unikeel/image:{number}", ({"shared": Entry(shared)}, {f"own{number}": Entry(own)}), ("true",))


async def soak(snapshotter: str, count: int, kept: int) -> None:
    """So many images, one after the other. Nothing of them is left."""
    async with Containerd() as containerd:
        store = containerd.snapshots(snapshotter)
        there: list[int] = []

        async def gone(number: int) -> None:
            await store.remove(f"soak-{number}", timeout=_LONG)
            await containerd.images.delete(image(number).name, sync=True, timeout=_LONG)
            try:
                await store.stat(f"soak-{number}")
            except NotFound:
                return
            raise AssertionError(f"the snapshot of image {number} is still there")

        for number in range(1, count + 1):
            with tempfile.TemporaryDirectory() as directory:
                path = archives.write(image(number), os.path.join(directory, "image.tar"))
                record = await import_image(containerd, path)
            parent = await unpack(containerd, record, snapshotter)
            await store.prepare(f"soak-{number}", parent, _KEPT, timeout=_LONG)
            there.append(number)
            if len(there) > kept:
                await gone(there.pop(0))
        for number in there:
            await gone(number)


def main(argv: Sequence[str]) -> int:
    """See the module."""
    snapshotter, count, kept = argv
    asyncio.run(soak(snapshotter, int(count), int(kept)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
