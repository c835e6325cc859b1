"""Which pool a store keeps its snapshots in, and what its devices are called."""

from __future__ import annotations

from unikeel.lean import Final
from unikeel.values import NamedTuple

#: The thin device that holds the pool's identity; no snapshot has this number.
IDENTITY_ID: Final = 0


class ThinPoolRef(NamedTuple):
    """An active thin pool that is ours.

    :ivar name: what users call it. :ivar uuid: what is written into it, 32 hexadecimal digits.
    :ivar device: the pool's own device, ``/dev/mapper/unikeel-NAME``.
    """

    name: str
    uuid: str
    device: str

    @property
    def dm_name(self) -> str:
        """What device-mapper calls the pool."""
        return f"unikeel-{self.name}"

    @property
    def store(self) -> str:
        """Under which name the record store keeps this pool's snapshots."""
        return f"pool:{self.name}"

    def thin_name(self, number: int) -> str:
        """What device-mapper calls a thin device of this pool."""
        return f"unikeel-{self.name}-{number}"

    def thin_uuid(self, number: int) -> str:
        """The device-mapper UUID of a thin device: tells it from another pool's device of the same name."""
        return f"UNIKEEL-{self.uuid}-{number}"

    def number_of(self, dm_name: str) -> int | None:
        """The number of the thin device that device-mapper calls so; None: it is no thin device of this pool."""
        stem = dm_name.removeprefix(f"unikeel-{self.name}-")
        ours = stem != dm_name and stem.isascii() and stem.isdecimal() and str(int(stem)) == stem
        return int(stem) if ours else None


def pool_ref(name: str, uuid: str) -> ThinPoolRef:
    """The reference to the pool of this name."""
    return ThinPoolRef(name, uuid, f"/dev/mapper/unikeel-{name}")
