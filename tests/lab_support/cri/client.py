"""The client: plain calls that wait for their answer, each over a connection of its own, so that a containerd which was restarted meanwhile is no matter.

>>> cri = Cri("/proc/4711/root/run/containerd/containerd.sock")        # doctest: +SKIP
>>> with cri.pod("web", handler="unikeel") as pod:                     # doctest: +SKIP
...     ident = pod.run("guest", "lab.test/hello:1", args=("exit=3",))
...     assert cri.ended(ident).exit_code == 3
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple, TypeVar

from google.protobuf.message import Message
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.exceptions import GRPCError

from lab_support.cri import cri_pb2 as api

#: How long one call may take, in seconds: everything is emulated, and the machine may be busy.
PATIENCE: Final = 90
_RUNTIME: Final = "runtime.v1.RuntimeService"
_IMAGES: Final = "runtime.v1.ImageService"

_M = TypeVar("_M", bound=Message)


class CriError(Exception):
    """A call was refused. ``code`` is gRPC's number, the text is containerd's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Line(NamedTuple):
    """One line of a container's log, as the CRI writes it: ``stream`` is stdout or stderr; a line that is not whole ends without a newline."""

    stream: str
    whole: bool
    text: str


class Cri:
    """A CRI endpoint."""

    def __init__(self, path: str, *, patience: float = PATIENCE) -> None:
        """:param path: of containerd's gRPC socket, as this process sees it."""
        self._path = path
        self._patience = patience

    def call(self, method: str, request: Message, answer: type[_M], *, service: str = _RUNTIME) -> _M:
        """Call one method. :raise CriError: it is refused. :raise TimeoutError: no answer."""

        async def ask() -> _M:
            channel = Channel(path=self._path)
            try:
                bound = UnaryUnaryMethod(channel, f"/{service}/{method}", type(request), answer)
                async with asyncio.timeout(self._patience):
                    return await bound(request)
            finally:
                channel.close()

        try:
            return asyncio.run(ask())
        except GRPCError as error:
            raise CriError(error.status.value, error.message or "") from error

    def conditions(self) -> dict[str, bool]:
        """What the plugin says of its own readiness."""
        status = self.call("Status", api.StatusRequest(), api.StatusResponse)
        return {condition.type: condition.status for condition in status.status.conditions}

    @contextmanager
    def pod(
        self, name: str, *, handler: str, logs: str = "", annotations: Mapping[str, str] | None = None
    ) -> Iterator[Pod]:
        """A pod; at the end it is stopped and removed with its containers.

        :param logs: the directory of its containers' logs, as containerd sees it.
        """
        pod = Pod(self, pod_config(name, logs=logs, annotations=annotations or {}), handler)
        try:
            yield pod
        finally:
            pod.remove()

    def status(self, container: str) -> api.ContainerStatus:
        """A container's status."""
        return self.call(
            "ContainerStatus", api.ContainerRequest(container_id=container), api.ContainerStatusResponse
        ).status

    def ended(self, container: str, patience: float = PATIENCE) -> api.ContainerStatus:
        """The status of a container once it has ended."""
        deadline = time.monotonic() + patience
        while (status := self.status(container)).state != api.CONTAINER_EXITED:
            if time.monotonic() > deadline:
                raise AssertionError(f"container {container} has not ended after {patience:g} s: {status}")
            time.sleep(0.05)
        return status

    def start(self, container: str) -> None:
        """Start a container."""
        self.call("StartContainer", api.ContainerRequest(container_id=container), api.Nothing)

    def stop(self, container: str, timeout: int = 5) -> None:
        """Stop a container: its stop signal, then SIGKILL."""
        self.call("StopContainer", api.StopContainerRequest(container_id=container, timeout=timeout), api.Nothing)

    def remove(self, container: str) -> None:
        """Remove a container."""
        self.call("RemoveContainer", api.ContainerRequest(container_id=container), api.Nothing)

    def exec(self, container: str, *command: str, timeout: int = 30) -> api.ExecSyncResponse:
        """Run a command in a container to its end."""
        return self.call(
            "ExecSync", api.ExecSyncRequest(container_id=container, cmd=command, timeout=timeout), api.ExecSyncResponse
        )

    def update(self, container: str, **resources: int) -> None:
        """Change a container's resources; the names are those of ``LinuxContainerResources``."""
        linux = api.LinuxContainerResources(**resources)
        request = api.UpdateContainerResourcesRequest(container_id=container, linux=linux)
        self.call("UpdateContainerResources", request, api.Nothing)

    def stats(self, container: str) -> api.ContainerStats:
        """A container's use of resources."""
        return self.call(
            "ContainerStats", api.ContainerRequest(container_id=container), api.ContainerStatsResponse
        ).stats

    def all_stats(self) -> dict[str, api.ContainerStats]:
        """The same of all of them, by id."""
        found = self.call("ListContainerStats", api.Nothing(), api.ListContainerStatsResponse)
        return {stats.attributes.id: stats for stats in found.stats}

    def containers(self) -> dict[str, int]:
        """The state of every container, by id."""
        found = self.call("ListContainers", api.Nothing(), api.ListContainersResponse)
        return {container.id: container.state for container in found.containers}

    def pods(self) -> dict[str, int]:
        """The state of every pod, by id."""
        found = self.call("ListPodSandbox", api.Nothing(), api.ListPodSandboxResponse)
        return {pod.id: pod.state for pod in found.items}

    def images(self) -> list[str]:
        """The names of all images."""
        found = self.call("ListImages", api.Nothing(), api.ListImagesResponse, service=_IMAGES)
        return [tag for image in found.images for tag in image.repo_tags]


