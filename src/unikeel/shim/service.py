"""The task service, as containerd asks it: version 2 and version 3, which differ in name only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NoReturn

from google.protobuf.empty_pb2 import Empty

from unikeel.containerd.wire import task_pb2, task_types_pb2
from unikeel.errors import InvalidArgument, Unimplemented
from unikeel.model.task_states import TaskState
from unikeel.shim import answers, wishes
from unikeel.shim.creating import TIMELINE
from unikeel.shim.desk import Desk, asked_of
from unikeel.shim.disks import RootMount
from unikeel.shim.making import Making, Request
from unikeel.shim.running import Running
from unikeel.shim.server import Call, Method
from unikeel.shim.stats import stats

if TYPE_CHECKING:
    from collections.abc import Callable

SERVICES: Final = ("containerd.task.v2.Task", "containerd.task.v3.Task")
#: What Connect says of us: it is of no consequence to containerd.
VERSION: Final = "2"
_MOUNTS: Final = 128

__all__ = ["SERVICES", "TIMELINE", "TaskService"]


class TaskService:
    """The methods. ``keeper_pid`` is what containerd takes for the shim's process."""

    def __init__(self, desk: Desk, making: Making, running: Running, keeper_pid: Callable[[], int]) -> None:
        self._desk = desk
        self._node = desk.node
        self._making = making
        self._running = running
        self._keeper_pid = keeper_pid

    def services(self) -> dict[str, Mapping[str, Method]]:
        """By the names that containerd calls."""
        methods = {
            "State": Method(task_pb2.StateRequest, self.state),
            "Create": Method(task_pb2.CreateTaskRequest, self.create),
            "Start": Method(task_pb2.StartRequest, self.start),
            "Delete": Method(task_pb2.DeleteRequest, self.delete),
            "Pids": Method(task_pb2.PidsRequest, self.pids),
            "Pause": Method(task_pb2.PauseRequest, self.pause),
            "Resume": Method(task_pb2.ResumeRequest, self.resume),
            "Checkpoint": Method(task_pb2.CheckpointTaskRequest, self.checkpoint),
            "Kill": Method(task_pb2.KillRequest, self.kill),
            "Exec": Method(task_pb2.ExecProcessRequest, self.exec),
            "ResizePty": Method(task_pb2.ResizePtyRequest, self.resize),
            "CloseIO": Method(task_pb2.CloseIORequest, self.close_io),
            "Update": Method(task_pb2.UpdateTaskRequest, self.update),
            "Wait": Method(task_pb2.WaitRequest, self.wait),
            "Stats": Method(task_pb2.StatsRequest, self.stats),
            "Connect": Method(task_pb2.ConnectRequest, self.connect),
            "Shutdown": Method(task_pb2.ShutdownRequest, self.shutdown),
        }
        return dict.fromkeys(SERVICES, methods)

    # -- answered at once ------------------------------------------------------------------------------------------

    async def state(self, call: Call, request: task_pb2.StateRequest) -> task_pb2.StateResponse:
        """What the task is doing."""
        return answers.state(self._desk.live(call, request.id, request.exec_id).task)

    async def connect(self, call: Call, request: task_pb2.ConnectRequest) -> task_pb2.ConnectResponse:
        """Which processes there are."""
        task = self._desk.live(call, request.id).task
        return task_pb2.ConnectResponse(shim_pid=self._keeper_pid(), task_pid=task.pid, version=VERSION)

    async def pids(self, call: Call, request: task_pb2.PidsRequest) -> task_pb2.PidsResponse:
        """The task's process: the monitor. containerd takes an empty list for a task that leaked."""
        task = self._desk.live(call, request.id).task
        return task_pb2.PidsResponse(processes=[task_types_pb2.ProcessInfo(pid=task.pid)])

    async def shutdown(self, _call: Call, _request: task_pb2.ShutdownRequest) -> Empty:
        """We serve the whole node, and stay."""
        return Empty()

    async def resize(self, call: Call, request: task_pb2.ResizePtyRequest) -> Empty:
        """A serial line has no size."""
        self._desk.live(call, request.id, request.exec_id)
        return Empty()

    async def wait(self, call: Call, request: task_pb2.WaitRequest) -> task_pb2.WaitResponse:
        """The end, however long it takes."""
        live = self._desk.live(call, request.id, request.exec_id)
        if live.task.state is not TaskState.STOPPED:
            call.park()
            await live.ended()
        return answers.ended(live.task)

    async def exec(self, call: Call, request: task_pb2.ExecProcessRequest) -> NoReturn:
        """There is no process in the guest that could be asked to start another."""
        self._desk.live(call, request.id)
        raise Unimplemented(
            f"task {request.id[:100]} is a unikernel: nothing can be executed in it", "use what the guest itself offers"
        )

    async def checkpoint(self, call: Call, request: task_pb2.CheckpointTaskRequest) -> NoReturn:
        """Not offered."""
        self._desk.live(call, request.id)
        raise Unimplemented(f"task {request.id[:100]} cannot be checkpointed: unikeel offers no snapshots of memory")

    # -- life ------------------------------------------------------------------------------------------------------

    async def create(self, call: Call, request: task_pb2.CreateTaskRequest) -> task_pb2.CreateTaskResponse:
        """Make a task whose monitor waits."""
        found = await self._desk.replayed(call, task_pb2.CreateTaskResponse)
        if found is not None:
            return found
        if request.checkpoint or request.parent_checkpoint:
            raise Unimplemented("a task cannot be made from a checkpoint")
        if len(request.rootfs) > _MOUNTS:
            raise InvalidArgument(f"the root file system has {len(request.rootfs)} mounts, more than {_MOUNTS}")
        place = self._desk.registry.place(call.listener)
        wanted = Request(
            containerd=place.containerd,
            namespace=place.namespace,
            id=request.id,
            bundle=request.bundle,
            rootfs=tuple(RootMount(mount.type, mount.source, tuple(mount.options)) for mount in request.rootfs),
            terminal=request.terminal,
            stdin=request.stdin,
            stdout=request.stdout,
            stderr=request.stderr,
            options=wishes.from_options(request.options.type_url, request.options.value),
        )
        task = await self._node.finish(self._making.create(asked_of(call), wanted))
        return task_pb2.CreateTaskResponse(pid=task.pid)

    async def start(self, call: Call, request: task_pb2.StartRequest) -> task_pb2.StartResponse:
        """Let the guest run."""
        found = await self._desk.replayed(call, task_pb2.StartResponse)
        if found is not None:
            return found
        live = self._desk.live(call, request.id, request.exec_id)
        task = await self._node.finish(self._running.start(live, asked_of(call), again=bool(call.attempt)))
        return task_pb2.StartResponse(pid=task.pid)

    async def kill(self, call: Call, request: task_pb2.KillRequest) -> Empty:
        """Send a signal."""
        if await self._desk.replayed(call, Empty) is None:
            live = self._desk.live(call, request.id, request.exec_id)
            await self._node.finish(self._running.kill(live, asked_of(call), request.signal, again=bool(call.attempt)))
        return Empty()

    async def delete(self, call: Call, request: task_pb2.DeleteRequest) -> task_pb2.DeleteResponse:
        """Take the task away."""
        found = await self._desk.replayed(call, task_pb2.DeleteResponse)
        if found is not None:
            return found
        live = self._desk.live(call, request.id, request.exec_id)
        answer: task_pb2.DeleteResponse = await self._node.finish(self._making.delete(live, asked_of(call)))
        return answer

    async def pause(self, call: Call, request: task_pb2.PauseRequest) -> Empty:
        """Have the guest stand still."""
        if await self._desk.replayed(call, Empty) is None:
            live = self._desk.live(call, request.id)
            await self._node.finish(self._running.pause(live, asked_of(call), again=bool(call.attempt)))
        return Empty()

    async def resume(self, call: Call, request: task_pb2.ResumeRequest) -> Empty:
        """Have it go on."""
        if await self._desk.replayed(call, Empty) is None:
            live = self._desk.live(call, request.id)
            await self._node.finish(self._running.resume(live, asked_of(call), again=bool(call.attempt)))
        return Empty()

    async def update(self, call: Call, request: task_pb2.UpdateTaskRequest) -> Empty:
        """Change the limits; to do it twice does no harm."""
        live = self._desk.live(call, request.id)
        await self._node.finish(self._running.update(live, request.resources.value))
        return Empty()

    async def close_io(self, call: Call, request: task_pb2.CloseIORequest) -> Empty:
        """Nobody types any more."""
        live = self._desk.live(call, request.id, request.exec_id)
        if request.stdin:
            await self._node.work(self._node.keeper.close_input, live.task.ident)
        return Empty()

    async def stats(self, call: Call, request: task_pb2.StatsRequest) -> task_pb2.StatsResponse:
        """What the sandbox has used."""
        live = self._desk.live(call, request.id)
        return task_pb2.StatsResponse(stats=await self._node.work(stats, live.task.cgroups))
