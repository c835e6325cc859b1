"""Create and Delete: how a task comes to be and how it goes; and what is done with one that containerd has given up."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from unikeel.containerd.wire import task_pb2
from unikeel.engine.extra_disks import recognised
from unikeel.engine.tasks import Task, identify
from unikeel.engine.timeline import Timeline
from unikeel.errors import AlreadyExists, BadContent, FailedPrecondition, NotFound, UnikeelError
from unikeel.kernel.moves import expect_moves
from unikeel.model.task_states import TaskState
from unikeel.records.failpoint import failpoint
from unikeel.sandbox import cgroups
from unikeel.shim import answers, clearing
from unikeel.shim.connecting import connect
from unikeel.shim.creating import Created, Wanted, create
from unikeel.shim.deciding import carried, decide, with_network
from unikeel.shim.desk import Answer, Changed, Desk
from unikeel.shim.disks import RootMount
from unikeel.shim.ending import Ending
from unikeel.shim.live import Live
from unikeel.shim.looking import Looker
from unikeel.shim.outcomes import Asked
from unikeel.shim.wishes import Wishes
from unikeel.values import NamedTuple

_LOG = logging.getLogger("unikeel.tasks")
_KILLED = 137
_END_SECONDS = 5.0
#: Hooks that the OCI runtime runs as it lets the program go: where there are any, that is left to Start.
_START_HOOKS = frozenset({"startContainer", "poststart"})


class Request(NamedTuple):
    """What Create was asked for."""

    containerd: str
    namespace: str
    id: str
    bundle: str
    rootfs: tuple[RootMount, ...]
    terminal: bool
    stdin: str
    stdout: str
    stderr: str
    options: Wishes

    def to_json(self) -> Mapping[str, object]:
        """As it is recorded."""
        return {
            "bundle": self.bundle,
            "rootfs": [[mount.type, mount.source, list(mount.options)] for mount in self.rootfs],
            "terminal": self.terminal,
            "stdin": self.stdin,
            "stdout": self.stdout,
            "stderr": self.stderr,
        }


class Making:
    """Creates and deletes tasks."""

    def __init__(self, desk: Desk, looker: Looker, ending: Ending) -> None:
        self._desk = desk
        self._node = desk.node
        self._looker = looker
        self._ending = ending
        self._begun: set[str] = set()

    async def create(self, asked: Asked, request: Request) -> Task:
        """Make a task. :raise AlreadyExists: there is one. Others: see :func:`unikeel.shim.creating.create`."""
        ident = identify(request.containerd, request.namespace, request.id)
        if ident in self._begun or self._desk.registry.by_name(ident) is not None:
            raise AlreadyExists(f"task {request.id[:100]} exists in namespace {request.namespace[:100]}")
        self._begun.add(ident)
        begun = time.monotonic()
        try:
            task = await self._create(asked, ident, request)
        except UnikeelError as error:
            self._node.metrics.failed("create", type(error).__name__)
            await self._desk.refuse(asked, error)
            raise
        finally:
            self._begun.discard(ident)
        self._node.metrics.took("create", time.monotonic() - begun)
        return task

    async def _create(self, asked: Asked, ident: str, request: Request) -> Task:
        timeline = Timeline()
        expect_moves()
        wanted = await self._wanted(ident, request, timeline)
        live = self._desk.registry.put(wanted.task)
        live.timeline = timeline
        async with live.lock:
            try:
                created, changed = await self._node.work(self._make, asked, live, wanted, timeline)
            except BaseException:
                await self._undo(live)
                raise
            self._desk.changed(live, changed)
        self._desk.oom.add(live.task)
        self._node.metrics.served(created.strategy, hit=created.hit, fallbacks=created.fallbacks)
        return live.task

    def _make(self, asked: Asked, live: Live, wanted: Wanted, timeline: Timeline) -> tuple[Created, Changed]:
        """Record the task, make it, record that it is made; in one worker, since each hand-over between threads costs."""
        node = self._node
        with timeline.span("record"):
            # What is made from here on does not survive a loss of power, so that its record need not.
            task = node.writer.write(lambda cursor: node.tasks.add(cursor, wanted.task), flush=False)
        live.task = task
        failpoint("task.create.recorded")
        created = create(node, wanted._replace(task=task), timeline)
        changed = self._desk.write(
            task,
            TaskState.CREATED,
            lambda task: [("/tasks/create", answers.created_event(task))],
            Answer(asked, lambda task: task_pb2.CreateTaskResponse(pid=task.pid)),
            pid=created.pid,
            start_time=created.start_time,
            boot_id=created.boot_id,
            cgroups=dict(created.cgroups),
            strategy=created.strategy,
        )
        failpoint("task.create.created")
        return created, changed

    async def _wanted(self, ident: str, request: Request, timeline: Timeline) -> Wanted:
        """Find out what is to be made. :raise BadContent: it is no unikernel. :raise FailedPrecondition: there is no snapshot to boot from."""
        place = (request.containerd, request.namespace, request.id)
        with timeline.span("look"):
            look = await self._looker.take(*place, request.bundle)
        with timeline.span("identify") as span:
            identity = await look.identity
            span.attributes["image"] = identity.image
        with timeline.span("configuration"):
            guest = await self._looker.guest(look, request.id)
            if guest is None:
                raise BadContent(
                    f"{identity.image or request.id} is not a unikernel image: it has neither com.urunc.unikernel.* annotations nor /urunc.json",
                    "run ordinary images with an ordinary runtime",
                )
            options = request.options.over(look.options)
            trusted = identity.parent is None or identity.parent.trusted
            room = cgroups.limit_above(look.spec.cgroup) if look.spec.memory_limit else None
            spec = look.spec._replace(volumes=recognised(look.spec.volumes))
            settings = decide(
                request.id, spec, guest, options, self._node.config, request.rootfs, trusted=trusted, room=room
            )
            settings = with_network(
                settings, connect(look.spec, settings.guest, options, self._node.config, identity.exposed)
            )
        if identity.parent is None:
            raise FailedPrecondition(
                f"task {request.id} has no committed snapshot to boot from: {identity.problem}",
                "create the container from an image, with a snapshot of its own",
            )
        if settings.disk is not None and (settings.disk.type, settings.disk.source) not in identity.mounts:
            raise FailedPrecondition(
                f"the root file system of task {request.id}, {settings.disk.source[:200]}, is not what the snapshotter answers for its snapshot",
                "create the task with the mounts of the container's own snapshot",
            )
        task = Task(
            ident=ident,
            containerd=request.containerd,
            namespace=request.namespace,
            id=request.id,
            state=TaskState.CREATING,
            created_ns=time.time_ns(),
            ttrpc=self._desk.registry.ttrpc(request.containerd),
            request=request.to_json(),
            settings={
                **settings.to_json(),
                "parent": identity.parent.key,
                "image": identity.image,
                "early": settings.halts and _START_HOOKS.isdisjoint(look.spec.hooks),
                "halts": settings.halts,
            },
            slot=-1,
        )
        return Wanted(task, settings, carried(look.spec), identity.parent, request.rootfs)

    async def _undo(self, live: Live) -> None:
        """Take back what there is of a task that could not be made; what cannot be taken back now is left for the sweep."""
        node = self._node
        try:
            await node.work(clearing.clear, node, live.task, thorough=True)
            await self._desk.drop(live)
        except UnikeelError as error:
            _LOG.error("task %s is not taken back yet: %s", live.task.id, error)
            await self._desk.change(live, TaskState.DELETING)

    async def delete(self, live: Live, asked: Asked) -> task_pb2.DeleteResponse:
        """Delete a task that has ended, or that was never started.

        :raise FailedPrecondition: its guest runs. :raise NotFound: another request deletes it.
        """
        begun = time.monotonic()
        async with live.lock:
            if self._desk.registry.by_name(live.task.ident) is not live:
                raise NotFound(f"task {live.task.id} is deleted already")
            if live.task.state is TaskState.CREATED:
                await self._node.work(clearing.kill, live.task)
                await self._ending.await_end(live, _END_SECONDS)
                await self._ending.settle(live)
            elif live.task.state is not TaskState.STOPPED:
                await self._ending.settle(live)
            if live.task.state is not TaskState.STOPPED:
                raise FailedPrecondition(f"task {live.task.id} is {live.task.state.value}: kill it first")
            failpoint("task.delete.begin")
            self._desk.oom.remove(live.task.ident)
            self._desk.dropped(live, await self._node.work(self._take_away, live.task, asked))
        self._node.metrics.took("delete", time.monotonic() - begun)
        return answers.deleted(live.task)

    def _take_away(self, task: Task, asked: Asked) -> Changed:
        clearing.clear(self._node, task)
        failpoint("task.delete.cleared")
        erased = self._desk.erase(
            task, lambda task: [("/tasks/delete", answers.deleted_event(task))], Answer(asked, answers.deleted)
        )
        failpoint("task.delete.done")
        return erased

    async def discard(self, live: Live) -> Task:
        """Take a task away that containerd has given up, whatever it does; it tells that by itself. The record as it was at last."""
        async with live.lock:
            if self._desk.registry.by_name(live.task.ident) is not live:
                return live.task
            failpoint("task.discard.begin")
            task = live.task
            runs = task.state is not TaskState.STOPPED
            self._desk.oom.remove(task.ident)
            try:
                await self._node.work(clearing.clear, self._node, task, thorough=True)
            except UnikeelError:
                if task.state is not TaskState.DELETING:
                    await self._desk.change(live, TaskState.DELETING)  # the sweep goes on with it
                raise
            failpoint("task.discard.cleared")
            await self._desk.drop(live)
            return task._replace(exit_code=_KILLED, finished_ns=time.time_ns()) if runs else task
