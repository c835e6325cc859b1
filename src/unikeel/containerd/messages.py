"""From protobuf messages to :mod:`.records`, and back: what more than one service needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf.any_pb2 import Any
from google.protobuf.timestamp_pb2 import Timestamp

from unikeel.containerd.records import Descriptor, Mount, Packed
from unikeel.containerd.wire import types_pb2


def ns(time: Timestamp) -> int:
    """A time in nanoseconds; 0 if it is not set (containerd sends the year 1, where its shims have none)."""
    return max(0, time.seconds * 1_000_000_000 + time.nanos)


def timestamp(when_ns: int) -> Timestamp:
    """A time from nanoseconds."""
    return Timestamp(seconds=when_ns // 1_000_000_000, nanos=when_ns % 1_000_000_000)


def packed(value: Any) -> Packed | None:
    """A value with its type, if there is one."""
    return Packed(value.type_url, value.value) if value.type_url or value.value else None


def unpacked(value: Packed | None) -> Any | None:
    """The same as a message."""
    return Any(type_url=value.type_url, value=value.value) if value is not None else None


def mounts(found: Iterable[types_pb2.Mount]) -> tuple[Mount, ...]:
    """Mounts from messages."""
    return tuple(Mount(one.type, one.source, one.target, tuple(one.options)) for one in found)


def mount_messages(given: Sequence[Mount]) -> list[types_pb2.Mount]:
    """Mounts as messages."""
    return [types_pb2.Mount(type=one.type, source=one.source, target=one.target, options=one.options) for one in given]


def descriptor(found: types_pb2.Descriptor) -> Descriptor:
    """A descriptor from its message."""
    return Descriptor(found.media_type, found.digest, found.size, dict(found.annotations))


def descriptor_message(given: Descriptor) -> types_pb2.Descriptor:
    """A descriptor as a message."""
    return types_pb2.Descriptor(
        media_type=given.media_type, digest=given.digest, size=given.size, annotations=dict(given.annotations)
    )
