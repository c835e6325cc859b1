"""What the two kinds of pool have in common."""

from __future__ import annotations

from unikeel.lean import Protocol
from unikeel.snapshots.pools.definition import Pool, PoolKind
from unikeel.snapshots.pools.registry import Registry
from unikeel.snapshots.pools.watching import PoolFill


class Means(Protocol):
    """One pool, as its kind handles it. Every method may be repeated after a kill."""

    @property
    def directory(self) -> str:
        """Where images of the kind ``file`` go; empty for others."""

    def make(self) -> None:
        """Make it from nothing, and leave nothing active that :meth:`deactivate` does not know."""

    def is_active(self) -> bool:
        """Whether it can be used. :raise FailedPrecondition: something else is in its place."""

    def activate(self) -> None:
        """Make it usable, in the size that its definition has. :raise BadContent: what it is made of holds something else."""

    def fill(self) -> PoolFill:
        """How full it is; it is active."""

    def deactivate(self) -> None:
        """The inverse of :meth:`activate`; one that is not active is fine. :raise FailedPrecondition: it is in use."""

    def wipe(self) -> None:
        """Take away from devices what says that they are a pool; what is in files of ours goes with those."""


def means_of(registry: Registry, pool: Pool) -> Means:
    """The means of a pool's kind."""
    if pool.kind is PoolKind.FILE:
        from unikeel.snapshots.pools.file_pool import FilePool

        return FilePool(registry, pool)
    from unikeel.snapshots.pools.thin_pool import ThinPool

    return ThinPool(registry, pool)
