"""What the launcher asks: where a task's service is, or which program runs an ordinary container; and the clean-up of a task."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from unikeel.containerd.wire import bootstrap_pb2, launcher_pb2, task_pb2
from unikeel.engine.tasks import Place, identify
from unikeel.errors import InvalidArgument, NotFound, Unavailable, UnikeelError
from unikeel.model.names import quote
from unikeel.shim import answers, knative
from unikeel.shim.creating import write_json
from unikeel.shim.desk import Desk
from unikeel.shim.live import TASKS
from unikeel.shim.looking import Looker, options_of
from unikeel.shim.making import Making
from unikeel.shim.server import Call, Method

SERVICE: Final = "unikeel.launcher.v1.Launcher"
ORDINARY: Final = "containerd-shim-runc-v2"
_LONGEST_OUTPUT: Final = 64 << 10
_UNKNOWN_EXIT: Final = 255


class LauncherService:
    """The methods."""

    def __init__(self, desk: Desk, looker: Looker, making: Making) -> None:
        self._desk = desk
        self._node = desk.node
        self._looker = looker
        self._making = making
        self._listening: set[str] = set()

    def services(self) -> dict[str, Mapping[str, Method]]:
        """By the name that the launcher calls."""
        return {
            SERVICE: {
                "Start": Method(launcher_pb2.LaunchRequest, self.start),
                "Delete": Method(launcher_pb2.LaunchRequest, self.delete),
                "Relay": Method(launcher_pb2.RelayRequest, self.relay),
            }
        }

    async def start(self, _call: Call, request: launcher_pb2.LaunchRequest) -> launcher_pb2.LaunchResponse:
        """Where the task's service is, or who else is to run the container."""
        try:
            return await self._start(request)
        except UnikeelError as error:
            return launcher_pb2.LaunchResponse(exit=1, error=str(error))

    async def _start(self, request: launcher_pb2.LaunchRequest) -> launcher_pb2.LaunchResponse:
        _check(request)
        containerd, namespace, ident = request.grpc_address, request.namespace, request.id
        options = options_of(request.input, ident, namespace)
        look = await self._looker.look(containerd, namespace, ident, request.bundle, options)
        if not await self._looker.is_unikernel(look, ident):
            if knative.is_proxy(look.spec):
                await self._node.work(knative.lead, request.bundle)
            return launcher_pb2.LaunchResponse(exec=ordinary(request.args), relay=look.spec.is_pod_sandbox)
        place = Place(containerd, namespace)
        stale = self._desk.registry.find(place, ident)
        if stale is not None:
            await self._node.finish(self._making.discard(stale))
        address = await self._address(place, request.ttrpc_address)
        _write_address(request.bundle, address)  # a few bytes in a file system of memory
        return launcher_pb2.LaunchResponse(output=address.encode())

    async def _address(self, place: Place, ttrpc: str) -> str:
        """The socket of a place, with somebody listening there."""
        node = self._node
        if self._desk.registry.know(place, ttrpc):
            await node.work(node.writer.write, lambda cursor: node.tasks.remember(cursor, place, ttrpc))
        path = node.layout.task_socket(place.short)
        if place.short not in self._listening:  # the keeper, and what it listens at, lives longer than we
            await node.work(node.keeper.listen, f"{TASKS}{place.short}", path)
            self._listening.add(place.short)
        return f"unix://{path}"

    async def delete(self, _call: Call, request: launcher_pb2.LaunchRequest) -> launcher_pb2.LaunchResponse:
        """Take a task away that containerd has given up; one that is not known is no matter."""
        answer = task_pb2.DeleteResponse(exit_status=_UNKNOWN_EXIT, exited_at=answers.timestamp(time.time_ns()))
        live = self._desk.registry.find(Place(request.grpc_address, request.namespace), request.id)
        try:
            if live is not None:
                answer = answers.deleted(await self._node.finish(self._making.discard(live)))
        except UnikeelError as error:
            return launcher_pb2.LaunchResponse(exit=1, error=str(error))
        return launcher_pb2.LaunchResponse(output=answer.SerializeToString())

    async def relay(self, _call: Call, request: launcher_pb2.RelayRequest) -> launcher_pb2.LaunchResponse:
        """A pod's pause container runs in runc's shim: have containerd talk to it by way of us, if it would not ask us for the others else."""
        upstream = upstream_of(request.output)
        if not upstream:
            return launcher_pb2.LaunchResponse(output=request.output)
        path = self._node.layout.relay_socket(identify(request.grpc_address, request.namespace, request.id))
        try:
            await self._node.work(self._relay, path, upstream)
        except UnikeelError as error:
            return launcher_pb2.LaunchResponse(exit=1, error=str(error))
        return launcher_pb2.LaunchResponse(output=f"unix://{path}".encode())

    def _relay(self, path: str, upstream: str) -> None:
        write_json(path.removesuffix(".sock") + ".json", {"upstream": upstream})
        self._node.keeper.relay(path, upstream)
        self.sweep_relays()

    def sweep_relays(self, *, restore: bool = False) -> None:
        """Give up the relays whose shim is gone. :param restore: have the keeper serve the others."""
        directory = os.path.join(self._node.layout.run, "r")
        for name in os.listdir(directory):
            if not name.endswith(".json"):
                continue
            path = os.path.join(directory, name.removesuffix(".json") + ".sock")
            with contextlib.suppress(OSError, ValueError, KeyError, UnikeelError):
                with open(os.path.join(directory, name), "rb") as file:
                    upstream = str(json.load(file)["upstream"])
                if not os.path.exists(upstream):
                    self._node.keeper.unrelay(path)
                    os.unlink(os.path.join(directory, name))
                elif restore:
                    self._node.keeper.relay(path, upstream)


