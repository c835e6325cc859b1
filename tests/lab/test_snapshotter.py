"""Our snapshotter under real containerds of 1.7 and 2.x, on the store of files: containerd's own checks, containers, sharing, being killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lab import configuration, images
from lab.native import Native
from lab_support import archives
from lab_support.processes import Process, kill_and_wait, processes
from lab_support.waiting import PATIENCE, until
from lab_support.world import HELLO, LONG, RUNTIME, World
from unikeel.containerd.client import Containerd
from unikeel.errors import NotFound, Unavailable
from unikeel.snapshots.contract import Info, Kind, Mount
from unikeel.testing.containerd_suite import KEPT, ContainerdSuite, Snapshotter
from unikeel.testing.remote_snapshots import RemoteSnapshots
from unikeel.testing.snapshot_suite import read_content, write_content

_OURS = "unikeel"
_RUNC = "io.containerd.runc.v2"
_STATE = "/var/lib/unikeel"
_SECOND = "/run/second.sock"
_CONFIG = f'root = "{_STATE}"\nrun_root = "/run/unikeel"\n[snapshotter]\nsockets = "containerd second"\nempty_size = "256MiB"\n'
_SECOND_CONFIG = f"""\
version = 2
root = "/var/lib/containerd/second"
state = "/run/second"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.nri.v1.nri",
  "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "{_SECOND}"
[ttrpc]
  address = "{_SECOND}.ttrpc"
[proxy_plugins.{_OURS}]
  type = "snapshot"
  address = "/run/unikeel/snapshots/second.sock"
"""
_number = iter(range(1, 1 << 20))


@pytest.fixture(scope="module", params=["trixie", "sid"])
def lab(request: pytest.FixtureRequest) -> Iterator[Native]:
    """A containerd whose default snapshotter is ours, with a daemon that serves only that."""
    with Native(request.param, containerd=False) as native:
        native.put("/etc/unikeel/config.toml", _CONFIG.encode())
        native.start_containerd(_OURS)
        native.import_image(images.archive("busybox"))
        yield native


class _Inside(RemoteSnapshots):
    """Snapshots of a containerd in a lab; what it calls a file is told by the name that the host has for it."""

    def __init__(self, lab: Native, namespace: str, socket: str = configuration.SOCKET) -> None:
        super().__init__(lab.path(socket), _OURS, namespace)
        self._real = os.path.join(lab.scratch, "real")

    def _told(self, mounts: list[Mount]) -> list[Mount]:
        assert all(mount.source.startswith(f"{_STATE}/snapshots/") for mount in mounts)
        return [mount._replace(source=self._real + mount.source) for mount in mounts]

    def prepare(self, key: str, parent: str, labels: Mapping[str, str] | None = None) -> list[Mount]:
        return self._told(super().prepare(key, parent, labels))

    def view(self, key: str, parent: str, labels: Mapping[str, str] | None = None) -> list[Mount]:
        return self._told(super().view(key, parent, labels))

    def mounts(self, key: str) -> list[Mount]:
        return self._told(super().mounts(key))


class TestSuiteThroughContainerd(ContainerdSuite):
    """containerd's 21 checks, each in a namespace of its own."""

    layers = 128 if LONG else 24

    @pytest.fixture(autouse=True)
    def _lab(self, lab: Native) -> None:
        self.lab = lab

    def open_snapshotter(self, directory: str) -> Snapshotter:  # noqa: ARG002 - it is a namespace of containerd
        return _Inside(self.lab, f"suite-{next(_number)}")


# --- containers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", [_RUNC, RUNTIME])
def test_an_ordinary_container(lab: Native, runtime: str) -> None:
    """What it writes stays with it, and is what a diff tells."""
    script = "echo written > /root/file; rm /etc/group; exit 7"
    name = f"ordinary-{runtime.split('.')[2]}"
    words = ["run", "--snapshotter", _OURS, "--runtime", runtime, images.BUSYBOX, name, "sh", "-c", script]
    assert lab.ctr(*words, check=False).returncode == 7
    diff = f"/tmp/{name}.tar"
    lab.run(["sh", "-ec", f"ctr snapshots --snapshotter {_OURS} diff {name} > {diff}"])
    listed = lab.run(["tar", "-tf", diff]).stdout.split()
    assert {"etc/.wh.group", "root/file"} <= set(listed)
    assert "bin/busybox" not in listed
    lab.ctr("containers", "rm", name)


