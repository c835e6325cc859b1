"""What a container is made of, as the task service needs to know it, and who finds that out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from unikeel.boot.contract import Parent
from unikeel.values import NamedTuple


class Identity(NamedTuple):
    """A container's image and committed snapshot.

    ``manifest`` and ``labels`` are the image's annotations and labels. ``parent`` is None where the container's snapshot has no committed one beneath it, or
    cannot be looked at, and ``problem`` says why. ``exposed`` are the ports that the image names. ``mounts`` are type and source of each mount that the
    snapshotter answers for the container's snapshot. ``committed`` is the image's own committed snapshot, where there is no ``parent``.
    """

    image: str
    manifest: Mapping[str, str]
    labels: Mapping[str, str]
    parent: Parent | None
    problem: str = ""
    exposed: tuple[str, ...] = ()
    mounts: tuple[tuple[str, str], ...] = ()
    committed: Parent | None = None


#: Of a container that no image is known of.
UNKNOWN = Identity("", {}, {}, None, "containerd knows no image of this container")


class Identifier(Protocol):
    """Asks one containerd."""

    async def identify(self, namespace: str, container: str) -> Identity:
        """What a container is made of. :raise NotFound: there is no such container. :raise Unavailable: containerd does not answer."""
        ...

    async def close(self) -> None:
        """End the connection."""
        ...
