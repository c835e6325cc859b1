"""A world for the task service without containerd: a real keeper with a real daemon, monitors and sandboxes, and a containerd in memory.

The containerd's one image is the sample ``hello``; its snapshotter gives files with an ext4, as blockfile does. What the daemon tells it, it writes down.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeVar

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from grpclib.const import Cardinality

from containerd_fake import Fake
from engine_leftovers import host_leftovers
from lab_support import archives
from unikeel import config as configuration
from unikeel.containerd.wire import (
    containers_pb2,
    forward_pb2,
    images_pb2,
    introspection_pb2,
    launcher_pb2,
    snapshots_pb2,
    task_pb2,
    types_pb2,
)
from unikeel.daemon import starting
from unikeel.engine.tasks import identify
from unikeel.keeper.client import KeeperClient, KeeperSettings
from unikeel.records.database import Database
from unikeel.shim.client import Client
from unikeel.shim.server import Call, Method, Server, serve

LONG: Final = os.environ.get("UNIKEEL_LONG") == "1"
PATIENCE: Final = 60
NAMESPACE: Final = "default"
SERVICE: Final = "containerd.task.v3.Task"
_EVENTS: Final = "containerd.services.events.ttrpc.v1.Events"
_LAUNCHER: Final = "unikeel.launcher.v1.Launcher"
_SNAPSHOTTER: Final = "files"
_IMAGE: Final = "lab.test/hello:1"
_FAILPOINT: Final = ("UNIKEEL_FAILPOINT", "UNIKEEL_FAILPOINT_FILE", "UNIKEEL_FAILPOINT_TRACE")
_CONFIG: Final = """\
root = "{root}"
run_root = "{root}/run"
[boot]
view_linger = 0
[daemon]
workers = 4
"""

M = TypeVar("M", bound=Message)
T = TypeVar("T")


class Containerd(Fake):
    """The containerd: one image, whose committed snapshot is a file, and a snapshot of its own for each container."""

    def __init__(self, parent: str) -> None:
        super().__init__()
        self.parent = parent
        self.disks: dict[str, types_pb2.Mount] = {}
        self.told: list[types_pb2.Envelope] = []
        self._add(
            "containerd.services.introspection.v1.Introspection/Plugins",
            Cardinality.UNARY_UNARY,
            introspection_pb2.PluginsRequest,
            introspection_pb2.PluginsResponse,
            self._unary("containerd.services.introspection.v1.Introspection/Plugins"),
        )
        layer = f"sha256:{hashlib.sha256(b'layer').hexdigest()}"
        config = self._blob(
            {"rootfs": {"type": "layers", "diff_ids": [layer]}, "config": {}, "architecture": "amd64", "os": "linux"}
        )
        manifest = self._blob({"schemaVersion": 2, "config": config, "layers": []})
        target = types_pb2.Descriptor(
            media_type=manifest["mediaType"], digest=manifest["digest"], size=manifest["size"]
        )
        self.images[_IMAGE] = images_pb2.Image(name=_IMAGE, target=target)
        self.chain = layer
        committed = snapshots_pb2.Info(name=layer, kind=snapshots_pb2.COMMITTED)
        committed.created_at.seconds = 1700000000
        self.snapshots[_SNAPSHOTTER, layer] = committed

    def _blob(self, document: Mapping[str, object]) -> dict[str, Any]:
        data = json.dumps(document).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        self.labels[digest] = {}
        kind = "manifest" if "layers" in document else "config"
        return {"mediaType": f"application/vnd.oci.image.{kind}.v1+json", "digest": digest, "size": len(data)}

    def introspection_plugins(self, _: Any) -> Message:
        return introspection_pb2.PluginsResponse()

    def snapshots_view(self, request: Any) -> Message:
        self._new(request, snapshots_pb2.VIEW)
        mount = types_pb2.Mount(type="ext4", source=self.parent, options=["ro", "loop"])
        return snapshots_pb2.ViewSnapshotResponse(mounts=[mount])

    def snapshots_mounts(self, request: Any) -> Message:
        self._snapshot(request)
        view = types_pb2.Mount(type="ext4", source=self.parent, options=["ro", "loop"])
        return snapshots_pb2.MountsResponse(mounts=[self.disks.get(request.key, view)])

    def container(self, ident: str, disk: str) -> None:
        """Have a container of the image, whose snapshot is a file."""
        self.disks[ident] = types_pb2.Mount(type="ext4", source=disk, options=["rw", "loop"])
        info = snapshots_pb2.Info(name=ident, parent=self.chain, kind=snapshots_pb2.ACTIVE)
        self.snapshots[_SNAPSHOTTER, ident] = info
        self.containers[ident] = containers_pb2.Container(
            id=ident, image=_IMAGE, snapshotter=_SNAPSHOTTER, snapshot_key=ident
        )

    def views(self) -> list[str]:
        """The views that there are."""
        return [name for (_, name), info in self.snapshots.items() if info.kind == snapshots_pb2.VIEW]

    async def forward(self, _call: Call, request: forward_pb2.ForwardRequest) -> Empty:
        """An event."""
        self.told.append(request.envelope)
        return Empty()


class World:
    """A state root, its containerd, and the keeper with the daemon, once :meth:`start` was called."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.root = os.path.join(directory, "root")
        self.run = os.path.join(self.root, "run", "daemon")
        self.config = os.path.join(directory, "config.toml")
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(_CONFIG.format(root=self.root))
        self.address = os.path.join(directory, "containerd.sock")
        self.events = self.address + ".ttrpc"
        self.idents: list[str] = []
        parent = os.path.join(directory, "parent.ext4")
        _make_disk(directory, parent)
        self.containerd = Containerd(parent)
        self._loop = asyncio.new_event_loop()
        self._over: asyncio.Event
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(PATIENCE)

    def _serve(self, ready: threading.Event) -> None:
        async def serving() -> None:
            self._over = asyncio.Event()
            methods = {"Forward": Method(forward_pb2.ForwardRequest, self.containerd.forward)}
            events = await serve(Server({_EVENTS: methods}), self.events)
            async with self.containerd.serving(self.address):
                ready.set()
                await self._over.wait()
            events.close()

        self._loop.run_until_complete(serving())
        self._loop.close()

    def close(self) -> None:
        """End everything."""
        self.stop()
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(PATIENCE)

    # -- keeper and daemon -----------------------------------------------------------------------------------------------

    def start(self, **environment: str) -> None:
        """Start a keeper with a daemon, and wait until it serves."""
        with _environment({"UNIKEEL_CONFIG": self.config, **environment}):
            loaded = configuration.load(self.config, {})
            starting.detach(starting.Wanted(self.root, loaded, self.config), PATIENCE)

    def start_stopping_at(self, point: str) -> str:
        """The same, with a daemon that stops at a point; the file that then tells its process number. It may stop before it serves."""
        told = os.path.join(self.directory, "stopped")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(told)
        self.start(UNIKEEL_FAILPOINT=point, UNIKEEL_FAILPOINT_FILE=told)
        return told

    def hello(self) -> Mapping[str, Any]:
        """What the keeper tells of itself; nothing: there is none."""
        client = KeeperClient(KeeperSettings(self.run, starts=False))
        try:
            return client.connection().call({"op": "hello"}) if client.lives() else {}
        finally:
            client.close()

    def kill_daemon(self) -> None:
        """``kill -9`` of the daemon, and wait for the next one to serve."""
        before = self.hello()
        kill_and_wait(int(before["daemon"]))
        self.await_daemon(int(before["daemon"]))

    def await_daemon(self, other_than: int = 0) -> None:
        """Wait for a daemon to serve."""
        until(lambda: self.hello().get("ready") and self.hello().get("daemon") not in (0, other_than))

    def kill_keeper(self) -> None:
        """``kill -9`` of the keeper; the daemon ends by itself."""
        found = self.hello()
        daemon = os.pidfd_open(int(found["daemon"]))
        kill_and_wait(int(found["pid"]))
        assert wait_fd(daemon)

    def stop(self) -> None:
        """End keeper and daemon in order."""
        found = self.hello()
        if found:
            with contextlib.suppress(ProcessLookupError):
                fd = os.pidfd_open(int(found["pid"]))
                os.kill(int(found["pid"]), signal.SIGTERM)
                assert wait_fd(fd)

    # -- containers ------------------------------------------------------------------------------------------------------

    def bundle(self, ident: str, *args: str, annotations: Mapping[str, str] | None = None, **spec: object) -> str:
        """A container with its bundle and its disk; the bundle."""
        self.idents.append(identify(self.address, NAMESPACE, ident))
        bundle = os.path.join(self.directory, "bundles", ident)
        os.makedirs(bundle)
        self.containerd.container(ident, os.path.join(bundle, "disk"))
        document = {
            "ociVersion": "1.0.2",
            "annotations": {**archives.DISK, "org.unikeel.memory": "64MiB", **(annotations or {})},
            "process": {"args": list(args)},
            "linux": {"namespaces": [{"type": "network"}]},
            **spec,
        }
        with open(os.path.join(bundle, "config.json"), "w", encoding="utf-8") as file:
            json.dump(document, file)
        shutil.copyfile(self.containerd.parent, os.path.join(bundle, "disk"))
        return bundle

    def monitor(self, ident: str) -> int:
        """The monitor's process; 0: there is none."""
        name = f"guest={ident}"
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().decode(errors="replace").split("\0")
                if any(word == name or word.startswith(name + ",") for word in words) and "qemu" in words[0]:
                    return int(pid)
        return 0

    def has_directory(self, ident: str) -> bool:
        """Whether the making of a task has begun."""
        return os.path.isdir(os.path.join(self.run, "tasks", identify(self.address, NAMESPACE, ident)))

    def topics(self, ident: str) -> list[str]:
        """The events of a container so far, by the last word of their topics."""
        told = [envelope for envelope in list(self.containerd.told) if ident.encode() in envelope.event.value]
        return [envelope.topic.rpartition("/")[2] for envelope in told]

    def leftovers(self) -> list[str]:
        """What is there of tasks: nothing, after all of them were deleted."""
        found = [
            item
            for item in host_leftovers(self.root, self.idents)
            if "unikeel.daemon" not in item and "unikeel.keeper" not in item
        ]
        found += [f"directory {name}" for name in os.listdir(os.path.join(self.run, "tasks"))]
        oci = os.path.join(self.run, "oci")
        found += [f"sandbox {name}" for name in os.listdir(oci)] if os.path.isdir(oci) else []
        found += [f"view {name}" for name in self.containerd.views()]
        database = Database(os.path.join(self.root, "state.db"))
        try:
            for table in ("tasks", "boot_users", "boot_views", "intents", "outbox"):
                with contextlib.suppress(Exception):
                    found += [f"{table}: {row}" for row in database.query(f"SELECT * FROM {table}")]
        finally:
            database.close()
        return found

    def settled(self, seconds: float = 10) -> list[str]:
        """The same, once nothing is left or a while has passed."""
        end = time.monotonic() + seconds
        while (left := self.leftovers()) and time.monotonic() < end:
            time.sleep(0.1)
        return left


