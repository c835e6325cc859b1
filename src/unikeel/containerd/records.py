"""What containerd's services tell, as plain values: nothing here knows protobuf.

Times are nanoseconds since 1970, 0 where containerd gives none. Mappings are not to be changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from unikeel.values import NamedTuple

#: Kinds of snapshots.
VIEW: Final = "view"
ACTIVE: Final = "active"
COMMITTED: Final = "committed"

#: States of tasks.
UNKNOWN: Final = "unknown"
CREATED: Final = "created"
RUNNING: Final = "running"
STOPPED: Final = "stopped"
PAUSED: Final = "paused"
PAUSING: Final = "pausing"

_NONE: Mapping[str, str] = {}


class Mount(NamedTuple):
    """A mount as a snapshotter gives it, or as a container's root is made of."""

    type: str
    source: str
    target: str = ""
    options: tuple[str, ...] = ()


class Descriptor(NamedTuple):
    """What an image's name or a manifest points to."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = _NONE


class Packed(NamedTuple):
    """A value with the name of its type (``google.protobuf.Any``): a specification, options, an event's body."""

    type_url: str
    value: bytes


class Runtime(NamedTuple):
    """A container's runtime, and its options."""

    name: str
    options: Packed | None = None


class ContainerRecord(NamedTuple):
    """A container: what its tasks are made of."""

    id: str
    image: str = ""
    runtime: Runtime = Runtime("")
    spec: Packed | None = None
    snapshotter: str = ""
    snapshot_key: str = ""
    labels: Mapping[str, str] = _NONE
    extensions: Mapping[str, Packed] = {}
    sandbox: str = ""
    created_ns: int = 0
    updated_ns: int = 0


class ImageRecord(NamedTuple):
    """A name in the image store."""

    name: str
    target: Descriptor
    labels: Mapping[str, str] = _NONE
    created_ns: int = 0
    updated_ns: int = 0


class ContentInfo(NamedTuple):
    """A blob in the content store."""

    digest: str
    size: int
    labels: Mapping[str, str] = _NONE
    created_ns: int = 0
    updated_ns: int = 0


class SnapshotInfo(NamedTuple):
    """A snapshot; ``kind`` is :data:`VIEW`, :data:`ACTIVE` or :data:`COMMITTED`."""

    name: str
    parent: str
    kind: str
    created_ns: int
    updated_ns: int
    labels: Mapping[str, str] = _NONE


class Usage(NamedTuple):
    """What a snapshot takes up beyond its parent."""

    size: int
    inodes: int


class Lease(NamedTuple):
    """A lease: what was made under it stays while it lives."""

    id: str
    labels: Mapping[str, str] = _NONE
    created_ns: int = 0


class LeaseResource(NamedTuple):
    """Something that a lease keeps; ``kind`` is ``content``, ``ingests`` or ``snapshots/<snapshotter>``."""

    kind: str
    id: str


class TaskRecord(NamedTuple):
    """A process of a task; ``status`` is one of this module's states."""

    container: str
    id: str
    pid: int
    status: str
    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False
    exit_status: int = 0
    exited_ns: int = 0


class Exit(NamedTuple):
    """How a process ended."""

    status: int
    when_ns: int
    pid: int = 0


class Stdio(NamedTuple):
    """Where a task's input comes from and its output goes: paths of fifos, or URIs; empty is nowhere."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False


NOWHERE: Final = Stdio()


class Metric(NamedTuple):
    """A task's statistics; ``data`` holds ``io.containerd.cgroups.v1.Metrics`` or the same of version 2."""

    id: str
    when_ns: int
    data: Packed


class Event(NamedTuple):
    """Something that happened in containerd. :func:`unikeel.containerd.tasks.body` reads its body."""

    when_ns: int
    namespace: str
    topic: str
    body: Packed


class Namespace(NamedTuple):
    """A namespace."""

    name: str
    labels: Mapping[str, str] = _NONE


class ServerInfo(NamedTuple):
    """Which containerd answers; ``pid`` and ``pid_namespace`` are 0 with those that do not tell (1.6)."""

    uuid: str
    pid: int
    pid_namespace: int


class Plugin(NamedTuple):
    """A part of containerd; ``error`` says why it could not be loaded."""

    type: str
    id: str
    exports: Mapping[str, str]
    capabilities: tuple[str, ...]
    error: str


class Version(NamedTuple):
    """containerd's version."""

    version: str
    revision: str
