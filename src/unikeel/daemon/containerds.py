"""The containerds that this node's tasks are of: a client for each, who identifies its containers, and the way to its snapshots."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Final

from unikeel.containerd.client import Containerd
from unikeel.containerd.identify import Identifier, consumer_of
from unikeel.containerd.reach import ContainerdReach
from unikeel.errors import FailedPrecondition, NotFound, UnikeelError
from unikeel.shim.identity import Identity
from unikeel.shim.orphans import Known

_LOG = logging.getLogger("unikeel.daemon")
#: Seconds that a containerd has to say who it is when the daemon starts; one that is away is asked again with its next container.
_HELLO_SECONDS: Final = 2.0


class Identifying:
    """Asks one containerd, by its gRPC address. ``reach`` serves it from its first answer on."""

    def __init__(self, address: str, reach: ContainerdReach, attached: Callable[[str], None]) -> None:
        self._client = Containerd(address)
        self._reach = reach
        self._attached = attached
        self._identifier: Identifier | None = None

    async def attach(self, timeout: float = 10.0) -> Identifier:  # noqa: ASYNC109 - it travels along
        """Find out who it is. :raise Unavailable: it does not answer."""
        if self._identifier is None:
            server = await self._client.introspection.server(timeout=timeout)
            identifier = Identifier(self._client, consumer_of(self._client.address, server.uuid))
            self._reach.attach(identifier, self._client)
            self._identifier = identifier
            self._attached(identifier.consumer)
        return self._identifier

    async def identify(self, namespace: str, container: str) -> Identity:
        """See :meth:`unikeel.shim.identity.Identifier.identify`."""
        identifier = await self.attach()
        try:
            facts = await identifier.identify(namespace, container, mounts=True)
        except (FailedPrecondition, NotFound) as error:
            # What kind of container it is, its image still tells.
            image, found, committed = await identifier.image(namespace, container)
            return Identity(
                image, found.annotations, found.labels, None, str(error), found.exposed, committed=committed
            )
        mounts = tuple((mount.type, mount.source) for mount in facts.mounts)
        parent = facts.boot_parent
        return Identity(facts.image, facts.annotations, facts.labels, parent, exposed=facts.exposed, mounts=mounts)

    async def knows(self, namespace: str, container: str) -> Known:
        """Whether it knows a container's task, and the container. :raise UnikeelError: it cannot be asked."""
        client = self._client.with_namespace(namespace)
        with contextlib.suppress(NotFound):
            await client.tasks.get(container)
            return Known(task=True, container=True)
        with contextlib.suppress(NotFound):
            await client.containers.get(container)
            return Known(task=False, container=True)
        return Known(task=False, container=False)

    async def close(self) -> None:
        """End the connection."""
        await self._client.close()


class Containerds:
    """All of them. ``attached`` is told the consumer's name of each that has answered."""

    def __init__(self, reach: ContainerdReach, attached: Callable[[str], None]) -> None:
        self._reach = reach
        self._attached = attached
        self._known: dict[str, Identifying] = {}

    def get(self, address: str) -> Identifying:
        """Who asks the containerd at an address."""
        found = self._known.get(address)
        if found is None:
            found = self._known[address] = Identifying(address, self._reach, self._attached)
        return found

    async def attach(self, addresses: Iterable[str]) -> None:
        """Connect to those that answer now."""

        async def one(address: str) -> None:
            try:
                await self.get(address).attach(_HELLO_SECONDS)
            except UnikeelError as error:
                _LOG.warning("containerd at %s is not asked yet: %s", address, error)

        await asyncio.gather(*(one(address) for address in addresses))
