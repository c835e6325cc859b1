"""Snapshots of one snapshotter, and applying layers to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Unpack

from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask

from unikeel.containerd import messages
from unikeel.containerd.calling import Caller, Options, with_timeout
from unikeel.containerd.records import ACTIVE, COMMITTED, VIEW, Descriptor, Mount, SnapshotInfo, Usage
from unikeel.containerd.wire import diff_pb2, snapshots_pb2

_SERVICE: Final = "containerd.services.snapshots.v1.Snapshots"
_DIFF: Final = "containerd.services.diff.v1.Diff"
_KINDS: Final[Mapping[int, str]] = {
    snapshots_pb2.VIEW: VIEW,
    snapshots_pb2.ACTIVE: ACTIVE,
    snapshots_pb2.COMMITTED: COMMITTED,
}
#: Applying a layer, or committing one, takes as long as its size wants.
_LONG: Final = 600.0
#: Making or removing a snapshot: devmapper makes one device after the other, blockfile copies a file, on a host that has other things to do.
_DEVICE: Final = 60.0


class Snapshots:
    """The snapshots of the snapshotter ``name``. An unknown snapshotter is ``InvalidArgument`` of every call."""

    def __init__(self, caller: Caller, name: str) -> None:
        self.name = name
        self._caller = caller

    async def stat(self, key: str, **options: Unpack[Options]) -> SnapshotInfo:
        """What a snapshot is. :raise NotFound: there is none of this name."""
        request = snapshots_pb2.StatSnapshotRequest(snapshotter=self.name, key=key)
        answer = await self._caller.unary(_SERVICE, "Stat", request, snapshots_pb2.StatSnapshotResponse, options)
        return _info(answer.info)

    async def view(
        self, key: str, parent: str, labels: Mapping[str, str] | None = None, **options: Unpack[Options]
    ) -> tuple[Mount, ...]:
        """Make a read-only view of a committed snapshot; returns how it is mounted.

        :raise AlreadyExists: the key is taken. :raise NotFound: no such parent.
        """
        request = snapshots_pb2.ViewSnapshotRequest(snapshotter=self.name, key=key, parent=parent, labels=labels)
        answer = await self._caller.unary(
            _SERVICE, "View", request, snapshots_pb2.ViewSnapshotResponse, with_timeout(options, _DEVICE)
        )
        return messages.mounts(answer.mounts)

    async def prepare(
        self, key: str, parent: str = "", labels: Mapping[str, str] | None = None, **options: Unpack[Options]
    ) -> tuple[Mount, ...]:
        """Make a writable snapshot on a committed one, or an empty one; returns how it is mounted. Raises as :meth:`view`."""
        request = snapshots_pb2.PrepareSnapshotRequest(snapshotter=self.name, key=key, parent=parent, labels=labels)
        answer = await self._caller.unary(
            _SERVICE, "Prepare", request, snapshots_pb2.PrepareSnapshotResponse, with_timeout(options, _DEVICE)
        )
        return messages.mounts(answer.mounts)

    async def mounts(self, key: str, **options: Unpack[Options]) -> tuple[Mount, ...]:
        """How a view or a writable snapshot is mounted. :raise FailedPrecondition: it is committed."""
        request = snapshots_pb2.MountsRequest(snapshotter=self.name, key=key)
        answer = await self._caller.unary(_SERVICE, "Mounts", request, snapshots_pb2.MountsResponse, options)
        return messages.mounts(answer.mounts)

    async def commit(
        self,
        name: str,
        key: str,
        labels: Mapping[str, str] | None = None,
        *,
        parent: str = "",
        **options: Unpack[Options],
    ) -> None:
        """Make a writable snapshot a committed one, with these labels in place of its own.

        :param parent: what it was prepared on, to be checked (containerd 2.2 and later; others do not look at it).
        :raise AlreadyExists: the name is taken. :raise InvalidArgument: it was prepared on something else.
        """
        request = snapshots_pb2.CommitSnapshotRequest(
            snapshotter=self.name, name=name, key=key, labels=labels, parent=parent
        )
        await self._caller.unary(_SERVICE, "Commit", request, Empty, with_timeout(options, _LONG))

    async def remove(self, key: str, **options: Unpack[Options]) -> None:
        """Remove a snapshot. :raise FailedPrecondition: others are built on it. :raise NotFound: it is not there."""
        request = snapshots_pb2.RemoveSnapshotRequest(snapshotter=self.name, key=key)
        await self._caller.unary(_SERVICE, "Remove", request, Empty, with_timeout(options, _DEVICE))

    async def update(
        self, key: str, labels: Mapping[str, str], fieldpaths: Sequence[str] = (), **options: Unpack[Options]
    ) -> SnapshotInfo:
        """Change labels: all of them (no field paths, or ``labels``), or those that ``labels.KEY`` name.

        :raise NotFound: there is no such snapshot. :raise InvalidArgument: another field path.
        """
        request = snapshots_pb2.UpdateSnapshotRequest(
            snapshotter=self.name,
            info=snapshots_pb2.Info(name=key, labels=labels),
            update_mask=FieldMask(paths=fieldpaths) if fieldpaths else None,
        )
        answer = await self._caller.unary(_SERVICE, "Update", request, snapshots_pb2.UpdateSnapshotResponse, options)
        return _info(answer.info)

    async def label(self, key: str, labels: Mapping[str, str], **options: Unpack[Options]) -> SnapshotInfo:
        """Set labels of a snapshot; an empty value removes one; others stay."""
        return await self.update(key, labels, [f"labels.{name}" for name in labels], **options)

    async def list(self, filters: Sequence[str] = (), **options: Unpack[Options]) -> list[SnapshotInfo]:
        """The snapshots that one of the filters fits, all without filters."""
        request = snapshots_pb2.ListSnapshotsRequest(snapshotter=self.name, filters=filters)
        answers = self._caller.stream(_SERVICE, "List", request, snapshots_pb2.ListSnapshotsResponse, options)
        return [_info(info) async for answer in answers for info in answer.info]

    async def usage(self, key: str, **options: Unpack[Options]) -> Usage:
        """What a snapshot takes up beyond its parent."""
        request = snapshots_pb2.UsageRequest(snapshotter=self.name, key=key)
        answer = await self._caller.unary(_SERVICE, "Usage", request, snapshots_pb2.UsageResponse, options)
        return Usage(answer.size, answer.inodes)

    async def cleanup(self, **options: Unpack[Options]) -> None:
        """Have the space of removed snapshots given back."""
        request = snapshots_pb2.CleanupRequest(snapshotter=self.name)
        await self._caller.unary(_SERVICE, "Cleanup", request, Empty, with_timeout(options, _LONG))


class Diff:
    """Applying layers."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def apply(self, layer: Descriptor, mounts: Sequence[Mount], **options: Unpack[Options]) -> Descriptor:
        """Unpack a layer of the content store into mounts; returns what it was uncompressed (the digest is the diff id)."""
        request = diff_pb2.ApplyRequest(diff=messages.descriptor_message(layer), mounts=messages.mount_messages(mounts))
        answer = await self._caller.unary(_DIFF, "Apply", request, diff_pb2.ApplyResponse, with_timeout(options, _LONG))
        return messages.descriptor(answer.applied)


def _info(info: snapshots_pb2.Info) -> SnapshotInfo:
    return SnapshotInfo(
        info.name,
        info.parent,
        _KINDS.get(info.kind, "unknown"),
        messages.ns(info.created_at),
        messages.ns(info.updated_at),
        dict(info.labels),
    )
