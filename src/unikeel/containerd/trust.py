"""When the host may mount a committed snapshot: when its name is the chain ID of the layers of the container's image.

Such a snapshot was made by containerd from an image's layers. Any other parent (committed by hand from what a guest wrote, an image that is
gone) is hostile: only the reader in user space touches it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from unikeel.images import digests


def chain_ids(diff_ids: Sequence[str]) -> tuple[str, ...]:
    """The chain IDs of a stack of layers and of all stacks beneath it, the lowest first; as many as there are layers."""
    found: list[str] = []
    for diff_id in diff_ids:
        text = f"{found[-1]} {diff_id}" if found else ""
        found.append(digests.PREFIX + hashlib.sha256(text.encode()).hexdigest() if found else diff_id)
    return tuple(found)


def is_trusted(parent: str, chain: Sequence[str]) -> bool:
    """Whether a parent is the image's own: the whole of it, not a part."""
    return bool(chain) and parent == chain[-1]
