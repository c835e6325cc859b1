"""Committed snapshots of containerd, reached by views: what the boot package asks, in worker threads, answered through containerd's client.

A row is written before containerd is asked for a view, and goes after all is gone there. So whatever is interrupted, by our death or containerd's, has a row, and is used
or removed by it. The row is flushed to the disk with what is recorded next, so the host's end may leave a view without one; it carries our labels, and is removed by
:meth:`ContainerdReach.sweep`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from unikeel.boot.contract import FILL, OWN, Freed, HostMount, Parent, Reached, nothing_asked
from unikeel.boot.reached import ReachedRow, ReachedRows
from unikeel.boot.sources import is_mounted
from unikeel.containerd import leasing
from unikeel.containerd.bridge import Bridge
from unikeel.containerd.identify import Identifier, address_of
from unikeel.containerd.records import Descriptor, Mount
from unikeel.containerd.services import Client
from unikeel.containerd.views import CALL, Views
from unikeel.errors import NotFound, Unavailable, UnikeelError
from unikeel.records.database import Database
from unikeel.records.failpoint import failpoint

#: Seconds for a few calls in a row.
_CALLS: Final = 2 * CALL
#: How deep a chain of snapshots may be.
_DEEPEST: Final = 512
_BLOB_LIMIT: Final = 1 << 30


class _Containerd:
    """One containerd: its client and what knows it."""

    def __init__(self, identifier: Identifier, client: Client, instance: str) -> None:
        self.identifier = identifier
        self.client = client
        self.views = Views(client, instance)


class ContainerdReach:
    """A :class:`~unikeel.boot.contract.Reach` and :class:`~unikeel.boot.contract.Layers` for all containerds of a daemon.

    The boot package's tables must be there (:class:`~unikeel.boot.ledger.Ledger`).

    :param scratch: a directory for files without names.
    """

    def __init__(self, database: Database, bridge: Bridge, scratch: str) -> None:
        self._rows = ReachedRows(database)
        self._database = database
        self._bridge = bridge
        self._scratch = scratch
        self._turn = threading.Lock()
        self._containerds: dict[str, _Containerd] = {}
        self._locks: dict[tuple[str, str, str], threading.Lock] = {}
        #: What this process reads just now.
        self._filling: set[tuple[str, str, str]] = set()
        #: The views and leases that are being made just now; the lease may have no row yet.
        self._making: set[str] = set()
        self._giver = ThreadPoolExecutor(2, thread_name_prefix="giving back")

    # -- which containerds ------------------------------------------------------------------------------------------

    @property
    def instance(self) -> str:
        """The name of this state root in labels and keys."""
        return self._rows.instance

    def attach(self, identifier: Identifier, client: Client) -> None:
        """Serve the parents of a containerd from now on; again after it was replaced by another one at its address."""
        with self._turn:
            self._containerds[identifier.consumer] = _Containerd(identifier, client, self.instance)

    def detach(self, consumer: str) -> None:
        """Serve them no longer."""
        with self._turn:
            self._containerds.pop(consumer, None)

    @property
    def records(self) -> bool:
        """A row for each view."""
        return True

    def serves(self, consumer: str) -> bool:
        """Those attached, and those that were at their addresses before."""
        return consumer in self._containerds or address_of(consumer) in self._addresses()

    def _addresses(self) -> set[str]:
        return {address_of(consumer) for consumer in list(self._containerds)} - {""}

    def _containerd(self, consumer: str) -> _Containerd:
        found = self._containerds.get(consumer)
        if found is None:
            raise Unavailable(f"{consumer} is not connected", "is containerd running?")
        return found

    # -- reaching ---------------------------------------------------------------------------------------------------

    def reach(
        self, parent: Parent, purpose: str, container: str = "", asked: Callable[[], None] = nothing_asked
    ) -> Reached:
        """See :class:`~unikeel.boot.contract.Reach`: a view, made or found again."""
        containerd = self._containerd(parent.consumer)
        identity = (parent.key, purpose, container)
        with self._one_at_a_time(identity):
            if purpose == FILL:
                self._filling.add(identity)
            try:
                row, mounts = self._view(containerd, parent, purpose, container, asked)
            except BaseException:
                self._filling.discard(identity)
                raise
        back = None if purpose != FILL else lambda: self._filled(identity)
        return Reached(tuple(HostMount(one.type, one.source, one.options) for one in mounts), row.view, back)

    def _view(
        self, containerd: _Containerd, parent: Parent, purpose: str, container: str, asked: Callable[[], None]
    ) -> tuple[ReachedRow, tuple[Mount, ...]]:
        old = self._rows.get(parent.key, purpose, container)
        if old is not None and not old.giving:
            with contextlib.suppress(NotFound):
                return old, self._bridge.call(containerd.views.mounts(old), _CALLS)
        view = leasing.view_key(self.instance, parent.key, purpose, container)
        number = leasing.generation_of(old.lease) + 1 if old is not None else 0
        row = ReachedRow(
            parent_key=parent.key,
            purpose=purpose,
            container=container,
            consumer=parent.consumer,
            namespace=parent.namespace,
            snapshotter=parent.snapshotter,
            parent=parent.name,
            view=view,
            lease=leasing.lease_id(view, number),
            old_lease=old.lease if old is not None else "",
            leased_ns=time.time_ns(),
        )
        self._making |= {row.view, row.lease}
        try:
            self._rows.put(row, flush=False)
            failpoint("reach.recorded")
            made = self._bridge.start(containerd.views.make(row))
            asked()
            mounts = self._bridge.wait(made, _CALLS)
        except BaseException:
            with contextlib.suppress(UnikeelError):
                self._remove(row)
            raise
        finally:
            self._making -= {row.view, row.lease}
        if row.old_lease:
            self._drop_old(containerd, row)
        return row, mounts

    @contextlib.contextmanager
    def _one_at_a_time(self, identity: tuple[str, str, str]) -> Iterator[None]:
        with self._turn:
            lock = self._locks.setdefault(identity, threading.Lock())
        with lock:
            yield

    # -- giving back ------------------------------------------------------------------------------------------------

    def _filled(self, identity: tuple[str, str, str]) -> None:
        """It was read: whoever waits for the files does not wait for the view to go."""
        if identity in self._filling:
            self._filling.discard(identity)
            with contextlib.suppress(RuntimeError):  # ending: the sweep finds it
                self._giver.submit(self._give_back_quietly, identity)

    def _give_back_quietly(self, identity: tuple[str, str, str]) -> None:
        with contextlib.suppress(UnikeelError):
            self.give_back(*identity)

    def give_back(self, parent_key: str, purpose: str, container: str = "") -> None:
        """See :class:`~unikeel.boot.contract.Reach`. What cannot go now is tried again by :meth:`tend`."""
        identity = (parent_key, purpose, container)
        with self._one_at_a_time(identity):
            row = self._rows.get(*identity)
            if row is None or identity in self._filling:
                return
            try:
                self._remove(row)
            except UnikeelError:
                self._rows.put(row._replace(giving=True))
                if purpose != OWN:
                    raise
                return
        with self._turn:
            lock = self._locks.get(identity)
            if lock is not None and not lock.locked():
                del self._locks[identity]

    def _remove(self, row: ReachedRow) -> None:
        """Remove a view and its lease, then its row.

        :raise Unavailable: containerd is away, or something is open in it.
        """
        if row.consumer not in self._containerds and address_of(row.consumer) in self._addresses():
            self._rows.remove(row)  # of a containerd whose state is gone
            return
        containerd = self._containerd(row.consumer)
        with contextlib.suppress(NotFound):
            mounts = self._bridge.call(containerd.views.mounts(row), _CALLS)
            self._check_unused(row.view, [mount for mount in mounts if not self._is_shared(row, mount)])
        self._bridge.call(containerd.views.remove(row), _CALLS)
        self._rows.remove(row)

    def _check_unused(self, view: str, mounts: Sequence[Mount]) -> None:
        """devmapper removes a device by force, whoever has a file of its file system open."""
        for mount in mounts:
            if mount.source.startswith("/dev/") and is_mounted(mount.source):
                raise Unavailable(f"the view {view} is in use: files on {mount.source} are open")

    def _is_shared(self, row: ReachedRow, mount: Mount) -> bool:
        """Whether a view is on a device that another view of ours has, too. A snapshotter that does so (our own, thin) does not take it away with one of them."""
        if not is_mounted(mount.source):
            return False  # then it does not matter
        containerd = self._containerd(row.consumer)
        for other in self._rows.all(row.consumer):
            alike = (other.namespace, other.snapshotter, other.parent) == (row.namespace, row.snapshotter, row.parent)
            if alike and other.view != row.view and not other.giving:
                with contextlib.suppress(NotFound):
                    found = self._bridge.call(containerd.views.mounts(other), _CALLS)
                    if mount.source in [one.source for one in found]:
                        return True
        return False

    # -- from time to time ------------------------------------------------------------------------------------------

    def tend(self) -> None:
        """See :class:`~unikeel.boot.contract.Reach`. Errors wait for the next time."""
        for row in self._rows.all():
            if not self.serves(row.consumer):
                continue
            with contextlib.suppress(UnikeelError):
                if row.giving or (row.purpose == FILL and row.identity not in self._filling):
                    self.give_back(*row.identity)
                elif row.old_lease or leasing.is_half_over(row.leased_ns, time.time_ns()):
                    self._renew(row.identity)

    def _renew(self, identity: tuple[str, str, str]) -> None:
        with self._one_at_a_time(identity):
            row = self._rows.get(*identity)
            if row is None or row.giving or row.consumer not in self._containerds:
                return
            if not row.old_lease:
                lease = leasing.lease_id(row.view, leasing.generation_of(row.lease) + 1)
                row = row._replace(lease=lease, old_lease=row.lease, leased_ns=time.time_ns())
                self._rows.put(row)
                failpoint("reach.renewal-recorded")
            self._drop_old(self._containerd(row.consumer), row)

    def _drop_old(self, containerd: _Containerd, row: ReachedRow) -> None:
        with contextlib.suppress(NotFound):  # the view is gone: whoever wants it next makes it anew
            self._bridge.call(containerd.views.take_over(row), _CALLS)
        self._rows.put(row._replace(old_lease=""))

    def sweep(self, consumer: str) -> list[Freed]:
        """Remove from a containerd whatever of this state root no record claims, and the records of what nobody needs any more.

        To be called when the daemon starts, after :meth:`BootFiles.reconcile <unikeel.boot.service.BootFiles.reconcile>` and before it serves.

        :raise UnikeelError: containerd cannot be asked.
        """
        freed = [Freed(row.purpose, row.view, 0) for row in self._unneeded(consumer) if self._removed(row)]
        containerd = self._containerd(consumer)
        rows = self._rows.all(consumer)
        for stray in self._bridge.call(containerd.views.strays(rows), _CALLS):
            if stray.name in self._making or self._is_claimed(stray.name, consumer):
                continue  # it came meanwhile
            with contextlib.suppress(UnikeelError):
                if stray.snapshotter:
                    self._check_unused(stray.name, self._bridge.call(containerd.views.stray_mounts(stray), _CALLS))
                if self._bridge.call(containerd.views.clear(stray), _CALLS):
                    freed.append(Freed("view" if stray.snapshotter else "lease", stray.name, 0))
        return freed

    def _is_claimed(self, name: str, consumer: str) -> bool:
        return any(name in (row.view, row.lease, row.old_lease) for row in self._rows.all(consumer))

    def _unneeded(self, consumer: str) -> list[ReachedRow]:
        """Rows of fills that nobody does, of views whose container has none, and of an earlier state of the containerd at the same address."""
        own = {
            (str(key), OWN, str(container))
            for key, container in self._database.query("SELECT key, container FROM boot_views")
        }
        found = []
        for row in self._rows.all():
            if row.consumer == consumer:
                unneeded = row.giving or (row.purpose == FILL and row.identity not in self._filling)
                if unneeded or (row.purpose == OWN and row.identity not in own):
                    found.append(row)
            elif address_of(row.consumer) == address_of(consumer) and row.consumer not in self._containerds:
                found.append(row)
        return found

    def _removed(self, row: ReachedRow) -> bool:
        with self._one_at_a_time(row.identity), contextlib.suppress(UnikeelError):
            self._remove(row)
            return True
        return False

    def counts(self) -> tuple[int, int]:
        """How many views there are, and leases, for the metrics."""
        rows = self._rows.all()
        return len(rows), sum(bool(row.lease) + bool(row.old_lease) for row in rows)

    # -- layers -----------------------------------------------------------------------------------------------------

    def chain(self, parent: Parent) -> tuple[Parent, ...]:
        """See :class:`~unikeel.boot.contract.Layers`."""
        return self._bridge.call(self._chain(parent), _CALLS)

    def is_gone(self, parent: Parent) -> bool:
        """Whether containerd says that a parent is no more, or was made anew; false where it cannot be asked."""
        try:
            return self.chain(parent)[-1].created_ns != parent.created_ns
        except NotFound:
            return True
        except UnikeelError:
            return False

    async def _chain(self, parent: Parent) -> tuple[Parent, ...]:
        snapshots = (
            self._containerd(parent.consumer).client.with_namespace(parent.namespace).snapshots(parent.snapshotter)
        )
        found: list[Parent] = []
        name = parent.name
        while name and len(found) < _DEEPEST:
            info = await snapshots.stat(name)
            found.append(parent._replace(name=name, created_ns=info.created_ns))
            name = info.parent
        return tuple(reversed(found))

    def final_layer(self, parent: Parent, paths: Sequence[str]) -> int | None:
        """See :class:`~unikeel.boot.contract.Layers`. Only for the parent of a container that was identified, if its image's layers are in the content store still."""
        from unikeel.containerd.layers import Origins

        if not parent.trusted:
            return None
        containerd = self._containerd(parent.consumer)
        known = containerd.identifier.layers(parent.namespace, parent.name, parent.created_ns)
        client, layers = containerd.client.with_namespace(parent.namespace), self._bridge.call(known, _CALLS)
        if not layers:
            return None

        def fetch(blob: Descriptor, fd: int) -> None:
            self._bridge.call(client.content.copy(blob, fd, _BLOB_LIMIT), _CALLS)

        return Origins(layers, fetch, self._scratch).final_layer(paths)

    def close(self) -> None:
        """Wait until what was read is given back."""
        self._giver.shutdown(wait=True)
