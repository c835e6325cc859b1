"""Between the store's values and the messages of the wire."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from unikeel.containerd.messages import timestamp
from unikeel.containerd.wire import snapshots_pb2, types_pb2
from unikeel.lean import Final
from unikeel.snapshots.contract import Info, Kind, Mount

#: Snapshots in one message of List, as containerd has it.
BATCH: Final = 100
_KINDS: Final = {
    Kind.VIEW: snapshots_pb2.VIEW,
    Kind.ACTIVE: snapshots_pb2.ACTIVE,
    Kind.COMMITTED: snapshots_pb2.COMMITTED,
}


def mount_messages(mounts: Iterable[Mount]) -> list[types_pb2.Mount]:
    """Mounts as messages."""
    return [types_pb2.Mount(type=mount.type, source=mount.source, options=mount.options) for mount in mounts]


def info_message(info: Info) -> snapshots_pb2.Info:
    """What Stat tells, as a message."""
    return snapshots_pb2.Info(
        name=info.name,
        parent=info.parent,
        kind=_KINDS[info.kind],
        created_at=timestamp(info.created_ns),
        updated_at=timestamp(info.updated_ns),
        labels=dict(info.labels),
    )


def batches(infos: Iterator[Info]) -> Iterator[list[Info]]:
    """The same in lists of at most :data:`BATCH`; none is empty."""
    batch: list[Info] = []
    for info in infos:
        batch.append(info)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
