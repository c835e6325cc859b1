"""A pool's life: made, grown, taken away; and what a kill left of that, finished or undone.

The definition says what is going on before it begins: a pool that is ``creating`` when nobody holds the registry's lock was never finished, and goes; one
that is ``destroying`` goes on going. Growth is written down as the size wanted, which every activation brings about.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from unikeel.errors import FailedPrecondition, NotFound, UnikeelError
from unikeel.records.failpoint import failpoint
from unikeel.snapshots.pools.definition import Pool, PoolState
from unikeel.snapshots.pools.means import Means, means_of
from unikeel.snapshots.pools.registry import Registry

#: Forgets all records of a store, by its name in them.
Forget = Callable[[str], object]


def create(registry: Registry, pool: Pool) -> Pool:
    """Make a planned pool and activate it; as it then is. What fails leaves nothing.

    :raise AlreadyExists: the name is taken. :raise ResourceExhausted: no room. :raise Unavailable: the host lacks a means.
    """
    with registry.changing():
        registry.add(pool)
        failpoint("pools.create.recorded")
        means = means_of(registry, pool)
        try:
            means.make()
            means.activate()
            failpoint("pools.create.active")
            ready = pool._replace(state=PoolState.READY)
            registry.write(ready)
        except BaseException:
            with suppress(UnikeelError, OSError):
                _take_away(registry, pool.name, means)
            raise
    failpoint("pools.create.done")
    return ready


def grow(registry: Registry, pool: Pool) -> None:
    """Bring a pool to the size that it has here. Stores may use it meanwhile.

    :raise ResourceExhausted: no room; it stays as it was.
    """
    with registry.activating(pool.name):
        before = registry.find(pool.name)
        registry.write(pool)
        failpoint("pools.grow.recorded")
        try:
            means_of(registry, pool).activate()
        except BaseException:
            with suppress(UnikeelError, OSError):
                registry.write(before)
            raise
    failpoint("pools.grow.done")


def destroy(registry: Registry, name: str, check: Callable[[Pool], None], forget: Forget) -> None:
    """Take a pool away with everything in it.

    :param check: may refuse; nobody uses the pool while it looks. :raise FailedPrecondition: it is in use; nothing was changed.
    """
    with registry.changing():
        pool = registry.read(name)
        with registry.alone(name), registry.activating(name):
            check(pool)
            means = means_of(registry, pool)
            means.deactivate()
            registry.write(pool._replace(state=PoolState.DESTROYING))
            failpoint("pools.destroy.recorded")
            forget(pool.store)
            failpoint("pools.destroy.forgotten")
            _take_away(registry, name, means)
    failpoint("pools.destroy.done")


def _take_away(registry: Registry, name: str, means: Means) -> None:
    means.deactivate()
    failpoint("pools.undo.inactive")
    means.wipe()
    failpoint("pools.undo.wiped")
    registry.forget(name)


def unsettled(registry: Registry) -> list[str]:
    """Pools that are being made or taken away, by a living process or not any more."""
    return [name for name in registry.names() if _state(registry, name) is not PoolState.READY]


def _state(registry: Registry, name: str) -> PoolState | None:
    """``None``: without a definition. A damaged one counts as ready: it is for people to mend."""
    try:
        return registry.read(name).state
    except NotFound:
        return None
    except UnikeelError:
        return PoolState.READY


def settle(registry: Registry, forget: Forget) -> list[str]:
    """Undo what was never finished and finish what was to go, of processes that are dead; a sentence for each.

    :raise FailedPrecondition: a leftover is in use.
    """
    if not unsettled(registry):
        return []
    with registry.changing():
        return [_settle(registry, name, forget) for name in unsettled(registry)]


def _settle(registry: Registry, name: str, forget: Forget) -> str:
    try:
        pool = registry.read(name)
    except NotFound:
        registry.forget(name)
        return f"cleared the directory of a pool {name} that was never made"
    if pool.state is PoolState.DESTROYING:
        forget(pool.store)
    _take_away(registry, name, means_of(registry, pool))
    what = "was being taken away" if pool.state is PoolState.DESTROYING else "had not been made to the end"
    return f"took away pool {name}, which {what}"


def reactivate(registry: Registry, notice: Callable[[str], None]) -> None:
    """Activate every pool, as at a start of the host; what cannot be is said, and does not keep the others from it."""
    for name in registry.names():
        try:
            pool = registry.find(name)
            with registry.activating(name):
                means_of(registry, pool).activate()
        except (UnikeelError, OSError) as error:
            notice(f"pool {name} cannot be activated: {error}")


def deactivate(registry: Registry, name: str) -> None:
    """Take a pool down without changing anything in it. :raise FailedPrecondition: it is in use."""
    pool = registry.find(name)
    with registry.alone(name), registry.activating(name):
        means_of(registry, pool).deactivate()


def check_empty(pool: Pool, names: list[str]) -> None:
    """:raise FailedPrecondition: there are snapshots in the pool."""
    if names:
        some = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise FailedPrecondition(
            f"pool {pool.name!r} holds {len(names)} snapshots ({some})", "--force takes them away with it"
        )