def test_a_unikernel_with_its_snapshot_as_disk(lab: Native, tmp_path: Path) -> None:
    """Its boot files come from the image's snapshot, its disk is its own."""
    lab.import_image(archives.write(archives.guest(HELLO, values=archives.DISK), str(tmp_path / "hello.tar")))
    words = ["run", "--rm", "--snapshotter", _OURS, "--runtime", RUNTIME, HELLO, "guest", "exit=5"]
    done = lab.ctr(*words, check=False, timeout=PATIENCE)
    assert done.returncode == 5, done.stderr
    assert ", ext4" in done.stdout
    assert lab.run(["unikeel", "boot", "ls", "--json"]).stdout.count("unikeel") > 0


def test_push_and_pull(lab: Native) -> None:
    """Pulled into ours by containerd's own client (2.x: by its transfer service), after all that was there has been collected."""
    registry = lab.spawn(["python3", "/unikeel/tests/lab_support/registry.py", "5000"], "/var/log/registry.log")
    name = "127.0.0.1:5000/busybox:1"
    lab.import_image(images.archive("busybox"), namespace="pulled")
    lab.ctr("images", "tag", images.BUSYBOX, name, namespace="pulled")

    def pushed() -> bool:
        done = lab.ctr("images", "push", "--plain-http", name, check=False, namespace="pulled", timeout=PATIENCE)
        return done.returncode == 0

    until(pushed, "it is pushed")
    lab.ctr("images", "rm", "--sync", name, images.BUSYBOX, namespace="pulled")
    assert _all(lab, "pulled") == []
    lab.ctr("images", "pull", "--plain-http", "--snapshotter", _OURS, name, namespace="pulled", timeout=PATIENCE)
    words = ["run", "--rm", "--snapshotter", _OURS, "--runtime", _RUNC, name, "pulled", "sh", "-c", "exit 7"]
    assert lab.ctr(*words, check=False, namespace="pulled").returncode == 7
    lab.run(["kill", str(registry)])


def test_pods(lab: Native, tmp_path: Path) -> None:
    """CRI with ours as the snapshotter of all handlers: an ordinary container and a unikernel in one pod."""
    world = World(lab, _OURS, str(tmp_path))
    lab.import_image(images.archive("busybox"), namespace="k8s.io")
    lab.import_image(
        archives.write(archives.guest(HELLO, values=archives.DISK), str(tmp_path / "hello.tar")), namespace="k8s.io"
    )
    with world.cri.pod("ours", handler="unikeel", logs="/var/log/pods") as pod:
        sidecar = pod.run("sidecar", images.BUSYBOX, args=("sh", "-c", "echo x > /x && exit 3"))
        guest = pod.run("guest", HELLO, args=("exit=6",))
        assert world.cri.ended(sidecar).exit_code == 3
        assert world.cri.ended(guest).exit_code == 6
    kinds = [info.kind for info in _all(lab, "k8s.io")]
    assert Kind.ACTIVE not in kinds
    assert Kind.COMMITTED in kinds


def _all(lab: Native, namespace: str) -> list[Info]:
    """A namespace's snapshots."""
    with contextlib.closing(_Inside(lab, namespace)) as client:
        return list(client.list())


# --- sharing ------------------------------------------------------------------------------------------------------------------


def test_sharing_through_ten_collections(lab: Native, tmp_path: Path) -> None:
    """The engine and two containerds have their snapshots in one store; each collector removes what its containerd does not know, and nothing else."""
    lab.put("/etc/containerd/second.toml", _SECOND_CONFIG.encode())
    second = lab.spawn(["containerd", "--config", "/etc/containerd/second.toml"], "/var/log/second.log")
    until(lambda: lab.run(["ctr", "--address", _SECOND, "version"], check=False).returncode == 0, "the second answers")
    hello = lab.take(archives.write(archives.guest(HELLO), str(tmp_path / "hello.tar")))
    lab.run(["unikeel", "image", "load", hello])
    lab.run(["unikeel", "create", "--name", "engine", HELLO, "exit=4"])
    sides = [_Side(lab, configuration.SOCKET, "containerd"), _Side(lab, _SECOND, "second")]
    try:
        for number in range(10):
            for side in sides:
                side.litter(number)
                side.collect()
                side.check()
        assert lab.run(["unikeel", "start", "--attach", "engine"], check=False, timeout=PATIENCE).returncode == 4
        lab.run(["unikeel", "rm", "engine"])
    finally:
        for side in sides:
            side.close()
        lab.run(["kill", str(second)])


