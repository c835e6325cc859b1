"""Thin pools with the real device-mapper, tried inside the lab's machine: ``python -m lab_support.thin_pools SCENARIO DIRECTORY``.

Each scenario is a function that fails with an assertion; it leaves no device and no file.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import unikeel.records.failpoint
from unikeel.cli.main import entry
from unikeel.errors import BadContent, FailedPrecondition, ResourceExhausted
from unikeel.kernel.devmapper import Control, Target, nodes, thin
from unikeel.kernel.fd import OwnedFd, open_path
from unikeel.records.database import Database
from unikeel.records.owners import Owner
from unikeel.snapshots.contract import SnapshotStore
from unikeel.snapshots.pools import devices, lifecycle, repairing, thin_pool
from unikeel.snapshots.pools.opening import OpenPool, open_pool
from unikeel.snapshots.pools.registry import Registry
from unikeel.snapshots.pools.thin_pool import ThinPool
from unikeel.snapshots.pools.watching import Level
from unikeel.snapshots.stores import StorePlace, open_store
from unikeel.snapshots.thin import identity

MIB = 1 << 20
LONG = os.environ.get("UNIKEEL_LONG") == "1"


class World:
    """A state root, and disks."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.root = os.path.join(directory, "root")
        os.makedirs(self.root)
        os.environ["UNIKEEL_ROOT"] = self.root
        self.registry = Registry(os.path.join(self.root, "pools"))

    def unikeel(self, *words: str, code: int = 0) -> str:
        """The command; what it prints."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            found = entry(words)
        assert found == code, (words, found, out.getvalue(), err.getvalue())
        return out.getvalue() + err.getvalue()

    def status(self, name: str) -> dict[str, Any]:
        """``pool status --json`` of one."""
        found: dict[str, Any] = json.loads(self.unikeel("pool", "status", "--json", name))[0]
        return found

    def disk(self, name: str, mib: int) -> str:
        """A loop device, until the end of everything."""
        path = os.path.join(self.directory, name)
        with open(path, "wb") as file:
            file.truncate(mib * MIB)
        return run("losetup", "--find", "--show", path)

    def enlarge(self, device: str, name: str, mib: int) -> None:
        """Make a disk larger."""
        os.truncate(os.path.join(self.directory, name), mib * MIB)
        run("losetup", "--set-capacity", device)

    @contextmanager
    def volume(self, name: str, mib: int) -> Iterator[str]:
        """A logical volume on a disk of its own; its name in device-mapper."""
        disk = self.disk(name, mib)
        number = os.stat(disk).st_rdev
        full = f"testvg-{name}"
        with Control() as control:
            control.create(full, f"TEST-{name}")
            try:
                table = Target(0, mib * MIB, "linear", f"{os.major(number)}:{os.minor(number)} 0")
                control.load(full, [table])
                nodes.ensure(control.resume(full))
                yield full
            finally:
                nodes.remove(full)
                control.remove(full, deferred=True)

    @contextmanager
    def opened(self, name: str) -> Iterator[OpenPool]:
        """A pool, as a store has it."""
        with open_pool(self.registry, name) as pool:
            yield pool

    @contextmanager
    def store(self) -> Iterator[SnapshotStore]:
        """The engine's snapshots in the pool ``tried``."""
        owners = os.path.join(self.root, "owners")
        os.makedirs(owners, exist_ok=True)
        with Owner(owners) as owner, contextlib.closing(Database(os.path.join(self.root, "state.db"))) as database:
            place = StorePlace("", database, owner.token, owner.is_dead, 32 * MIB, pools=self.registry.directory)
            with contextlib.closing(open_store("tried", place, "engine")) as store:
                yield store

    def tell(self, name: str, message: str) -> None:
        """Tell a pool's device something."""
        with Control() as control:
            control.message(f"unikeel-{name}", message)

    def nothing_left(self) -> None:
        """No device of ours."""
        with Control() as control:
            assert [name for name in control.names() if name.startswith("unikeel-tried")] == []
        assert [name for name in os.listdir(nodes.DIRECTORY) if name.startswith("unikeel-tried")] == []