def _check(request: launcher_pb2.LaunchRequest) -> None:
    if not request.id or not request.namespace or not request.grpc_address:
        raise InvalidArgument("containerd gave no -id, -namespace or -address")
    if not request.bundle.startswith("/"):
        raise InvalidArgument(f"the bundle {quote(request.bundle)} is not an absolute path")


def _write_address(bundle: str, address: str) -> None:
    """What containerd up to 1.7 finds its tasks by when it starts again."""
    path = os.path.join(bundle, "address")
    try:
        fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, address.encode())
        finally:
            os.close(fd)
        os.replace(path + ".new", path)
    except OSError as error:
        raise NotFound(f"the bundle {bundle} cannot be written to: {error.strerror}") from None


def ordinary(args: Sequence[str]) -> str:
    """The program that runs ordinary containers: containerd's own shim, from PATH or beside containerd.

    :raise Unavailable: it is nowhere.
    """
    found = shutil.which(ORDINARY)
    if found is None and "-publish-binary" in args[:-1]:
        beside = os.path.join(os.path.dirname(args[list(args).index("-publish-binary") + 1]), ORDINARY)
        found = beside if os.path.isabs(beside) and os.access(beside, os.X_OK) else None
    if found is None:
        raise Unavailable(
            f"this is an ordinary container, and {ORDINARY} is neither in PATH nor beside containerd",
            "install containerd's runc shim",
        )
    return os.path.abspath(found)


def upstream_of(output: bytes) -> str:
    """The path of the socket in a shim's answer, if it announces version 3 over ttrpc; else an empty string: the answer is fine as it is."""
    if len(output) > _LONGEST_OUTPUT:
        return ""
    version, protocol, address = 0, "", ""
    try:
        document = json.loads(output)
        if isinstance(document, dict):
            version, protocol = document.get("version", 0), str(document.get("protocol", ""))
            address = str(document.get("address", ""))
    except (ValueError, RecursionError):
        with contextlib.suppress(DecodeError):
            result = bootstrap_pb2.BootstrapResult.FromString(output)
            version, protocol, address = result.version, result.protocol, result.address
    if version != 3 or protocol != "ttrpc" or not address.startswith("unix:///"):
        return ""
    return address.removeprefix("unix://")
