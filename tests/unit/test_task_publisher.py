"""Events reach containerd in their order, one after the other, and are crossed out once it has taken them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from ttrpc_service import run
from unikeel.containerd.wire import forward_pb2
from unikeel.records.database import Database
from unikeel.records.writer import Writer
from unikeel.shim.outbox import Event, Outbox
from unikeel.shim.publisher import Publisher
from unikeel.shim.server import Call, Method, Server, serve

_SERVICE = "containerd.services.events.ttrpc.v1.Events"
_TOPICS = ("/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete")
_PATIENCE = 60.0


class Taker:
    """containerd's end: what it was told; it answers when it may."""

    def __init__(self) -> None:
        self.topics: list[str] = []
        self.may = asyncio.Event()
        self.may.set()

    async def forward(self, _call: Call, request: forward_pb2.ForwardRequest) -> Message:
        """Take an event."""
        self.topics.append(request.envelope.topic)
        await self.may.wait()
        return Empty()

    async def serve(self, path: str) -> asyncio.Server:
        """Begin to take events at a path."""
        return await serve(Server({_SERVICE: {"Forward": Method(forward_pb2.ForwardRequest, self.forward)}}), path)


class Place:
    """A record store with events, and who tells them."""

    def __init__(self, directory: Path) -> None:
        self.database = Database(str(directory / "state.db"))
        self.outbox = Outbox(self.database)
        self.writer = Writer(self.database)
        self.path = str(directory / "events.sock")
        self.publisher = Publisher(self.outbox, self.writer.later, lambda _containerd: self.path)

    def event(self, topic: str) -> Event:
        """An event that is on the disk."""
        return self.writer.write(lambda cursor: self.outbox.add(cursor, "/c.sock", "default", topic, Empty()))

    def waiting(self) -> list[str]:
        """The topics of those that nobody is known to have taken."""
        self.writer.flush()
        return [event.topic for event in self.outbox.waiting()]

    async def until_waiting(self, topics: list[str]) -> None:
        """Wait until just these wait."""
        async with asyncio.timeout(_PATIENCE):
            while self.waiting() != topics:  # noqa: ASYNC110 - the disk tells nobody
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        """Let go of everything."""
        await self.publisher.close()
        self.database.close()


def test_one_after_the_other_and_crossed_out_when_taken(tmp_path: Path) -> None:
    async def test() -> None:
        place, taker = Place(tmp_path), Taker()
        async with await taker.serve(place.path):
            for topic in _TOPICS:
                place.publisher.publish(place.event(topic))
            await place.until_waiting([])
            assert taker.topics == list(_TOPICS)
            await place.close()

    run(test)


def test_an_event_waits_for_the_answer_to_the_one_before(tmp_path: Path) -> None:
    async def test() -> None:
        place, taker = Place(tmp_path), Taker()
        async with await taker.serve(place.path):
            place.publisher.publish(place.event("/tasks/warm"))
            await place.until_waiting([])
            taker.may.clear()
            place.publisher.publish(place.event("/tasks/create"))
            async with asyncio.timeout(_PATIENCE):
                while len(taker.topics) < 2:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.01)
            place.publisher.publish(place.event("/tasks/start"))
            await asyncio.sleep(0.05)
            assert taker.topics[1:] == ["/tasks/create"]
            assert place.waiting() == ["/tasks/create", "/tasks/start"]
            taker.may.set()
            await place.until_waiting([])
            assert taker.topics[1:] == ["/tasks/create", "/tasks/start"]
            await place.close()

    run(test)


def test_events_wait_while_nobody_takes_them(tmp_path: Path) -> None:
    async def test() -> None:
        place, taker = Place(tmp_path), Taker()
        for topic in _TOPICS:
            place.publisher.publish(place.event(topic))
        await asyncio.sleep(0.05)
        assert place.waiting() == list(_TOPICS)
        async with await taker.serve(place.path):
            await place.until_waiting([])
            assert taker.topics == list(_TOPICS)
            await place.close()

    run(test)
