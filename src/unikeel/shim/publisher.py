"""Tells containerd the events of its tasks: one connection and one queue for each containerd, tried again while it is away."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from google.protobuf.empty_pb2 import Empty

from unikeel.containerd.wire import forward_pb2
from unikeel.eager import begun
from unikeel.errors import DeadlineExceeded, Unavailable, UnikeelError
from unikeel.records.writer import Change
from unikeel.shim.client import Client
from unikeel.shim.outbox import KEPT, Event, Outbox

_SERVICE: Final = "containerd.services.events.ttrpc.v1.Events"
_SECONDS: Final = 5.0
_PAUSES: Final = (0.02, 0.1, 0.3, 1.0, 2.0, 5.0)
#: Has a change made soon, that nobody waits for.
Later: TypeAlias = "Callable[[Change[object]], None]"
_LOG = logging.getLogger("unikeel.events")


def envelope(event: Event) -> forward_pb2.ForwardRequest:
    """An event as it is handed over."""
    request = forward_pb2.ForwardRequest()
    found = request.envelope
    found.timestamp.seconds, found.timestamp.nanos = divmod(event.when_ns, 1_000_000_000)
    found.namespace = event.namespace
    found.topic = event.topic
    found.event.type_url = event.type
    found.event.value = event.body
    return request


class _Queue:
    """The events for one containerd."""

    def __init__(self, containerd: str, address: Callable[[], str], outbox: Outbox, later: Later) -> None:
        self._containerd = containerd
        self._address = address
        self._outbox = outbox
        self._later = later
        self._events: deque[Event] = deque()
        self._client: Client | None = None
        #: Hands over what there is, one after the other; ends with the last.
        self._task: asyncio.Task[None] | None = None

    def put(self, events: Iterable[Event]) -> None:
        """Take events, in their order; beyond the bound the oldest are given up."""
        self._events.extend(events)
        while len(self._events) > KEPT:
            self._forget(self._events.popleft())
        if self._task is None or self._task.done():
            self._task = begun(self._hand_over())

    def _forget(self, event: Event) -> None:
        self._later(lambda cursor: self._outbox.taken(cursor, event.containerd, event.number))

    async def _hand_over(self) -> None:
        failures = 0
        while self._events:
            event = self._events[0]
            if await self._told(event):
                failures = 0
                if self._events and self._events[0] is event:
                    self._events.popleft()
                    self._forget(event)
            else:
                await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
                failures += 1

    async def _told(self, event: Event) -> bool:
        """Hand an event over; False: another attempt may do. What containerd refuses is given up."""
        address = self._address()
        if not address:
            return True  # it takes none
        try:
            if self._client is None or self._client.closed:
                self._client = await Client.connect(address.removeprefix("unix://"))
            await self._client.call(_SERVICE, "Forward", envelope(event), Empty, timeout=_SECONDS)
        except (Unavailable, DeadlineExceeded):
            await self.disconnect()
            return False
        except UnikeelError as error:
            _LOG.warning("%s did not take the event %s: %s", self._containerd, event.topic, error)
        return True

    async def disconnect(self) -> None:
        """Forget the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def close(self, seconds: float) -> None:
        """Hand over what can be handed over in this time, then end."""
        if self._task is not None and not self._task.done():
            await asyncio.wait((self._task,), timeout=seconds)
            self._task.cancel()
        await self.disconnect()


class Publisher:
    """All queues."""

    def __init__(self, outbox: Outbox, later: Later, addresses: Callable[[str], str]) -> None:
        self._outbox = outbox
        self._later = later
        self._addresses = addresses
        self._queues: dict[str, _Queue] = {}

    def resume(self) -> None:
        """Tell what an earlier daemon could not."""
        for event in self._outbox.waiting():
            self.publish(event)

    def publish(self, event: Event) -> None:
        """Tell an event, which is in the outbox."""
        name = event.containerd
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = _Queue(name, lambda: self._addresses(name), self._outbox, self._later)
        queue.put((event,))

    async def close(self, seconds: float = 1.0) -> None:
        """End; what is not told stays in the outbox."""
        await asyncio.gather(*(queue.close(seconds) for queue in self._queues.values()))
