"""How our views and their leases are named in containerd, and the words by which they are found again: pure functions."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import Final

#: Labels of ours, on views and on their leases.
INSTANCE: Final = "org.unikeel/instance"
PARENT: Final = "org.unikeel/parent"
PURPOSE: Final = "org.unikeel/purpose"
CONTAINER: Final = "org.unikeel/container"
#: containerd's: when a lease ends by itself.
EXPIRE: Final = "containerd.io/gc.expire"

#: How long a lease lives, in seconds. It cannot be renewed: at half time another one takes over.
LIFETIME: Final = 24 * 3600.0

_NS: Final = 1_000_000_000


def prefix(instance: str) -> str:
    """What the keys of all views of a state root begin with."""
    return f"unikeel-{instance}-"


def view_key(instance: str, parent_key: str, purpose: str, container: str) -> str:
    """The key of a view: always the same for the same parent, purpose and container."""
    parts = b"\0".join(part.encode("utf-8", "surrogateescape") for part in (parent_key, purpose, container))
    return f"{prefix(instance)}{purpose}-{hashlib.sha256(parts).hexdigest()[:24]}"


def lease_id(view: str, generation: int) -> str:
    """The lease of a view; each that takes over is the next generation."""
    return f"{view}-{generation}"


def generation_of(lease: str) -> int:
    """The generation of a lease; 0 if it is not ours."""
    number = lease.rpartition("-")[2]
    return int(number) if number.isascii() and number.isdigit() else 0


def labels(instance: str, parent: str, purpose: str, container: str) -> dict[str, str]:
    """The labels of a view."""
    found = {INSTANCE: instance, PARENT: parent, PURPOSE: purpose}
    return {**found, CONTAINER: container} if container else found


def lease_labels(view_labels: Mapping[str, str], now_ns: int) -> dict[str, str]:
    """The labels of its lease: the same, and when it ends."""
    end = time.gmtime((now_ns + int(LIFETIME * _NS)) // _NS)
    return {**view_labels, EXPIRE: time.strftime("%Y-%m-%dT%H:%M:%SZ", end)}


def is_half_over(leased_ns: int, now_ns: int) -> bool:
    """Whether a lease has lived for half its time (or claims to begin in the future)."""
    return not leased_ns <= now_ns < leased_ns + int(LIFETIME * _NS) // 2


def instance_filter(instance: str) -> str:
    """The filter that finds all of a state root's leases and views (containerd.md 3.2)."""
    return f'labels."{INSTANCE}"=={instance}'


def resource_kind(snapshotter: str) -> str:
    """How a lease names the snapshots of a snapshotter."""
    return f"snapshots/{snapshotter}"