class Shim:
    """What a containerd does with the tasks of a world: over one connection, as one containerd has for each."""

    def __init__(self, world: World, client: Client) -> None:
        self.world = world
        self.client = client

    async def ask(self, method: str, request: Message, answer: type[M], *, timeout: float = PATIENCE) -> M:  # noqa: ASYNC109
        """One call. :raise unikeel.errors.UnikeelError: it is refused."""
        return await self.client.call(SERVICE, method, request, answer, timeout=timeout)

    async def create(
        self, ident: str, bundle: str, *, terminal: bool = False, stdin: str = "", stdout: str = "", stderr: str = ""
    ) -> int:
        """Create; the process number."""
        disk = self.world.containerd.disks[ident]
        request = task_pb2.CreateTaskRequest(
            id=ident, bundle=bundle, rootfs=[disk], terminal=terminal, stdin=stdin, stdout=stdout, stderr=stderr
        )
        return (await self.ask("Create", request, task_pb2.CreateTaskResponse)).pid

    async def start(self, ident: str) -> int:
        """Start; the process number."""
        return (await self.ask("Start", task_pb2.StartRequest(id=ident), task_pb2.StartResponse)).pid

    async def state(self, ident: str) -> task_pb2.StateResponse:
        """State."""
        return await self.ask("State", task_pb2.StateRequest(id=ident), task_pb2.StateResponse)

    async def kill(self, ident: str, number: int = signal.SIGKILL) -> None:
        """Kill."""
        await self.ask("Kill", task_pb2.KillRequest(id=ident, signal=number, all=True), Empty)

    async def wait(self, ident: str) -> int:
        """Wait; the exit code."""
        return (await self.ask("Wait", task_pb2.WaitRequest(id=ident), task_pb2.WaitResponse)).exit_status

    async def delete(self, ident: str) -> int:
        """Delete; the exit code."""
        return (await self.ask("Delete", task_pb2.DeleteRequest(id=ident), task_pb2.DeleteResponse)).exit_status

    async def pause(self, ident: str) -> None:
        """Pause."""
        await self.ask("Pause", task_pb2.PauseRequest(id=ident), Empty)

    async def resume(self, ident: str) -> None:
        """Resume."""
        await self.ask("Resume", task_pb2.ResumeRequest(id=ident), Empty)