class Pod:
    """A pod that runs. Its containers are removed with it."""

    def __init__(self, cri: Cri, config: api.PodSandboxConfig, handler: str) -> None:
        self.cri = cri
        self.config = config
        request = api.RunPodSandboxRequest(config=config, runtime_handler=handler)
        self.id = cri.call("RunPodSandbox", request, api.RunPodSandboxResponse).pod_sandbox_id

    def create(
        self,
        name: str,
        image: str,
        *,
        command: Sequence[str] = (),
        args: Sequence[str] = (),
        annotations: Mapping[str, str] | None = None,
        tty: bool = False,
        stdin: bool = False,
        memory: int = 0,
    ) -> str:
        """Create a container; its id. Its log is NAME.log in the pod's directory of logs. :param memory: its limit in bytes."""
        config = api.ContainerConfig(
            metadata=api.ContainerMetadata(name=name),
            image=api.ImageSpec(image=image),
            command=command,
            args=args,
            annotations=annotations or {},
            log_path=f"{name}.log" if self.config.log_directory else "",
            tty=tty,
            stdin=stdin,
        )
        if memory:
            config.linux.resources.memory_limit_in_bytes = memory
        request = api.CreateContainerRequest(pod_sandbox_id=self.id, config=config, sandbox_config=self.config)
        return self.cri.call("CreateContainer", request, api.CreateContainerResponse).container_id

    def run(
        self, name: str, image: str, *, args: Sequence[str] = (), annotations: Mapping[str, str] | None = None
    ) -> str:
        """Create and start a container; its id."""
        container = self.create(name, image, args=args, annotations=annotations)
        self.cri.start(container)
        return container

    @property
    def state(self) -> int:
        """``api.SANDBOX_READY`` or ``api.SANDBOX_NOTREADY``."""
        request = api.PodSandboxRequest(pod_sandbox_id=self.id)
        return self.cri.call("PodSandboxStatus", request, api.PodSandboxStatusResponse).status.state

    def stop(self) -> None:
        """Stop all containers and the pod; may be called again."""
        self.cri.call("StopPodSandbox", api.PodSandboxRequest(pod_sandbox_id=self.id), api.Nothing)

    def remove(self) -> None:
        """Stop and remove it with its containers; may be called again."""
        self.stop()
        self.cri.call("RemovePodSandbox", api.PodSandboxRequest(pod_sandbox_id=self.id), api.Nothing)

    def log_of(self, name: str) -> str:
        """The path of a container's log."""
        return os.path.join(self.config.log_directory, f"{name}.log")


def pod_config(name: str, *, logs: str, annotations: Mapping[str, str]) -> api.PodSandboxConfig:
    """A pod's configuration, in a namespace of its own name's making."""
    metadata = api.PodSandboxMetadata(name=name, uid=uuid.uuid4().hex, namespace="lab")
    return api.PodSandboxConfig(metadata=metadata, hostname=name, log_directory=logs, annotations=annotations)


def parse_log(data: bytes) -> list[Line]:
    """The lines of a log in the CRI's format: ``TIME STREAM TAG TEXT``, where the tag F ends a line and P does not."""
    found = []
    for line in data.decode().splitlines():
        _, stream, tag, text = line.split(" ", 3)
        found.append(Line(stream, tag == "F", text))
    return found


def text_of(lines: Sequence[Line], stream: str = "stdout") -> str:
    """What one stream's lines say, put together."""
    return "".join(line.text + ("\n" if line.whole else "") for line in lines if line.stream == stream)
