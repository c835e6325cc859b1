"""Looking at a pool and at its records, for :mod:`.checking` to judge; nothing is changed but that the pool is activated."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from unikeel.errors import UnikeelError
from unikeel.records.owners import boot_id
from unikeel.snapshots.catalog import Catalog
from unikeel.snapshots.contract import How
from unikeel.snapshots.pools.checking import Evidence, Recorded
from unikeel.snapshots.pools.contents import contents_of
from unikeel.snapshots.pools.definition import Pool, PoolKind
from unikeel.snapshots.pools.means import means_of
from unikeel.snapshots.pools.registry import Registry
from unikeel.snapshots.pools.thin_pool import PoolRefused, ThinPool

#: Opens the record store's catalog. Raises what is wrong with it.
Open = Callable[[], Catalog]
IsDead = Callable[[str], bool]


def evidence(registry: Registry, pool: Pool, catalog: Open, is_dead: IsDead) -> Evidence:
    """Look at both. Records are read after the content: what is made meanwhile is recorded first, so that it is not taken for nobody's."""
    with registry.activating(pool.name):
        seen = _of_pool(registry, pool)
    if seen.unreadable_pool:
        return seen
    try:
        found = catalog()
        records = _records(found, pool.store, is_dead)
        return seen._replace(
            record_mark=found.mark(pool.store), records=records, trash=frozenset(found.trash(pool.store))
        )
    except UnikeelError as error:
        return seen._replace(unreadable_records=str(error))


def _of_pool(registry: Registry, pool: Pool) -> Evidence:
    try:
        if pool.kind is PoolKind.THIN and ThinPool(registry, pool).needs_check():
            return Evidence(needs_check=True)
        means = means_of(registry, pool)
        means.activate()
        contents = contents_of(registry, pool)
        try:
            return Evidence(pool_mark=contents.mark(), content=contents.sizes(), trouble=means.fill().trouble)
        finally:
            contents.close()
    except PoolRefused:
        return Evidence(needs_check=True)
    except (UnikeelError, OSError) as error:
        return Evidence(unreadable_pool=f"the pool cannot be looked at: {error}")


def _records(catalog: Catalog, store: str, is_dead: IsDead) -> Mapping[int, Recorded]:
    found = {}
    for entry in catalog.entries(store=store, own=True):
        content = entry.how is not How.PARENT
        dead = not entry.ready and is_dead(entry.owner)
        again = entry.unflushed not in ("", boot_id())
        found[entry.id] = Recorded(entry.info.name, entry.ready, content, dead, entry.parent_id, again)
    return found
