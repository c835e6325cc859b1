"""Views of committed snapshots in containerd, each under a lease of ours: made, renewed, removed, found again.

Every step may be repeated: what is there is taken as it is, what is not there need not be removed. The record that a view is about to be
there is the caller's matter (:mod:`.reach`), and so is that nobody has anything open in it when it is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from typing import Final

from unikeel.boot.reached import ReachedRow
from unikeel.containerd import leasing
from unikeel.containerd.records import Mount
from unikeel.containerd.services import Client
from unikeel.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, UnikeelError
from unikeel.records.failpoint import failpoint
from unikeel.values import NamedTuple

#: Seconds that one call may take: devmapper makes one device after the other.
CALL: Final = 60.0
_SNAPSHOTS: Final = "snapshots/"


class Stray(NamedTuple):
    """A view or a lease of ours that nobody claims: its namespace, its snapshotter (empty: a lease), its name."""

    namespace: str
    snapshotter: str
    name: str


class Views:
    """The views of one state root in one containerd. :param instance: the state root's name."""

    def __init__(self, client: Client, instance: str) -> None:
        self._client = client
        self._instance = instance

    def _in(self, row: ReachedRow) -> Client:
        return self._client.with_namespace(row.namespace)

    def _labels(self, row: ReachedRow) -> dict[str, str]:
        return leasing.labels(self._instance, row.parent, row.purpose, row.container)

    async def make(self, row: ReachedRow) -> tuple[Mount, ...]:
        """Have the lease, and the view under it; how that is mounted.

        Both are asked for at once. containerd enters a view together with the reference that its lease keeps of it, after its snapshotter has made it, and not without
        the lease: one that came first is taken back there (containerd.md 3.5). Mostly the lease is there long before, since the snapshotter takes its time.

        :raise NotFound: the parent is gone. Others as containerd answers them; then all that was made is gone again.
        """
        client = self._in(row)
        try:
            viewed, leased = await asyncio.gather(
                self._view(client, row), self._lease(client, row), return_exceptions=True
            )
            if isinstance(leased, BaseException):
                raise leased
            failpoint("reach.leased")
            if isinstance(viewed, NotFound):  # the parent, or the lease as yet
                viewed = await self._view(client, row)
            if isinstance(viewed, BaseException):
                raise viewed
        except BaseException:
            with contextlib.suppress(UnikeelError):
                await client.leases.delete(row.lease)
            raise
        failpoint("reach.viewed")
        return viewed

    async def _lease(self, client: Client, row: ReachedRow) -> None:
        labels = leasing.lease_labels(self._labels(row), time.time_ns())
        with contextlib.suppress(AlreadyExists):
            await client.leases.create(row.lease, labels)

    async def _view(self, client: Client, row: ReachedRow) -> tuple[Mount, ...]:
        snapshots = client.snapshots(row.snapshotter)
        try:
            return await snapshots.view(row.view, row.parent, self._labels(row), lease=row.lease, timeout=CALL)
        except AlreadyExists:
            mounts = await snapshots.mounts(row.view, timeout=CALL)
            await client.leases.add_resource(row.lease, leasing.resource_kind(row.snapshotter), row.view)
            return mounts

    async def mounts(self, row: ReachedRow) -> tuple[Mount, ...]:
        """How a view that was made is mounted. :raise NotFound: it is gone."""
        return await self._in(row).snapshots(row.snapshotter).mounts(row.view, timeout=CALL)

    async def remove(self, row: ReachedRow) -> None:
        """Remove the view, then its leases."""
        client = self._in(row)
        with contextlib.suppress(NotFound, InvalidArgument):  # InvalidArgument: the snapshotter is no longer loaded
            await client.snapshots(row.snapshotter).remove(row.view, timeout=CALL)
        failpoint("reach.removed")
        for lease in (row.lease, row.old_lease):
            if lease:
                with contextlib.suppress(NotFound):
                    await client.leases.delete(lease)
        failpoint("reach.unleased")

    async def take_over(self, row: ReachedRow) -> None:
        """Have ``lease`` keep the view in place of ``old_lease``. :raise NotFound: the view is gone."""
        client = self._in(row)
        await self._lease(client, row)
        failpoint("reach.renewing")
        await client.leases.add_resource(row.lease, leasing.resource_kind(row.snapshotter), row.view)
        with contextlib.suppress(NotFound):
            await client.leases.delete(row.old_lease)

    # -- what nobody claims -----------------------------------------------------------------------------------------

    async def strays(self, rows: Iterable[ReachedRow]) -> list[Stray]:
        """The views, then the leases, of this state root that none of the rows claims, in all namespaces. Of what is not labelled and named as
        ours, nothing."""
        claimed = list(rows)
        views = {(row.namespace, row.snapshotter, row.view) for row in claimed}
        leases = {(row.namespace, lease) for row in claimed for lease in (row.lease, row.old_lease)}
        snapshotters = await self._snapshotters()
        found: list[Stray] = []
        for namespace in await self._client.namespaces.list():
            client = self._client.with_namespace(namespace.name)
            ours = await client.leases.list([leasing.instance_filter(self._instance)])
            mine = [lease for lease in ours if self._is_mine(lease.id, lease.labels)]
            known = snapshotters | {row.snapshotter for row in claimed if row.namespace == namespace.name}
            for lease in mine:
                resources = await client.leases.resources(lease.id)
                known |= {one.kind.removeprefix(_SNAPSHOTS) for one in resources if one.kind.startswith(_SNAPSHOTS)}
            for snapshotter in sorted(known):
                found += await self._stray_views(client, namespace.name, snapshotter, views)
            found += [Stray(namespace.name, "", lease.id) for lease in mine if (namespace.name, lease.id) not in leases]
        return found

    async def _snapshotters(self) -> set[str]:
        plugins = await self._client.introspection.plugins(["type==io.containerd.snapshotter.v1"])
        return {plugin.id for plugin in plugins if not plugin.error}

    async def _stray_views(
        self, client: Client, namespace: str, snapshotter: str, claimed: set[tuple[str, str, str]]
    ) -> list[Stray]:
        try:
            snapshots = await client.snapshots(snapshotter).list([leasing.instance_filter(self._instance)])
        except (InvalidArgument, NotFound):
            return []  # no longer loaded
        names = [info.name for info in snapshots if self._is_mine(info.name, info.labels)]
        return [Stray(namespace, snapshotter, name) for name in names if (namespace, snapshotter, name) not in claimed]

    def _is_mine(self, name: str, labels: object) -> bool:
        own = isinstance(labels, dict) and labels.get(leasing.INSTANCE) == self._instance
        return own and name.startswith(leasing.prefix(self._instance))

    async def clear(self, stray: Stray) -> bool:
        """Remove one; whether it is gone."""
        client = self._client.with_namespace(stray.namespace)
        try:
            if stray.snapshotter:
                await client.snapshots(stray.snapshotter).remove(stray.name, timeout=CALL)
            else:
                await client.leases.delete(stray.name)
        except NotFound:
            return True
        except FailedPrecondition:
            return False  # something was made on it; not ours to decide
        return True

    async def stray_mounts(self, stray: Stray) -> tuple[Mount, ...]:
        """How a stray view is mounted; none if it is gone."""
        try:
            client = self._client.with_namespace(stray.namespace)
            return await client.snapshots(stray.snapshotter).mounts(stray.name, timeout=CALL)
        except NotFound:
            return ()