async def launch(world: World, ident: str, bundle: str, method: str = "Start") -> launcher_pb2.LaunchResponse:
    """What the launcher asks."""
    request = launcher_pb2.LaunchRequest(
        args=["-namespace", NAMESPACE, "-id", ident, method.lower()],
        cwd=bundle,
        ttrpc_address=world.events,
        grpc_address=world.address,
        namespace=NAMESPACE,
        id=ident,
        bundle=bundle,
        max_version=3,
    )
    async with await Client.connect(os.path.join(world.run, "launch.sock")) as client:
        return await client.call(_LAUNCHER, method, request, launcher_pb2.LaunchResponse, timeout=PATIENCE)


@asynccontextmanager
async def shim(world: World, ident: str, bundle: str) -> AsyncIterator[Shim]:
    """Begin with a container, as containerd does: the launcher's question, then a connection."""
    answer = await launch(world, ident, bundle)
    assert (answer.exit, answer.exec) == (0, ""), answer.error
    async with await Client.connect(answer.output.decode().removeprefix("unix://")) as client:
        yield Shim(world, client)


def run(coroutine: Coroutine[Any, Any, T], seconds: float = PATIENCE) -> T:
    """Run a test's coroutine, within a time."""

    async def limited() -> T:
        async with asyncio.timeout(seconds):
            return await coroutine

    return asyncio.run(limited())