def run(*words: str) -> str:
    """A program's output."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def written(pool: str, number: int, size: int) -> Iterator[OwnedFd]:
    """A thin device of a pool, open for writing."""
    name = f"unikeel-{pool}-{number}"
    with Control() as control:
        control.create(name, f"UNIKEEL-test-{number}")  # which udev leaves alone
        try:
            control.load(name, thin.thin_table(f"/dev/mapper/unikeel-{pool}", number, size))
            with open_path(nodes.ensure(control.resume(name)), os.O_RDWR) as device:
                yield device
        finally:
            nodes.remove(name)
            control.remove(name)


# --- scenarios ----------------------------------------------------------------------------------------------------------------


def on_devices(world: World) -> None:
    """Made on two devices, used, grown with them, brought back after a restart, not mistaken for another, taken away."""
    data, metadata = world.disk("data", 100), world.disk("metadata", 8)
    run("mkfs.ext4", "-q", data)
    words = ("pool", "create", "tried", "--data", data, "--metadata", metadata)
    assert f"{data} holds ext4" in world.unikeel(*words, code=2)
    assert world.registry.names() == []
    world.unikeel(*words, "--force")
    assert f"{data} is in use" in world.unikeel("pool", "create", "other", *words[3:], "--force", code=75)
    before = world.status("tried")
    assert (before["state"], before["level"], before["data"]["size"]) == ("active", "fine", 100 * MIB)
    assert before["metadata"]["size"] == 8 * MIB
    world.enlarge(data, "data", 200)
    world.enlarge(metadata, "metadata", 16)
    with world.opened("tried") as pool:
        world.unikeel("pool", "grow", "tried")
        assert "in use by a store" in world.unikeel("pool", "destroy", "tried", code=75)
        ref = pool.ref
        assert ref is not None
        assert identity.read_identity(ref) == before["uuid"]
    after = world.status("tried")
    assert (after["data"]["size"], after["metadata"]["size"]) == (200 * MIB, 16 * MIB)
    lifecycle.deactivate(world.registry, "tried")
    world.nothing_left()
    assert world.status("tried")["state"] == "inactive"
    pool_now = world.registry.find("tried")
    world.registry.write(pool_now._replace(data=metadata, metadata=data))
    problem = ""
    try:
        open_pool(world.registry, "tried").close()
    except BadContent as error:
        problem = str(error)
    assert "does not hold the metadata of pool 'tried'" in problem
    world.registry.write(pool_now)
    with world.opened("tried"):
        assert world.status("tried")["state"] == "active"
    world.unikeel("pool", "destroy", "tried")
    assert devices.probe(metadata).content == ""


def volumes(world: World) -> None:
    """On logical volumes, which are tables of linear pieces: known by their names whatever they were called by, and grown."""
    with world.volume("data", 96) as data, world.volume("metadata", 8) as metadata:
        paths = [os.path.realpath(nodes.path(data)), nodes.path(metadata)]
        assert paths[0].startswith("/dev/dm-")
        world.unikeel("pool", "create", "tried", "--data", paths[0], "--metadata", paths[1])
        found = world.status("tried")
        assert (found["data_device"], found["metadata_device"]) == (nodes.path(data), nodes.path(metadata))
        with Control() as control:
            (target,) = control.table(data)
            control.load(data, [target._replace(length=80 * MIB), target._replace(start=80 * MIB, length=80 * MIB)])
            control.suspend(data)
            control.resume(data)
        world.unikeel("pool", "grow", "tried")
        assert world.status("tried")["data"]["size"] == 160 * MIB
        world.unikeel("pool", "destroy", "tried")


def ownership(world: World) -> None:
    """What the records do not know stays until a repair; what they know and is not there is forgotten by one."""
    world.unikeel("pool", "create", "tried", "--size", "64MiB", "--sparse")
    for number in (5, 6, 9):
        world.tell("tried", thin.create_thin(number))
    said = world.unikeel("pool", "check", "tried", code=1)
    assert "3 snapshots (ids 5-6, 9) whose names, parents and labels are lost" in said
    assert "asked about on a terminal" in world.unikeel("pool", "check", "tried", "--repair", code=2)
    with world.opened("tried"):
        assert "in use by a store" in world.unikeel("pool", "check", "tried", "--repair", "--yes", code=75)
    pool = ThinPool(world.registry, world.registry.find("tried"))
    assert set(pool.devices()) == {0, 5, 6, 9}
    world.unikeel("pool", "check", "tried", "--repair", "--yes")
    assert set(pool.devices()) == {0}
    world.unikeel("pool", "check", "tried")
    for number in range(1, 150):  # more than one node of the tree
        world.tell("tried", thin.create_thin(number))
    assert set(pool.devices()) == set(range(150))
    assert world.status("tried")["pending"] == ["delete 149 snapshots that no record names (ids 1-149)"]
    with written("tried", 7, 16 * MIB) as device:
        os.pwrite(device.fileno(), b"x" * MIB, 0)
        os.fsync(device.fileno())
        assert "is in use by unikeel-tried-7" in world.unikeel("pool", "destroy", "tried", code=75)
        assert world.status("tried")["state"] == "active"
    assert pool.devices()[7].mapped_blocks == 16
    lifecycle.deactivate(world.registry, "tried")
    assert set(pool.devices()) == set(range(150))
    world.unikeel("pool", "destroy", "tried")


def data_full(world: World) -> None:
    """Warned of, refused in time; writes beyond fail at once; room again after it was grown."""
    world.unikeel("pool", "create", "tried", "--size", "64MiB", "--sparse")
    world.tell("tried", thin.create_thin(1))
    with world.opened("tried") as pool, written("tried", 1, 128 * MIB) as device:
        levels = []
        for at in range(62):
            os.pwrite(device.fileno(), b"x" * MIB, at * MIB)
            os.fsync(device.fileno())
            levels.append(pool.watch.level())
        assert levels == sorted(levels)
        assert set(levels) == set(Level)
        refused(pool)
        with contextlib.suppress(OSError):
            for at in range(62, 128):
                os.pwrite(device.fileno(), b"x" * MIB, at * MIB)
                os.fsync(device.fileno())
            raise SystemExit("a full pool took what was written")
        assert "out of data space" in pool.watch.verdict().reason
        world.unikeel("pool", "grow", "tried", "--size", "256MiB")
        pool.watch.admit()
        os.pwrite(device.fileno(), b"x" * MIB, 127 * MIB)
        os.fsync(device.fileno())
    world.unikeel("pool", "destroy", "tried", "--force")


def stores(world: World) -> None:
    """A store in a pool: shown by the commands, refused when the pool is full, refused when its records are lost, new after a repair."""
    world.unikeel("pool", "create", "tried", "--size", "64MiB", "--sparse")
    with world.store() as store:
        store.import_committed("base", {}, _large)
        store.prepare("key", "base")
        store.view("look", "base")
        found = world.status("tried")
        assert (found["snapshots"]["committed"], found["snapshots"]["active"], found["snapshots"]["views"]) == (1, 1, 1)
        assert (found["consumers"], found["problems"], found["pending"]) == (["engine"], [], [])
        listed = json.loads(world.unikeel("snapshot", "ls", "--json", "--store", "pool:tried"))
        assert [item["name"] for item in listed] == ["base", "key", "look"]
        (whole,) = json.loads(world.unikeel("snapshot", "inspect", "key"))
        assert (whole["problem"], whole["mounts"][0]["source"]) == ("", whole["disk"]["path"])
        world.unikeel("snapshot", "usage", "key", "base")
        with open(whole["disk"]["path"], "r+b", buffering=0) as device, contextlib.suppress(OSError):
            for at in range(100):
                os.pwrite(device.fileno(), os.urandom(MIB), at * MIB)
                os.fsync(device.fileno())
        refused_by(ResourceExhausted, lambda: store.prepare("more", "base"))
        assert [info.name for info in store.list()] == ["base", "key", "look"]
        store.remove("key")
        store.cleanup()
        store.prepare("more", "base")
        store.remove("more")
        store.cleanup()
    lost = os.path.join(world.root, "state.db")
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(lost + suffix, lost + suffix + ".lost")
    refused_by(FailedPrecondition, lambda: world.store().__enter__())
    assert "whose names, parents and labels are lost" in world.unikeel("pool", "check", "tried", code=1)
    world.unikeel("pool", "check", "tried", "--repair", "--yes")
    with world.store() as store:
        assert list(store.list()) == []
        store.import_committed("base", {}, lambda fd: os.pwrite(fd, b"y" * MIB, 0))
    world.unikeel("pool", "destroy", "tried", "--force")


def _large(fd: int) -> None:
    """Larger than the pool, and almost empty."""
    os.ftruncate(fd, 128 * MIB)
    os.pwrite(fd, b"x" * MIB, 0)


def refused_by(kind: type[Exception], call: Callable[[], object]) -> None:
    """It raises this."""
    try:
        call()
    except kind:
        return
    raise SystemExit(f"no {kind.__name__}")


def refused(pool: OpenPool) -> None:
    """Nothing new is made."""
    refused_by(ResourceExhausted, pool.watch.admit)


def metadata_full(world: World) -> None:
    """Refused while the kernel still takes more; after it does not, the pool is checked, grown, and goes on."""
    world.unikeel("pool", "create", "tried", "--size", "64MiB", "--metadata-size", "4MiB", "--sparse")
    made = 0
    with world.opened("tried") as pool:
        while pool.watch.level() is not Level.FULL:
            for _ in range(20):
                made += 1
                world.tell("tried", thin.create_thin(made))
        assert made > 200, made
        refused(pool)
        with contextlib.suppress(OSError):
            while made < 5000:
                made += 1
                world.tell("tried", thin.create_thin(made))
            raise SystemExit("a pool's metadata has no end")
        assert world.status("tried")["problems"][0] == "it is out of metadata"
        refused(pool)
        assert "problem: the pool is out of metadata: grow it" in world.unikeel("pool", "check", "tried", code=1)
        world.unikeel("pool", "grow", "tried", "--metadata-size", "16MiB")
        pool.watch.admit()
    world.unikeel("pool", "check", "tried", "--repair", "--yes")
    world.tell("tried", thin.create_thin(1))
    world.unikeel("pool", "destroy", "tried", "--force")


def damaged(world: World) -> None:
    """Metadata that thin_check finds damaged is rebuilt, and the damaged kept."""
    world.unikeel("pool", "create", "tried", "--size", "64MiB", "--sparse")
    world.tell("tried", thin.create_thin(1))
    with written("tried", 1, 16 * MIB) as device:
        os.pwrite(device.fileno(), b"content" * 1000, 0)
        os.fsync(device.fileno())
    lifecycle.deactivate(world.registry, "tried")
    pool = ThinPool(world.registry, world.registry.find("tried"))
    with open_path(pool.metadata, os.O_RDWR) as file:
        bitmaps = int.from_bytes(os.pread(file.fileno(), 8, 64 + 16), "little")  # of the data's space map
        os.pwrite(file.fileno(), b"damage", bitmaps * 4096 + 100)
    with world.opened("tried"), contextlib.suppress(OSError), written("tried", 1, 16 * MIB) as device:
        os.pwrite(device.fileno(), b"more", 8 * MIB)
        os.fsync(device.fileno())
        raise SystemExit("the kernel has not noticed the damage")
    assert "repair 1: check the pool's metadata with thin_check" in world.unikeel("pool", "check", code=1)
    world.unikeel("pool", "check", "--repair", "--yes")
    with written("tried", 1, 16 * MIB) as device:
        assert os.pread(device.fileno(), 7, 0) == b"content"
    assert os.path.exists(pool.beside("metadata.before-repair"))
    world.unikeel("pool", "destroy", "tried", "--force")


# --- kills --------------------------------------------------------------------------------------------------------------------


def some(points: list[str]) -> list[str]:
    """All of them in the long form, every third one in the short."""
    return points if LONG else points[::3]


def kills(world: World) -> None:
    """Killed at every step of being made, grown, checked and taken away: what comes next works, and nothing is left."""
    data, metadata = world.disk("data", 64), world.disk("metadata", 4)
    create = ("pool", "create", "tried", "--data", data, "--metadata", metadata)
    for point in some(_points(world, create)):
        if world.registry.names():
            world.unikeel("pool", "destroy", "tried")
        _kill(world, create, point)
        lifecycle.settle(world.registry, lambda _store: None)
        if point != "pools.create.done":
            assert world.registry.names() == [], point
            world.nothing_left()
    if not world.registry.names():
        world.unikeel(*create)
    size = 64
    for point in some(["pools.grow.suspended", "pools.grow.recorded", "pools.grow.done", "pools.grow.loaded"]):
        size += 8
        world.enlarge(data, "data", size)
        _kill(world, ("pool", "grow", "tried"), point)
        with world.opened("tried") as pool:
            assert pool.watch.look().data.total == size * MIB, point
            ref = pool.ref
            assert ref is not None
            assert identity.read_identity(ref) == pool.pool.uuid, point
    for point in some(["pools.repair.delete", "pools.repair.tie"]):
        world.tell("tried", thin.create_thin(3))
        _kill(world, ("pool", "check", "tried"), "pools.thin.held")
        world.unikeel("pool", "check", "tried", code=1)
        _kill(world, ("pool", "check", "tried", "--repair", "--yes"), point)
    world.unikeel("pool", "check", "tried")
    for point in some(["pools.destroy.forgotten", "pools.destroy.recorded", "pools.undo.wiped", "pools.undo.inactive"]):
        if not world.registry.names():
            world.unikeel(*create)
        _kill(world, ("pool", "destroy", "tried"), point)
        lifecycle.settle(world.registry, lambda _store: None)
        assert world.registry.names() == [], point
        world.nothing_left()
    world.unikeel(*create)
    world.tell("tried", thin.create_thin(1))
    with written("tried", 1, MIB):
        pass
    _kill(world, ("pool", "destroy", "tried", "--force"), "pools.thin.removing")
    world.unikeel("pool", "destroy", "tried")


def _child(world: World, words: tuple[str, ...], **environment: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.environ.update(environment)
        importlib.reload(unikeel.records.failpoint)
        for module in (lifecycle, repairing, thin_pool):
            vars(module)["failpoint"] = unikeel.records.failpoint.failpoint
        world.unikeel(*words)
        status = 0
    except Exception:  # noqa: BLE001 - a child must not go on as its parent
        traceback.print_exc()
    finally:
        os._exit(status)


def _points(world: World, words: tuple[str, ...]) -> list[str]:
    trace = os.path.join(world.directory, "trace")
    _, status = os.waitpid(_child(world, words, UNIKEEL_FAILPOINT_TRACE=trace), 0)
    assert status == 0
    with open(trace, encoding="utf-8") as file:
        points = list(dict.fromkeys(file.read().split()))
    assert len(points) >= 7, points
    return points


def _kill(world: World, words: tuple[str, ...], point: str) -> None:
    pid = _child(world, words, UNIKEEL_FAILPOINT=point)
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), f"{point} was not reached by {words}"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


SCENARIOS: dict[str, Callable[[World], None]] = {
    found.__name__: found
    for found in (on_devices, volumes, ownership, data_full, stores, metadata_full, damaged, kills)
}
#: What is tried in the long form only.
LONG_ONES = frozenset(SCENARIOS)


def main(scenario: str, directory: str) -> int:
    """Run one in a directory of its own; nothing of it is left, also if it fails."""
    world = World(os.path.join(directory, scenario))
    try:
        SCENARIOS[scenario](world)
        world.nothing_left()
        assert world.registry.names() == []
    finally:
        _clear(world)
    return 0


def _clear(world: World) -> None:
    for name in world.registry.names():
        with contextlib.suppress(Exception):
            lifecycle.destroy(world.registry, name, lambda _pool: None, lambda _store: None)
    listed = run("losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE")
    for line in listed.splitlines():
        device, _, path = line.partition(" ")
        if path.strip().startswith(world.directory):
            subprocess.run(["losetup", "--detach", device], check=False)
    shutil.rmtree(world.directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
