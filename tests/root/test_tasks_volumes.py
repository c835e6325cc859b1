"""Volumes of tasks: what containerd's configuration mounts reaches a real guest of the default kernel, or is refused, or is told to be left out."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

import installed_kernel
from file_teller import compile_teller
from tasks_world import NAMESPACE, PATIENCE, World, eventually, kill_and_wait, run, shim
from unikeel.containerd.wire import types_pb2
from unikeel.engine.tasks import identify
from unikeel.errors import Unimplemented
from unikeel.sandbox import remains

_ANNOTATIONS = {
    "com.urunc.unikernel.unikernelType": "linux",
    "com.urunc.unikernel.hypervisor": "qemu",
    "com.urunc.unikernel.binary": "none",
    "com.urunc.unikernel.mountRootfs": "true",
    "org.unikeel.kernel": "default",
    "org.unikeel.memory": "128MiB",
}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="uk-") as directory:  # pytest's are too long for the paths of sockets
        made = World(directory)
        with open(made.config, "a", encoding="utf-8") as file:
            file.write(installed_kernel.configuration())
        program = compile_teller(os.path.join(directory, "program"))
        for name in ("/boot", "/etc", "/bin", "/dev", "/proc", "/sys"):
            _debugfs(made.containerd.parent, f"mkdir {name}")
        _debugfs(made.containerd.parent, f"write {program} /bin/files")
        _debugfs(made.containerd.parent, "sif /bin/files mode 0100755")
        made.start()
        yield made
        made.close()


def _debugfs(disk: str, command: str) -> None:
    subprocess.run(["/sbin/debugfs", "-w", "-R", command, disk], check=True, capture_output=True, timeout=PATIENCE)


def _mount(target: str, source: str, *options: str) -> dict[str, object]:
    return {"destination": target, "type": "bind", "source": source, "options": ["rbind", *options]}


@pytest.fixture
def block() -> Iterator[str]:
    """A block device that begins with a text."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"this is raw")
        file.truncate(1 << 20)
        run = subprocess.run(["losetup", "--find", "--show", file.name], check=True, capture_output=True, text=True)
        device = run.stdout.strip()
        yield device
        subprocess.run(["losetup", "--detach", device], check=True)


def test_bind_mounts_and_devices_reach_a_guest_of_the_default_kernel(world: World, block: str) -> None:
    data, hosts, told = (os.path.join(world.directory, name) for name in ("data", "hosts", "told"))
    os.makedirs(data)
    for path in (hosts, f"{data}/one", told):
        with open(path, "w", encoding="utf-8") as file:
            file.write("" if path == told else f"this is {os.path.basename(path)}")
    mounts = [
        _mount("/data", data, "rw"),
        _mount("/fixed", data, "ro"),
        _mount("/etc/hosts", hosts, "rw"),
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/cache", "type": "tmpfs", "source": "tmpfs"},
    ]
    words = (
        "/bin/files",
        "r:/data/one",
        "r:/etc/hosts",
        "w:/data/new",
        "w:/fixed/one",
        "r:/dev/raw-one",
        "w:/dev/raw-one",
    )
    pod = f"/unikeel-test-{os.getpid()}/pod"
    number = os.stat(block).st_rdev
    numbers = {"type": "b", "major": os.major(number), "minor": os.minor(number)}
    linux = {
        "namespaces": [{"type": "network"}],
        "cgroupsPath": f"{pod}/volumes",
        "devices": [{"path": "/dev/raw-one", **numbers}],
        "resources": {"devices": [{"allow": False, "access": "rwm"}, {"allow": True, "access": "rw", **numbers}]},
    }
    server = f"{pod}/unikeel-{identify(world.address, NAMESPACE, 'volumes')}.fs1"

    async def life() -> None:
        bundle = world.bundle("volumes", *words, annotations=_ANNOTATIONS, mounts=mounts, linux=linux)
        async with shim(world, "volumes", bundle) as task:
            await task.create("volumes", bundle, stdout=f"file://{told}")
            assert remains.cgroups(server), "the file server is not beside the monitor"
            with pytest.raises(OSError, match="busy"):
                os.open(block, os.O_RDWR | os.O_EXCL)
            waiting = asyncio.ensure_future(task.wait("volumes"))
            await task.start("volumes")
            assert await waiting == 0
            await eventually(lambda: "w:/fixed/one" in _text(told))
            await task.delete("volumes")

    run(life())
    assert world.settled() == []
    assert remains.cgroups(server) == []
    _remove_pod(pod)
    lines = _text(told).replace("\r", "").splitlines()
    assert set(lines) >= {
        "r:/data/one: this is one",
        "r:/etc/hosts: this is hosts",
        "w:/data/new: ",
        "w:/fixed/one: Read-only file system",
        "r:/dev/raw-one: this is raw",
    }
    with open(block, "rb") as device:
        assert device.read(12) == b"by the guest"
    assert _text(f"{data}/new") == "by the guest"
    assert "the mount of the type tmpfs at /cache is left out" in _text(os.path.join(world.run, "daemon.log"))


