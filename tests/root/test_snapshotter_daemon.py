"""``unikeel snapshotter`` as a process: killed under calls, a second one beside it, another daemon beside it."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unikeel.errors import AlreadyExists, NotFound, Unavailable
from unikeel.snapshots.contract import Kind
from unikeel.testing.remote_snapshots import RemoteSnapshots
from unikeel.testing.snapshot_suite import read_content, write_content

_PATIENCE = 120.0
_KILLS = 12 if os.environ.get("UNIKEEL_LONG") == "1" else 4


class Place:
    """A state root, and ``unikeel`` in it."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.root = os.path.join(directory, "root")

    def unikeel(
        self, *words: str, run: str = "run", sockets: str = "containerd", store: str = "file"
    ) -> subprocess.CompletedProcess[str]:
        """The command, with a configuration of its own."""
        path = os.path.join(self.directory, f"{run}.toml")
        text = f'root = "{self.root}"\nrun_root = "{self.directory}/{run}"\n'
        Path(path).write_text(f'{text}[snapshotter]\nstore = "{store}"\nsockets = "{sockets}"\nempty_size = "64MiB"\n')
        code = "import sys; from unikeel.cli.main import entry; sys.exit(entry())"
        argv = [sys.executable, "-c", code, "--config", path, *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=_PATIENCE, check=False)

    def client(self, name: str = "containerd") -> RemoteSnapshots:
        """A client at a socket."""
        return RemoteSnapshots(f"{self.directory}/run/snapshots/{name}.sock", "unikeel", "default")

    def kill(self) -> None:
        """``kill -9`` of the daemon that serves now, and wait for its end."""
        end = time.monotonic() + _PATIENCE
        while True:
            with contextlib.suppress(OSError, ValueError):
                with open(f"{self.directory}/run/snapshotter/daemon.json", encoding="ascii") as file:
                    pidfd = os.pidfd_open(json.load(file)["pid"])
                break
            assert time.monotonic() < end, "no daemon comes"
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert select.select([pidfd], [], [], _PATIENCE)[0]
        os.close(pidfd)

    def stop(self, run: str, kind: str) -> None:
        """End a keeper in order, with its daemon."""
        from unikeel.keeper.client import KeeperClient, KeeperSettings

        client = KeeperClient(KeeperSettings(f"{self.directory}/{run}/{kind}", starts=False))
        with contextlib.suppress(Unavailable):
            pid = client.ask({"op": "hello"})["pid"]
            assert isinstance(pid, int)
            pidfd = os.pidfd_open(pid)
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            assert select.select([pidfd], [], [], _PATIENCE)[0]
            os.close(pidfd)
        client.close()


@pytest.fixture
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="uk-") as directory:  # pytest's are too long for the paths of sockets
        made = Place(directory)
        yield made
        for run in os.listdir(directory):
            for kind in ("snapshotter", "daemon"):
                if os.path.exists(f"{directory}/{run}/{kind}/keeper.sock"):
                    made.stop(run, kind)
        subprocess.run(["umount", "--lazy", *glob.glob(f"{directory}/root/pools/*/mounted")], check=False)


def started(place: Place, *words: str, **options: str) -> None:
    """A command that must succeed; one that has waited half a minute for a daemon on a busy machine is called again."""
    done = place.unikeel(*words, **options)
    for _ in range(4):
        if done.returncode == 124:
            done = place.unikeel(*words, **options)
    assert done.returncode == 0, done.stderr


def test_two_sockets_and_a_daemon_beside(place: Place) -> None:
    """Each consumer has names of its own; the other daemon leaves the snapshots to this one; a second such one is refused."""
    started(place, "snapshotter", "--detach", sockets="containerd other")
    done = place.unikeel("daemon", "--only", "snapshotter", "--detach", sockets="containerd other")
    assert (done.returncode, done.stdout) == (0, "the daemon is running already\n"), done.stderr
    first, second = place.client(), place.client("other")
    first.prepare("same", "")
    second.prepare("same", "")
    first.remove("same")
    assert [info.name for info in second.list()] == ["same"]
    refused = place.unikeel("snapshotter", "--detach", run="elsewhere")
    assert refused.returncode == 75
    assert f"the snapshots of {place.root} are served by process" in refused.stderr
    started(place, "daemon", "--detach", run="elsewhere")
    assert not os.path.exists(f"{place.directory}/elsewhere/snapshots/containerd.sock")
    assert second.stat("same").kind is Kind.ACTIVE
    first.close()
    second.close()


