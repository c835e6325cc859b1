"""What is to be known of a container before it can be made: its configuration, its image, whether it is a unikernel at all.

The launcher's question comes a few milliseconds before Create's: what was found for it is kept for that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from unikeel.boot.contract import Choice, Parent, Source
from unikeel.boot.readers.contract import PathError, PathReason
from unikeel.containerd.wire import bootstrap_pb2
from unikeel.eager import begun
from unikeel.engine.tasks import identify
from unikeel.errors import NotFound
from unikeel.model.image_config import URUNC_JSON_LIMIT, choose, from_annotations, from_urunc_json
from unikeel.model.image_fields import OWN_PREFIX, PREFIX, GuestConfig
from unikeel.shim import ocispec, wishes
from unikeel.shim.identity import UNKNOWN, Identifier, Identity
from unikeel.shim.node import Node
from unikeel.shim.ocispec import Spec
from unikeel.shim.wishes import Wishes
from unikeel.values import NamedTuple

_KEPT: Final = 512
_KEPT_SECONDS: Final = 300.0
#: So many images' urunc.json are remembered.
_IMAGES: Final = 256
_PREFIXES: Final = (PREFIX, OWN_PREFIX)
#: Characters of the annotations of one container, beyond which the choice is not remembered.
_USUAL: Final = 16 << 10


class Look(NamedTuple):
    """What is known of one container."""

    spec: Spec
    options: Wishes
    identity: asyncio.Task[Identity]
    when: float


def options_of(value: bytes, ident: str, namespace: str) -> Wishes:
    """The wishes in what containerd writes to the launcher's standard input: options, or parameters that hold them (2.3 and later)."""
    from google.protobuf.any_pb2 import Any
    from google.protobuf.message import DecodeError

    if not value:
        return Wishes()
    try:
        parameters = bootstrap_pb2.BootstrapParams.FromString(value)
        if parameters.instance_id == ident and parameters.namespace == namespace:
            found = Wishes()
            for extension in parameters.extensions:
                found = wishes.from_options(extension.value.type_url, extension.value.value).over(found)
            return found
    except DecodeError:
        pass
    try:
        packed = Any.FromString(value)
    except DecodeError:
        return Wishes()
    return wishes.from_options(packed.type_url, packed.value)


_Fields = tuple[tuple[str, str], ...]


def _fields(annotations: Mapping[str, str]) -> _Fields:
    """Those that say how an image is run."""
    return tuple((key, value) for key, value in annotations.items() if key.startswith(_PREFIXES))


def _choose(given: _Fields, manifest: _Fields, labels: _Fields, image: str) -> GuestConfig | None:
    """What they say together."""
    return choose(dict(given), dict(manifest), dict(labels), lambda: None, image)


#: It is asked twice for each container, and answered the same for all of an image.
_chosen: Final = lru_cache(_IMAGES)(_choose)


def _choice(look: Look, identity: Identity, name: str) -> GuestConfig | None:
    sets = (_fields(look.spec.annotations), _fields(identity.manifest), _fields(identity.labels))
    is_usual = sum(len(value) for fields in sets for _, value in fields) <= _USUAL
    return (_chosen if is_usual else _choose)(*sets, name)


class Looker:
    """Looks at containers, for one node."""

    def __init__(self, node: Node, identifiers: Callable[[str], Identifier]) -> None:
        self._node = node
        self._make = identifiers
        self._identifiers: dict[str, Identifier] = {}
        self._looks: dict[str, Look] = {}
        self._files: dict[str, bytes | None] = {}

    async def look(self, containerd: str, namespace: str, ident: str, bundle: str, options: Wishes) -> Look:
        """Read the configuration, and begin to ask containerd. Kept for :meth:`take`.

        :raise NotFound, InvalidArgument: as :func:`unikeel.shim.ocispec.read`.
        """
        spec = ocispec.read(bundle) if ocispec.is_small(bundle) else await self._node.work(ocispec.read, bundle)
        task = begun(self._identify(containerd, namespace, ident))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        found = Look(spec, options, task, time.monotonic())
        for name, kept in list(self._looks.items()):
            if len(self._looks) >= _KEPT or found.when - kept.when > _KEPT_SECONDS:
                del self._looks[name]
        self._looks[identify(containerd, namespace, ident)] = found
        return found

    async def take(self, containerd: str, namespace: str, ident: str, bundle: str) -> Look:
        """What was found a moment ago, or is found now; it is not kept any more. Raises as :meth:`look`."""
        name = identify(containerd, namespace, ident)
        kept = self._looks.pop(name, None)
        if kept is not None and time.monotonic() - kept.when < _KEPT_SECONDS:
            return kept
        found = await self.look(containerd, namespace, ident, bundle, Wishes())
        self._looks.pop(name, None)
        return found

    async def _identify(self, containerd: str, namespace: str, ident: str) -> Identity:
        identifier = self._identifiers.get(containerd)
        if identifier is None:
            identifier = self._identifiers[containerd] = self._make(containerd)
        try:
            return await identifier.identify(namespace, ident)
        except NotFound as error:
            return UNKNOWN._replace(problem=error.message)

    async def guest(self, look: Look, ident: str) -> GuestConfig | None:
        """How the container's image wants to be run; None: it is no unikernel.

        :raise BadContent: it says so wrongly. :raise Unavailable: containerd does not answer.
        """
        identity = await look.identity
        name = identity.image or ident
        found = _choice(look, identity, name)
        parent = identity.parent or identity.committed
        if found is not None or parent is None:
            return found
        data = await self._urunc_json(parent)
        return None if data is None else from_urunc_json(data, f"{name}: urunc.json")

    async def is_unikernel(self, look: Look, ident: str) -> bool:
        """Whether the container is one of ours; asks containerd only if the configuration leaves that open. Raises as :meth:`guest`."""
        if look.spec.is_pod_sandbox:
            return False
        if from_annotations(look.spec.annotations, f"{ident}: annotations") is not None:
            return True
        return await self.guest(look, ident) is not None

    async def _urunc_json(self, parent: Parent) -> bytes | None:
        """The image's ``urunc.json``; None: it has none. Remembered by parent."""
        key = parent.key
        if key not in self._files:
            data = await self._node.work(self._read, parent)
            if len(self._files) >= _IMAGES:
                del self._files[next(iter(self._files))]
            self._files[key] = data
        return self._files[key]

    def _read(self, parent: Parent) -> bytes | None:
        source = Source(parent, container="", rootfs=(), guest_ran=False, monitor_uid=0)
        choice = Choice(self._node.config.boot_strategy)
        try:
            return self._node.services.boot.read_file(source, "/urunc.json", choice, URUNC_JSON_LIMIT)
        except PathError as error:
            if error.reason is PathReason.MISSING:
                return None
            raise

    async def close(self) -> None:
        """End the connections."""
        for look in self._looks.values():
            look.identity.cancel()
        for identifier in self._identifiers.values():
            await identifier.close()