class _Side:
    """One containerd: an image's layers of its own, and containers' snapshots on them."""

    def __init__(self, lab: Native, socket: str, name: str) -> None:
        self._socket = lab.path(socket)
        self._client = _Inside(lab, "sharing", socket)
        self._direct = RemoteSnapshots(lab.path(f"/run/unikeel/snapshots/{name}.sock"), _OURS, "direct")
        self._name = name
        (mount,) = self._client.prepare("making", "", KEPT)
        write_content(mount, name)
        self._client.commit("base", "making", KEPT)
        self._kept = {"base"}
        self.collect()
        self._others = len(list(self._direct.list())) - 1

    def litter(self, number: int) -> None:
        """A container's snapshot that stays, one that is removed, and one that nobody refers to."""
        (mount,) = self._client.prepare(f"kept {number}", "base", KEPT)
        assert read_content(mount.source) == self._name
        self._kept.add(f"kept {number}")
        self._client.view(f"view {number}", "base", KEPT)
        self._client.remove(f"view {number}")
        self._client.prepare(f"litter {number}", "base")

    def collect(self) -> None:
        """Have containerd's collector run to its end."""

        async def once() -> None:
            async with Containerd(self._socket, "sharing") as containerd:
                await containerd.leases.create("collect", timeout=PATIENCE)
                await containerd.leases.delete("collect", sync=True, timeout=PATIENCE)

        asyncio.run(once())

    def check(self) -> None:
        """What must be there is, with its content, and nothing else of this side's."""
        assert {info.name for info in self._client.list()} == self._kept
        until(lambda: len(list(self._direct.list())) == len(self._kept) + self._others, "the store has the same")
        for name in self._kept - {"base"}:
            assert read_content(self._client.mounts(name)[0].source) == self._name

    def close(self) -> None:
        """End the connections."""
        self._client.close()
        self._direct.close()


# --- being killed -------------------------------------------------------------------------------------------------------------


def test_killed_under_calls(lab: Native) -> None:
    """``kill -9`` of the snapshotter: callers are told that it is away, nothing that was answered is lost, and containerd can use or remove every key."""
    with contextlib.closing(_Inside(lab, "killed")) as client:
        (mount,) = client.prepare("making", "", KEPT)
        write_content(mount, "content")
        client.commit("base", "making", KEPT)
        over = threading.Event()
        callers = [_Caller(lab, number, over) for number in range(3)]
        for caller in callers:
            caller.start()
        for _ in range(8 if LONG else 3):
            _await_calls(callers)
            kill_and_wait(until(lambda: _served_by(lab), "a snapshotter lives").pid)
        over.set()
        for caller in callers:
            caller.join(2 * PATIENCE)
            assert not caller.is_alive()
            assert caller.problem is None
        told = {name: kind for caller in callers for name, kind in caller.told.items()}
        until(lambda: _stat(client, "base"), "the snapshotter answers")
        assert {name: client.stat(name).kind for name in told} == told
        for info in list(client.list(["kind!=committed"])):
            assert read_content(client.mounts(info.name)[0].source) == "content"
            client.remove(info.name)
        for info in list(client.list(['name!="base"'])):
            (mount,) = client.view("looking", info.name, KEPT)
            assert read_content(mount.source) == "content"
            client.remove("looking")
            client.remove(info.name)
        # What a lost answer has left to containerd alone is counted as a child, and not listed.
        for name in (name for caller in callers for name in caller.asked):
            with contextlib.suppress(NotFound):
                client.remove(name)
        client.remove("base")


def _await_calls(callers: list[_Caller]) -> None:
    """Wait until each has been answered once more."""
    least = [caller.done + 1 for caller in callers]
    until(lambda: all(c.done >= n for c, n in zip(callers, least, strict=True)), "calls are answered", 2 * PATIENCE)


def _served_by(lab: Native) -> Process | None:
    """The process of the daemon that serves only snapshots."""
    found = [one for one in processes(lab) if one.name == "unikeel-daemon" and one.argv[-1] == "snapshotter"]
    return next((one for one in found if one.state != "Z"), None)


def _stat(client: RemoteSnapshots, name: str) -> bool:
    with contextlib.suppress(Unavailable):
        return client.stat(name).name == name
    return False


class _Caller(threading.Thread):
    """Goes through the life of snapshots again and again; ``told``: what it was told is there, and is; ``asked``: all that it asked for."""

    def __init__(self, lab: Native, number: int, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.told: dict[str, Kind] = {}
        self.asked: list[str] = []
        self.done = 0
        self.problem: BaseException | None = None
        self._number = number
        self._over = over
        self._client = _Inside(lab, "killed")

    def run(self) -> None:
        turn = 0
        try:
            while not self._over.is_set():
                turn += 1
                with contextlib.suppress(Unavailable):
                    self._life(f"{self._number}/{turn}")
                    self.done += 1
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.problem = error
        finally:
            self._client.close()

    def _life(self, name: str) -> None:
        client, view = self._client, f"{name} view"
        self.asked += [name, view]
        client.prepare(name, "base", KEPT)
        self.told[name] = Kind.ACTIVE
        client.view(view, "base", KEPT)
        client.remove(view)
        del self.told[name]
        client.commit(f"{name} committed", name, KEPT)
        self.told[f"{name} committed"] = Kind.COMMITTED
