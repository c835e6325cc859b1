"""A pool as a store uses it: activated, held against being taken away, and watched."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from unikeel.kernel.fd import OwnedFd
from unikeel.lean import Self
from unikeel.snapshots.pools.definition import Pool, PoolKind
from unikeel.snapshots.pools.means import Means, means_of
from unikeel.snapshots.pools.registry import Registry
from unikeel.snapshots.pools.watching import LIMITS, FillWatch, Limits
from unikeel.snapshots.thin.reference import ThinPoolRef, pool_ref


class OpenPool:
    """A pool that is active; a context manager. It stays active when it is closed.

    :ivar pool: its definition. :ivar watch: asked before anything is made in it.
    """

    def __init__(self, pool: Pool, means: Means, watch: FillWatch, use: OwnedFd) -> None:
        self.pool = pool
        self.watch = watch
        self._means = means
        self._use = use

    @property
    def ref(self) -> ThinPoolRef | None:
        """A thin pool as its store knows it; ``None`` for other kinds."""
        return pool_ref(self.pool.name, self.pool.uuid) if self.pool.kind is PoolKind.THIN else None

    @property
    def directory(self) -> str:
        """Where the images of a pool of the kind ``file`` go; empty for others."""
        return self._means.directory

    def close(self) -> None:
        """Let go of it. Closing twice is fine."""
        self._use.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_pool(
    registry: Registry, name: str, *, limits: Limits = LIMITS, notice: Callable[[str], None] = lambda _sentence: None
) -> OpenPool:
    """Activate a pool, if it is not active, and hold it.

    :param notice: gets warnings about its fill.
    :raise NotFound: there is none of this name. :raise FailedPrecondition: it is being made, repaired or taken away.
    :raise BadContent: what it is made of holds something else. :raise Unavailable: the host lacks a means.
    """
    registry.find(name)
    use = registry.use(name)
    try:
        pool = registry.find(name)
        means = means_of(registry, pool)
        with registry.activating(name):
            means.activate()
        return OpenPool(pool, means, FillWatch(name, means.fill, limits=limits, notice=notice), use)
    except BaseException:
        use.close()
        raise