def _remove_pod(pod: str) -> None:
    """Take a pod's cgroup away, as its maker does, with the one above it; nothing is in them. The kernel may be busy with the last process's end for a while."""
    remains.remove_cgroups("", pod)
    remains.remove_cgroups("", os.path.dirname(pod))


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["overlay", "bind"])
def test_a_root_of_directories_is_shared(world: World, kind: str) -> None:
    place, told = os.path.join(world.directory, kind), os.path.join(world.directory, f"told-{kind}")
    for name in ("upper", "work", "lower/bin", "lower/dev", "lower/proc", "lower/sys", "lower/etc", "top/etc"):
        os.makedirs(os.path.join(place, name))
    shutil.copy(os.path.join(world.directory, "program"), os.path.join(place, "lower/bin/files"))
    with open(os.path.join(place, "lower/etc/one"), "w", encoding="utf-8") as file:
        file.write("this is one")
    layers = [f"lowerdir={place}/top:{place}/lower", f"upperdir={place}/upper", f"workdir={place}/work"]
    mount = (
        types_pb2.Mount(type="overlay", source="overlay", options=layers)
        if kind == "overlay"
        else types_pb2.Mount(type="bind", source=f"{place}/lower", options=["rbind", "rw"])
    )

    async def life() -> None:
        annotations = {**_ANNOTATIONS, "org.unikeel.rootfs": "shared"}
        bundle = world.bundle(kind, "/bin/files", "r:/etc/one", "w:/etc/new", annotations=annotations)
        world.containerd.disks[kind] = mount
        async with shim(world, kind, bundle) as task:
            await task.create(kind, bundle, stdout=f"file://{told}")
            waiting = asyncio.ensure_future(task.wait(kind))
            await task.start(kind)
            assert await waiting == 0
            await task.delete(kind)

    run(life())
    assert world.settled() == []
    assert {"r:/etc/one: this is one", "w:/etc/new: "} <= set(_text(told).replace("\r", "").splitlines())
    assert _text(os.path.join(place, "upper" if kind == "overlay" else "lower", "etc/new")) == "by the guest"


@pytest.mark.parametrize("ended", [False, True])
def test_user_mode_linux_runs_a_task(world: World, *, ended: bool) -> None:
    """It is started when its guest is to run; its console is its standard input and output; there is nobody to ask."""
    told = os.path.join(world.directory, f"told-{ended}")
    name = f"uml-{ended}".lower()
    annotations = {**_ANNOTATIONS, "com.urunc.unikernel.hypervisor": "uml", "org.unikeel.powerdown": "false"}

    async def life() -> None:
        bundle = world.bundle(name, "/bin/files", "r:/boot/none", *(["wait"] if ended else []), annotations=annotations)
        async with shim(world, name, bundle) as task:
            await task.create(name, bundle, stdout=f"file://{told}")
            waiting = asyncio.ensure_future(task.wait(name))
            await task.start(name)
            if ended:
                await eventually(lambda: "waiting" in _text(told))
                await task.pause(name)
                await task.resume(name)
                world.kill_daemon()
                await task.kill(name)
            assert await waiting == (137 if ended else 0)
            assert await task.delete(name) == (137 if ended else 0)

    run(life())
    assert world.settled() == []
    assert "r:/boot/none: No such file or directory" in _text(told)


def test_what_a_guest_cannot_be_given_is_refused_or_told(world: World) -> None:
    """The sample has no file systems at all."""
    hosts, data = _mount("/etc/hosts", "/etc/hosts"), _mount("/data", world.directory)

    async def life() -> None:
        bundle = world.bundle("refused", "exit=0", mounts=[hosts, data])
        async with shim(world, "refused", bundle) as task:
            with pytest.raises(Unimplemented, match="guest generic on qemu .* cannot be given the volume at /data"):
                await task.create("refused", bundle)
        bundle = world.bundle("told", "exit=0", mounts=[hosts, data], annotations={"org.unikeel.volumes": "optional"})
        async with shim(world, "told", bundle) as task:
            await task.create("told", bundle)
            waiting = asyncio.ensure_future(task.wait("told"))
            await task.start("told")
            assert await waiting == 0
            await task.delete("told")

    run(life())
    assert world.settled() == []
    assert "told: the volume at /data is left out: guest generic" in _text(os.path.join(world.run, "daemon.log"))


@pytest.mark.long
@pytest.mark.parametrize("point", ["share.bundle", "share.started", "share.deleted"])
def test_a_daemon_that_is_killed_over_a_file_server_leaves_nothing_in_the_pod(world: World, point: str) -> None:
    """The next one finds the server's cgroup by the bundle, where the caller wanted it."""
    name, pod = f"killed-{point.partition('.')[2]}", f"/unikeel-test-{os.getpid()}/pod"
    data = os.path.join(world.directory, "served")
    os.makedirs(data, exist_ok=True)
    linux = {"namespaces": [{"type": "network"}], "cgroupsPath": f"{pod}/{name}"}

    async def life() -> None:
        mounts = [_mount("/data", data, "rw")]
        bundle = world.bundle(name, "/bin/files", "wait", annotations=_ANNOTATIONS, mounts=mounts, linux=linux)
        async with shim(world, name, bundle) as task:
            await task.create(name, bundle)
            waiting = asyncio.ensure_future(task.wait(name))
            await task.start(name)
            await task.kill(name)
            await waiting
            await task.delete(name)

    async def killed() -> None:
        living = asyncio.ensure_future(life())
        await eventually(lambda: living.done() or (os.path.exists(told) and os.path.getsize(told)), "it stops")
        await asyncio.to_thread(kill_and_wait, int(_text(told).split()[1]))
        await living

    world.stop()
    told = world.start_stopping_at(point)
    try:
        run(killed())
        assert world.settled() == []
        assert remains.cgroups(f"{pod}/unikeel-{identify(world.address, NAMESPACE, name)}.fs1") == []
        _remove_pod(pod)
    finally:
        world.stop()
        world.start()
