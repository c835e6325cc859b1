"""Images of many layers with their boot files in one of them: ``layers-20-middle``. The same bytes every time, and they do not compress. Pure.

Every layer has a small file of its own; no monitor starts these images, so the boot files are any bytes.
"""

from __future__ import annotations

import random
import re
from typing import Final

from unikeel.bench.snapshotter import layered
from unikeel.values import NamedTuple

#: Role → path of the boot files.
BOOT_FILES: Final = {"kernel": "/boot/kernel", "initrd": "/boot/initrd"}
_SIZES: Final = {"kernel": 1 << 20, "initrd": 7 << 20}
_SMALL: Final = 64 << 10
_NAME: Final = re.compile(r"layers-([1-9][0-9]?)-(first|middle|last)")


class Stack(NamedTuple):
    """How many layers there are, and which of them has the boot files, from 0."""

    layers: int
    boot: int


def stack(name: str) -> Stack | None:
    """What a name stands for; None: it is no image of this kind."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    count = int(found[1])
    return Stack(count, {"first": 0, "middle": (count - 1) // 2, "last": count - 1}[found[2]])


def made(name: str, found: Stack) -> bytes:
    """The image as an OCI archive."""
    numbers = random.Random(name)  # noqa: S311 - the same bytes every time is what is wanted
    layers = [{f"data/{index}": numbers.randbytes(_SMALL)} for index in range(found.layers)]
    layers[found.boot] |= {path.lstrip("/"): numbers.randbytes(_SIZES[role]) for role, path in BOOT_FILES.items()}
    return layered.packed(f"bench.unikeel/{name}:1", layers).archive