async def eventually(look: Any, what: str = "", seconds: float = PATIENCE) -> Any:
    """Look again and again until it is true."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"not in {seconds} s: {what}, {found}"
        await asyncio.sleep(0.02)
    return found


def until(look: Any, seconds: float = PATIENCE) -> None:
    """The same, in a thread's time."""
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end, f"not in {seconds} s"
        time.sleep(0.02)


def wait_fd(pidfd: int) -> bool:
    """Wait for the end of a process, whose descriptor is closed then."""
    import select

    try:
        return bool(select.select([pidfd], [], [], PATIENCE)[0])
    finally:
        os.close(pidfd)


def kill_and_wait(pid: int) -> None:
    """``kill -9``, and wait until it is gone."""
    fd = os.pidfd_open(pid)
    signal.pidfd_send_signal(fd, signal.SIGKILL)
    assert wait_fd(fd)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Other variables for what is started meanwhile."""
    names = {*values, *_FAILPOINT}
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ.update(values)
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


def _make_disk(directory: str, path: str) -> None:
    """A file system with the files of the image."""
    with tempfile.TemporaryDirectory(dir=directory) as tree:
        os.makedirs(os.path.join(tree, "boot"))
        with open(tree + archives.KERNEL, "wb") as file:
            file.write(archives.kernel())
        with open(path, "wb") as file:
            file.truncate(16 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-d", tree, path], check=True, timeout=PATIENCE)


def names_of(items: Sequence[str]) -> list[str]:
    """Each once, in order."""
    return list(dict.fromkeys(items))