def test_the_whole_daemon_serves_them_too(place: Place) -> None:
    started(place, "daemon", "--detach")
    client = place.client()
    client.prepare("key", "")
    assert client.stat("key").kind is Kind.ACTIVE
    client.close()


def test_a_pool_behind_it(place: Place) -> None:
    """Snapshots are in the pool, which is watched, and is not taken away while they are served; after a kill it is there again."""
    started(place, "pool", "create", "fast", "--type", "file", "--size", "320MiB", "--sparse", run="tools")
    started(place, "snapshotter", "--detach", store="fast")
    client = place.client()
    client.prepare("key", "")
    assert client.mounts("key")[0].source.startswith(f"{place.root}/pools/fast/mounted/")
    refused = place.unikeel("pool", "destroy", "fast", run="tools")
    assert (refused.returncode, "in use by a store" in refused.stderr) == (75, True), refused.stderr
    client.close()
    place.kill()
    client = place.client()
    assert client.stat("key").kind is Kind.ACTIVE
    metrics = _metrics(f"{place.directory}/run/snapshotter/metrics.sock")
    assert 'unikeel_pool_size_bytes{pool="fast",room="data"}' in metrics
    client.close()
    place.stop("run", "snapshotter")
    refused = place.unikeel("pool", "destroy", "fast", run="tools")
    assert (refused.returncode, "holds 1 snapshots (key)" in refused.stderr) == (75, True), refused.stderr
    started(place, "pool", "destroy", "fast", "--force", run="tools")


def _metrics(path: str) -> str:
    """What a metrics socket says."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PATIENCE)
        connection.connect(path)
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def test_killed_under_calls(place: Place) -> None:
    """A caller is told that the service is away, or that it has done what was asked; what it was told stays, and every key can be used or removed."""
    started(place, "snapshotter", "--detach")
    client = place.client()
    (mount,) = client.prepare("making", "")
    write_content(mount, "content")
    client.commit("base", "making")
    over = threading.Event()
    callers = [_Caller(place, number, over) for number in range(4)]
    for caller in callers:
        caller.start()
    for kill in range(_KILLS):
        done = [caller.done + 2 for caller in callers]
        _until(lambda done=done: all(caller.done >= least for caller, least in zip(callers, done, strict=True)))  # type: ignore[misc]
        place.kill()
        del kill
    over.set()
    for caller in callers:
        caller.join(_PATIENCE)
        assert not caller.is_alive()
        assert caller.problem is None
    client.close()
    client = place.client()  # the old connection's end may not have been noticed yet
    for caller in callers:
        for name, kind in caller.told.items():
            assert client.stat(name).kind is kind
    for info in list(client.list(["kind!=committed"])):
        (mount,) = client.mounts(info.name)
        assert read_content(mount.source) == "content"
        client.remove(info.name)
    for info in list(client.list(['name!="base"'])):
        client.view("look", info.name)
        assert read_content(client.mounts("look")[0].source) == "content"
        client.remove("look")
        client.remove(info.name)
    client.remove("base")
    client.cleanup()
    assert os.listdir(f"{place.root}/snapshots") == ["store-id"]
    client.close()


class _Caller(threading.Thread):
    """Goes through the life of snapshots again and again; ``told``: what it was told is there, and is."""

    def __init__(self, place: Place, number: int, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.told: dict[str, Kind] = {}
        self.done = 0
        self.problem: BaseException | None = None
        self._number = number
        self._over = over
        self._client = place.client()

    def run(self) -> None:
        try:
            turn = 0
            while not self._over.is_set():
                turn += 1
                with contextlib.suppress(Unavailable):
                    self._life(f"{self._number}/{turn}")
                    self.done += 1
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.problem = error
        finally:
            self._client.close()

    def _life(self, name: str) -> None:
        client = self._client
        self._made(name, Kind.ACTIVE, lambda: client.prepare(name, "base"))
        view = f"{name} view"
        self._made(view, Kind.VIEW, lambda: client.view(view, "base"))
        self._gone(view, lambda: client.remove(view))
        committed = f"{name} committed"
        self._gone(name, lambda: client.commit(committed, name))
        self.told[committed] = Kind.COMMITTED

    def _made(self, name: str, kind: Kind, make: Callable[[], object]) -> None:
        try:
            make()
        except AlreadyExists:
            raise AssertionError(f"{name} was asked for once") from None
        self.told[name] = kind

    def _gone(self, name: str, end: Callable[[], object]) -> None:
        """It may be gone or not until this has returned."""
        self.told.pop(name)
        with contextlib.suppress(NotFound):
            end()


def _until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)
