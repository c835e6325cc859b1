"""A client of one containerd, in one namespace: its services as attributes.

>>> async with Containerd("/run/containerd/containerd.sock", "default") as containerd:
...     await containerd.version()

Every call takes ``timeout`` (seconds, or ``None``) and ``lease``. Errors are of :mod:`unikeel.errors`, by containerd's
code and in containerd's words; :class:`~unikeel.errors.Unavailable` means that it is not there or went away, and the next
call connects anew.
"""

from __future__ import annotations

from typing import Final, Self, Unpack

from unikeel.containerd.calling import Caller, Link, Options
from unikeel.containerd.content import Content
from unikeel.containerd.records import Version
from unikeel.containerd.snapshots import Diff, Snapshots
from unikeel.containerd.stores import Containers, Images, Introspection, Leases, Namespaces
from unikeel.containerd.tasks import Events, Tasks

#: Where containerd listens if nobody says otherwise.
ADDRESS: Final = "/run/containerd/containerd.sock"
#: How many namespaces are remembered.
_OTHERS: Final = 64


class Containerd:
    """The services of a containerd, for one namespace; an asynchronous context manager.

    It belongs to the event loop that makes the first call. All instances of :meth:`with_namespace` share a connection.

    :param address: the path of its gRPC socket, with or without ``unix://``.
    """

    def __init__(self, address: str = ADDRESS, namespace: str = "default", *, _link: Link | None = None) -> None:
        self._link = _link or Link(address)
        self._others: dict[str, Containerd] = {}
        caller = Caller(self._link, namespace)
        self._caller = caller
        self.containers = Containers(caller)
        self.images = Images(caller)
        self.content = Content(caller)
        self.diff = Diff(caller)
        self.events = Events(caller)
        self.introspection = Introspection(caller)
        self.leases = Leases(caller)
        self.namespaces = Namespaces(caller)
        self.tasks = Tasks(caller)

    @property
    def address(self) -> str:
        """Where it listens."""
        return self._link.address

    @property
    def namespace(self) -> str:
        """The namespace of the calls."""
        return self._caller.namespace

    def snapshots(self, name: str) -> Snapshots:
        """The snapshots of a snapshotter."""
        return Snapshots(self._caller, name)

    async def version(self, **options: Unpack[Options]) -> Version:
        """Its version."""
        return await self.introspection.version(**options)

    def with_namespace(self, namespace: str) -> Containerd:
        """The same containerd, for another namespace. It need not be closed."""
        found = self._others.get(namespace)
        if found is None:
            if len(self._others) >= _OTHERS:
                self._others.clear()
            found = self._others[namespace] = Containerd(namespace=namespace, _link=self._link)
        return found

    async def close(self) -> None:
        """End the connection. May be called again."""
        await self._link.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
