"""The classic way from an image to an exit code, against containerd, in asyncio (docs/containerd_example.py runs it)::

    async with Containerd() as containerd:
        image = await import_image(containerd, "hello.tar")
        await unpack(containerd, image, "devmapper")
        async with await new_container(containerd, image, "hello-1", snapshotter="devmapper") as container:
            async with Fifos() as fifos, await container.task(fifos) as task:
                await task.start()
                print(await fifos.stdout.read(), await task.wait())

Leaving a block gives back what was made in it: the task is killed and deleted, the container and its snapshot removed.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, Self

from unikeel.containerd import oci
from unikeel.containerd.bringing import Described, describe, full_name, import_image, leased, pull, unpack
from unikeel.containerd.client import Containerd
from unikeel.containerd.records import (
    NOWHERE,
    STOPPED,
    ContainerRecord,
    Exit,
    ImageRecord,
    Packed,
    Runtime,
    Stdio,
    TaskRecord,
)
from unikeel.containerd.stdio import Fifos
from unikeel.errors import NotFound

__all__ = [
    "RUNTIME",
    "Container",
    "Described",
    "Fifos",
    "Task",
    "describe",
    "full_name",
    "import_image",
    "leased",
    "new_container",
    "pull",
    "remove_container",
    "unpack",
]

#: Our runtime's name.
RUNTIME: Final = "io.containerd.unikeel.v2"
#: containerd's limit for a label and its value.
_LABEL: Final = 4096
#: Seconds that a killed task gets to be gone.
_GONE: Final = 30.0


async def new_container(
    containerd: Containerd,
    image: ImageRecord | Described | str,
    name: str,
    *,
    snapshotter: str,
    runtime: str = RUNTIME,
    runtime_options: Packed | None = None,
    process: oci.Process = oci.Process(),  # noqa: B008 - a value
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    mounts: Sequence[Mapping[str, object]] = (),
    host_network: bool = False,
) -> Container:
    """Make a container with a writable snapshot of an image; what is missing of the image is unpacked first.

    :param name: the container's id, and its snapshot's key. :param process: what differs from the image's configuration.
    :param annotations: of the specification. :param labels: of the container, beside those of the image's configuration.
    :param mounts: further mounts, as the OCI specification has them.
    :raise AlreadyExists: the id is taken. :raise InvalidArgument: no such snapshotter, or the image names no program.
    """
    found = image if isinstance(image, Described) else await describe(containerd, image)
    spec = oci.spec(
        containerd.namespace,
        name,
        oci.process(found.image, process),
        annotations=annotations,
        mounts=mounts,
        host_network=host_network,
    )
    snapshots = containerd.snapshots(snapshotter)
    async with leased(containerd, "create") as lease:
        parent = await unpack(containerd, found, snapshotter)
        await snapshots.prepare(name, parent, lease=lease)
        record = ContainerRecord(
            id=name,
            image=found.record.name,
            runtime=Runtime(runtime, runtime_options),
            spec=oci.packed(spec),
            snapshotter=snapshotter,
            snapshot_key=name,
            labels={**_fitting(found.image.labels), **(labels or {})},
        )
        try:
            record = await containerd.containers.create(record, lease=lease)
        except BaseException:
            with suppress(NotFound):
                await snapshots.remove(name)
            raise
    return Container(containerd, record)


async def remove_container(containerd: Containerd, name: str) -> None:
    """Remove a container with its task, which is killed, and its snapshot; what is gone already is passed over."""
    try:
        record = await containerd.containers.get(name)
    except NotFound:
        return
    await Container(containerd, record).remove()


class Container:
    """A container; leaving it as a context manager removes it. Made by :func:`new_container`, or of a record."""

    def __init__(self, containerd: Containerd, record: ContainerRecord) -> None:
        self.record = record
        self._containerd = containerd

    @property
    def id(self) -> str:
        """Its id."""
        return self.record.id

    async def task(
        self, stdio: Fifos | Stdio = NOWHERE, *, terminal: bool = False, options: Packed | None = None
    ) -> Task:
        """Make its task, not started.

        :param stdio: where its input comes from and its output goes. :param terminal: whether it has a terminal, if
            ``stdio`` does not say. :param options: of the task (``containerd.runc.v1.Options`` is all that containerd takes).
        """
        where = stdio.stdio if isinstance(stdio, Fifos) else stdio
        where = where._replace(terminal=where.terminal or terminal)
        snapshots = self._containerd.snapshots(self.record.snapshotter)
        mounts = await snapshots.mounts(self.record.snapshot_key) if self.record.snapshot_key else ()
        pid = await self._containerd.tasks.create(self.id, mounts, where, options)
        if isinstance(stdio, Fifos):
            stdio.opened()
        return Task(self._containerd, self.id, pid)

    async def remove(self) -> None:
        """Remove it with its task, which is killed, and its snapshot. May be called again."""
        await Task(self._containerd, self.id, 0).remove()
        with suppress(NotFound):
            await self._containerd.containers.delete(self.id)
        if self.record.snapshot_key:
            with suppress(NotFound):
                await self._containerd.snapshots(self.record.snapshotter).remove(self.record.snapshot_key)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.remove()


class Task:
    """A container's task; leaving it as a context manager kills and deletes it. Made by :meth:`Container.task`."""

    def __init__(self, containerd: Containerd, container: str, pid: int) -> None:
        self.container = container
        self.pid = pid
        self._containerd = containerd
        self._waiting: asyncio.Task[Exit] | None = None

    async def start(self) -> int:
        """Start it; returns its pid. From before the start, its end is waited for, so that none is missed."""
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._containerd.tasks.wait(self.container))
            await asyncio.sleep(0)
        self.pid = await self._containerd.tasks.start(self.container)
        return self.pid

    async def wait(self) -> Exit:
        """Wait for its end."""
        if self._waiting is None:
            return await self._containerd.tasks.wait(self.container)
        return await asyncio.shield(self._waiting)

    async def state(self) -> TaskRecord:
        """What it does now."""
        return await self._containerd.tasks.get(self.container)

    async def kill(self, number: int = signal.SIGTERM) -> None:
        """Send it a signal. :raise NotFound: it has ended."""
        await self._containerd.tasks.kill(self.container, number)

    async def close_input(self) -> None:
        """End its input, for a shim that holds it open itself."""
        await self._containerd.tasks.close_io(self.container)

    async def delete(self) -> Exit:
        """Delete it. :raise FailedPrecondition: it still runs."""
        found = await self._containerd.tasks.delete(self.container)
        await self._forget()
        return found

    async def remove(self) -> None:
        """Kill and delete it, if it is there. May be called again."""
        tasks = self._containerd.tasks
        try:
            with suppress(NotFound):
                if (
                    await tasks.get(self.container)
                ).status != STOPPED:  # not every shim says so in its refusal to delete
                    with suppress(NotFound):
                        await tasks.kill(self.container, signal.SIGKILL, everyone=True)
                    await tasks.wait(self.container, timeout=_GONE)
                await tasks.delete(self.container)
        finally:
            await self._forget()

    async def _forget(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.remove()


def _fitting(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels that containerd takes; an image may have longer ones."""
    return {key: value for key, value in labels.items() if len(key.encode()) + len(value.encode()) <= _LABEL}
