"""What the command line asks the daemon: documents in JSON, in both directions."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from unikeel.boot.contract import Holding
from unikeel.containerd.wire import control_pb2
from unikeel.daemon.metrics import Gauge
from unikeel.engine.tasks import Task
from unikeel.errors import InvalidArgument
from unikeel.shim.live import Registry
from unikeel.shim.node import Node
from unikeel.shim.server import Call, Method
from unikeel.version import VERSION

SERVICE: Final = "unikeel.control.v1.Control"
_GAUGED_SECONDS: Final = 1.0


def described(task: Task) -> dict[str, object]:
    """One task, as JSON."""
    return {
        "id": task.id,
        "ident": task.ident,
        "containerd": task.containerd,
        "namespace": task.namespace,
        "image": task.image,
        "state": task.state.value,
        "exit_code": task.exit_code if task.finished_ns else None,
        "reason": task.reason,
        "pid": task.pid,
        "strategy": task.strategy,
        "created": task.created_ns,
        "started": task.started_ns,
        "finished": task.finished_ns,
    }


class ControlService:
    """The methods. ``connections`` tells how many connections there are, ``gauges`` what others have to say in the metrics."""

    def __init__(
        self,
        node: Node,
        registry: Registry,
        connections: Callable[[], int],
        gauges: Callable[[], list[Gauge]] = list,
    ) -> None:
        self._node = node
        self._registry = registry
        self._connections = connections
        self._more_gauges = gauges
        self._begun = time.time_ns()
        self._gauged: tuple[float, list[Gauge]] = (0.0, [])

    def services(self) -> dict[str, Mapping[str, Method]]:
        """By the name that the command line calls."""
        answers = {
            "Status": self._status,
            "Tasks": self._tasks,
            "Timeline": self._timeline,
            "Boot": self._boot,
            "Collect": self._collect,
            "Metrics": self._metrics,
        }
        return {
            SERVICE: {name: Method(control_pb2.ControlRequest, _method(answer)) for name, answer in answers.items()}
        }

    async def _status(self, _request: Mapping[str, Any]) -> object:
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "keeper": os.getppid(),
            "since": self._begun,
            "root": self._node.layout.root,
            "tasks": len(self._registry),
            "connections": self._connections(),
            "containerds": sorted(self._registry.containerds()),
            "cpu": time.process_time(),
        }

    async def _tasks(self, _request: Mapping[str, Any]) -> object:
        return [described(live.task) for live in self._registry]

    async def _timeline(self, request: Mapping[str, Any]) -> object:
        name = str(request.get("id", ""))
        found = [live.task for live in self._registry if name in (live.task.id, live.task.ident)]
        return [os.path.join(self._node.layout.container(task.ident), "timeline.json") for task in found]

    def _listing(self) -> list[Holding]:
        services = self._node.services
        return [*services.boot.listing(), *services.made.listing()]

    async def _boot(self, _request: Mapping[str, Any]) -> object:
        listing = await self._node.work(self._listing)
        return [{**holding._asdict(), "reclaimable": holding.reclaimable} for holding in listing]

    async def _collect(self, request: Mapping[str, Any]) -> object:
        everything = request.get("everything") is True
        services = self._node.services
        freed = await self._node.work(services.boot.collect, everything=everything)
        freed += await self._node.work(services.made.collect)
        return [item._asdict() for item in freed]

    async def _metrics(self, _request: Mapping[str, Any]) -> object:
        return await self.metrics()

    async def metrics(self) -> str:
        """The metrics' text; what must be looked up is at most a second old."""
        when, gauges = self._gauged
        if time.monotonic() - when > _GAUGED_SECONDS:
            listing = await self._node.work(self._listing)
            kinds = [(holding.kind, holding) for holding in listing]
            states = [live.task.state.value for live in self._registry]
            leases = {holding.lease for holding in listing if holding.lease}
            gauges = [
                Gauge("tasks", "Tasks, by state.", [((("state", s),), states.count(s)) for s in sorted(set(states))]),
                Gauge(
                    "boot_files",
                    "What is kept of boot files, by kind.",
                    [((("kind", k),), sum(1 for kind, _ in kinds if kind == k)) for k in sorted({k for k, _ in kinds})],
                ),
                Gauge("boot_bytes", "What that takes up.", [((), float(sum(holding.size for holding in listing)))]),
                Gauge("leases", "Leases that keep views in containerd.", [((), float(len(leases)))]),
                Gauge("connections", "Connections of containerds.", [((), float(self._connections()))]),
                Gauge("cpu_seconds", "CPU time of the daemon.", [((), time.process_time())]),
            ]
            self._gauged = (time.monotonic(), gauges)
        return self._node.metrics.text([*gauges, *self._more_gauges()])


def _method(answer: Callable[[Mapping[str, Any]], Awaitable[object]]) -> Callable[..., Awaitable[Any]]:
    """A method that takes and gives documents."""

    async def handle(_call: Call, request: control_pb2.ControlRequest) -> control_pb2.ControlResponse:
        try:
            document = json.loads(request.document or "{}")
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(f"the document is not JSON: {str(error)[:200]}") from None
        if not isinstance(document, dict):
            raise InvalidArgument("the document is not an object")
        return control_pb2.ControlResponse(document=json.dumps(await answer(document)))

    return handle
