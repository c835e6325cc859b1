"""The daemon's own way to boot files, in this process: its services with a state root of their own, and a keeper that holds shared views.

What the daemon does in one of its threads is done in one here, so that the way there and back is in the time.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, Self, TypeVar

from unikeel.bench.containerd.inside.containers import Prepared
from unikeel.bench.containerd.inside.session import Session
from unikeel.boot.contract import Acquired, Choice, HostMount, Parent, Source
from unikeel.config import load
from unikeel.containerd.identify import Identifier, consumer_of
from unikeel.errors import Unavailable, UnikeelError
from unikeel.keeper.client import KeeperClient, KeeperSettings
from unikeel.kernel.pidfd import open_pid, wait_exit
from unikeel.shim.node import TaskServices, open_task_layout

T = TypeVar("T")
P = ParamSpec("P")

_PARENT: Final = "/var/lib/unikeel"
_KEPT: Final = 86400.0
_IDLE: Final = 1.0
_SECONDS: Final = 30.0
_PAUSE: Final = 0.01
#: The number of the user that the monitor would have.
_SLOT: Final = 1


class Harness:
    """An asynchronous context manager: leaving it gives everything back, and waits for its keeper's end."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._root = tempfile.mkdtemp(prefix="bench-", dir=_PARENT)
        config = load()
        layout = open_task_layout(self._root, config)
        self._keeper = KeeperClient(KeeperSettings(layout.run, _IDLE, _KEPT))
        self._services = TaskServices(layout, config, session.notice)
        self._workers = ThreadPoolExecutor(config.daemon_workers)
        self._identifier: Identifier | None = None

    async def _work(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._workers, partial(function, *arguments, **named))

    async def __aenter__(self) -> Self:
        client = self._session.containerd
        server = await client.introspection.server()
        self._identifier = Identifier(client, consumer_of(client.address, server.uuid))
        self._services.reach.attach(self._identifier, client)
        self._keeper.connection()
        return self

    async def identify(self, container: str) -> Parent:
        """A container's committed parent, as the daemon finds it. :raise UnikeelError: it has none, or containerd does not answer."""
        assert self._identifier is not None
        facts = await self._identifier.identify(self._session.containerd.namespace, container)
        return facts.boot_parent

    async def acquire(
        self, parent: Parent, prepared: Prepared, paths: Mapping[str, str], choice: Choice, layer: str = ""
    ) -> Acquired:
        """Boot files as a Create of this container gets them. :param layer: as in :class:`unikeel.boot.contract.Source`."""
        source = Source(
            parent,
            container=prepared.id,
            rootfs=tuple(HostMount(mount.type, mount.source, mount.options) for mount in prepared.mounts),
            guest_ran=False,
            monitor_uid=self._services.uid(_SLOT),
        )
        source = source._replace(layer=layer) if layer else source
        return await self._work(self._services.boot.acquire, source, paths, choice)

    async def release(self, prepared: Prepared) -> None:
        """The container is removed."""
        await self._work(self._services.boot.release, prepared.id)

    async def forget(self) -> None:
        """As if no container of any image had ever started: nothing cached, nothing mounted, no view. :raise Unavailable: something stays."""
        boot = self._services.boot
        await self._work(boot.settle, _SECONDS)
        end = time.monotonic() + _SECONDS
        while True:
            await self._work(boot.collect, everything=True)
            if self._services.reach.counts() == (0, 0) and not boot.listing():
                return
            if time.monotonic() > end:
                raise Unavailable(f"{self._services.reach.counts()[0]} views are not given back")
            await asyncio.sleep(_PAUSE)

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.forget()
        except UnikeelError as error:
            self._session.notice(str(error))
        await self._work(self._services.reach.close)
        pid = self._keeper.connection().call({"op": "hello"})["pid"]
        assert isinstance(pid, int)
        with open_pid(pid) as keeper:
            self._workers.shutdown()
            self._services.close()
            self._keeper.close()
            await asyncio.to_thread(wait_exit, keeper, _SECONDS)
        shutil.rmtree(self._root)
