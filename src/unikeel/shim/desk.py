"""What the parts of the task service share: the tasks, the way to change one, and answers that are remembered."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import Message

from unikeel.engine.tasks import Column, Task
from unikeel.errors import NotFound, UnikeelError
from unikeel.model.task_states import TaskState
from unikeel.shim.live import Live, Registry
from unikeel.shim.node import Node
from unikeel.shim.outbox import Event
from unikeel.shim.outcomes import Asked
from unikeel.shim.publisher import Publisher
from unikeel.values import NamedTuple

if TYPE_CHECKING:
    from unikeel.shim.oom import OomWatch
    from unikeel.shim.server import Call

M = TypeVar("M", bound=Message)

#: From the task as it is then, the topics and bodies of what happened, in their order.
Happened = Callable[[Task], Sequence[tuple[str, Message]]]


def asked_of(call: Call) -> Asked:
    """What a request is known by."""
    return Asked(call.connection, call.stream)


def nothing(_task: Task) -> Sequence[tuple[str, Message]]:
    """Nothing that anybody is told of."""
    return ()


class Answer(NamedTuple):
    """What is answered to a request: remembered together with the change that it tells of."""

    asked: Asked
    message: Callable[[Task], Message]


class Changed(NamedTuple):
    """A task as it is recorded, and the events that were written with it."""

    task: Task
    events: tuple[Event, ...]


class Desk:
    """The tasks, and how they are changed."""

    def __init__(self, node: Node, registry: Registry, publisher: Publisher, oom: OomWatch) -> None:
        self.node = node
        self.registry = registry
        self.publisher = publisher
        self.oom = oom

    def live(self, call: Call, ident: str, exec_id: str = "") -> Live:
        """The task that a request is about. :raise NotFound: there is none; or it names a process within, of which there are none."""
        place = self.registry.place(call.listener)
        if call.namespace and call.namespace != place.namespace:
            raise NotFound(f"there is no task of namespace {call.namespace[:100]} behind this socket")
        live = self.registry.get(place, ident)
        if exec_id:
            raise NotFound(f"task {ident[:100]} has no process {exec_id[:100]}: there is none but the guest")
        return live

    async def replayed(self, call: Call, kind: type[M]) -> M | None:
        """The answer to a request that comes again, if there was one. :raise UnikeelError: if that was an error."""
        if not call.attempt:
            return None
        data = await self.node.work(self.node.outcomes.find, asked_of(call))
        return None if data is None else kind.FromString(data)

    async def change(
        self,
        live: Live,
        state: TaskState | None = None,
        *,
        happened: Happened = nothing,
        answer: Answer | None = None,
        **changes: Column,
    ) -> Task:
        """Change a task, tell what happened and remember what is answered, all in one transaction."""
        changed = await self.node.work(self.write, live.task, state, happened, answer, **changes)
        return self.changed(live, changed)

    def write(
        self,
        before: Task,
        state: TaskState | None = None,
        happened: Happened = nothing,
        answer: Answer | None = None,
        **changes: Column,
    ) -> Changed:
        """The same in the records alone, from a worker; :meth:`changed` must follow in the event loop. Nothing of a task outlives the host, so that nothing is flushed."""
        node = self.node

        def write(cursor: sqlite3.Cursor) -> Changed:
            task = before
            if state is not None or changes:
                task = node.tasks.update(cursor, before, state, **changes)
            return self._told(cursor, task, happened, answer)

        return node.writer.write(write, flush=False)

    def _told(self, cursor: sqlite3.Cursor, task: Task, happened: Happened, answer: Answer | None) -> Changed:
        node = self.node
        if answer is not None:
            node.outcomes.store(cursor, answer.asked, answer.message(task).SerializeToString())
        return Changed(
            task,
            tuple(
                node.outbox.add(cursor, task.containerd, task.namespace, topic, body) for topic, body in happened(task)
            ),
        )

    def changed(self, live: Live, changed: Changed) -> Task:
        """A task was changed in the records: know that, and tell what happened. The task as it is now."""
        # A signal may have been noted meanwhile, which waits for no lock.
        live.changed(changed.task._replace(ended_by=live.task.ended_by or changed.task.ended_by))
        self.publish(changed.events)
        return live.task

    async def drop(self, live: Live, *, happened: Happened = nothing, answer: Answer | None = None) -> None:
        """Forget a task of which nothing is left, tell what happened and remember what is answered."""
        self.dropped(live, await self.node.work(self.erase, live.task, happened, answer))

    def erase(self, task: Task, happened: Happened = nothing, answer: Answer | None = None) -> Changed:
        """The same in the records alone, from a worker; :meth:`dropped` must follow in the event loop."""

        def write(cursor: sqlite3.Cursor) -> Changed:
            self.node.tasks.delete(cursor, task)
            return self._told(cursor, task, happened, answer)

        return self.node.writer.write(write, flush=False)

    def dropped(self, live: Live, erased: Changed) -> None:
        """A task was forgotten in the records: know that, and tell what happened."""
        self.registry.forget(live)
        self.publish(erased.events)

    async def refuse(self, asked: Asked, error: UnikeelError) -> None:
        """Remember that a request was answered with an error."""
        await self.node.work(
            self.node.writer.write, lambda cursor: self.node.outcomes.store_error(cursor, asked, error), flush=False
        )

    def publish(self, events: Sequence[Event]) -> None:
        """Tell events that are recorded."""
        for event in events:
            self.publisher.publish(event)
