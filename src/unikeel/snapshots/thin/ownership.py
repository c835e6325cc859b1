"""A pool belongs to one record store: both name the same UUID, or nothing is done."""

from __future__ import annotations

from unikeel.errors import FailedPrecondition
from unikeel.snapshots.metadata import Metadata
from unikeel.snapshots.thin.devices import ThinDevices
from unikeel.snapshots.thin.errors import pool_errors
from unikeel.snapshots.thin.identity import read_identity
from unikeel.snapshots.thin.reference import IDENTITY_ID, ThinPoolRef

_LISTED = 20


def claim_pool(pool: ThinPoolRef, metadata: Metadata, devices: ThinDevices) -> None:
    """See that pool and records belong together; a new pool and records that know of none are tied for ever.

    :raise FailedPrecondition: they do not; nothing was changed.
    """
    written = read_identity(pool)
    if written != pool.uuid:
        raise FailedPrecondition(
            f"the pool {pool.name!r} says that it is {written or 'nobody'}, not {pool.uuid}",
            f"see `unikeel pool check {pool.name}`",
        )
    tied = metadata.mark()
    if not tied:
        tied = metadata.tie(lambda: _new_mark(pool, devices))
    if tied != pool.uuid:
        raise FailedPrecondition(
            f"the record store's pool {pool.name!r} is {tied}, and this one is {pool.uuid}",
            f"put back the pool or the record store that belong together, or see `unikeel pool check {pool.name}`",
        )


def _new_mark(pool: ThinPoolRef, devices: ThinDevices) -> str:
    """The UUID of a pool in which nothing is; otherwise its records are lost, and what is in there is not ours to take away."""
    with pool_errors(pool.name, f"look into the pool {pool.name!r}"):
        strangers = sorted(devices.numbers() - {IDENTITY_ID})
    if strangers:
        shown = ", ".join(map(str, strangers[:_LISTED])) + (" …" if len(strangers) > _LISTED else "")
        raise FailedPrecondition(
            f"the pool {pool.name!r} holds {len(strangers)} devices that the record store knows nothing of: {shown}",
            f"put back the record store; `unikeel pool check --repair {pool.name}` shows, and then does, what can be done without",
        )
    return pool.uuid
