"""Boot files through containerd: a daemon that is killed at any step, views that linger, go, are in use; layers; what is never mounted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from containerd_stages import CHAIN, CONSUMER, SNAPSHOTTER, ContainerdWorld
from unikeel.boot import shared
from unikeel.boot.contract import Choice, Parent
from unikeel.boot.mounted import Mounter
from unikeel.containerd import reach
from unikeel.containerd.records import Mount
from unikeel.errors import BadContent, Unavailable
from unikeel.kernel import loop, mounts, overlay
from unikeel.testing.boot_suite import content
from unikeel.testing.boot_tree import KERNEL, make_image

_CHILD = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "boot_containerd_child.py")
_CHOICES = [Choice.CACHE, Choice.SHARED_VIEW, Choice.VIEW, Choice.COPY]
_PATHS = {"kernel": "/kernel"}


@pytest.fixture
def image(tmp_path: os.PathLike[str]) -> str:
    tree, path = os.path.join(tmp_path, "tree"), os.path.join(tmp_path, "image")
    os.mkdir(tree)
    with open(os.path.join(tree, "kernel"), "wb") as file:
        file.write(KERNEL)
    make_image("ext4", tree, path)
    return path


@pytest.fixture
def world(tmp_path: os.PathLike[str], image: str) -> Iterator[ContainerdWorld]:
    with ContainerdWorld(os.path.join(tmp_path, "root"), mounts_of(image), linger=0.1) as made:
        yield made


def mounts_of(image: str) -> tuple[Mount, ...]:
    return (Mount("ext4", image, "", ("loop", "ro")),)


def serve(world: ContainerdWorld, choice: Choice, container: str = "c1") -> bytes:
    with world.files.acquire(world.source(container), _PATHS, choice) as acquired:
        assert (acquired.strategy, acquired.fallbacks) == (choice.value, [])
        return content(acquired.files["kernel"])


def start(root: str, image: str, choice: Choice, **environment: str) -> subprocess.Popen[bytes]:
    variables = {"PATH": os.environ["PATH"], **environment}
    return subprocess.Popen([sys.executable, _CHILD, root, image, choice.value], env=variables)


@pytest.mark.parametrize("choice", _CHOICES, ids=[choice.value for choice in _CHOICES])
def test_killed_at_every_step(tmp_path: os.PathLike[str], image: str, choice: Choice) -> None:
    trace, first = os.path.join(tmp_path, "trace"), os.path.join(tmp_path, "first")
    os.mkdir(first)
    assert start(first, image, choice, UNIKEEL_FAILPOINT_TRACE=trace).wait(60) == 0
    with open(trace, encoding="utf-8") as file:
        passed = list(dict.fromkeys(file.read().split()))
    assert {"reach.recorded", "reach.leased", "reach.viewed", "reach.removed", "reach.unleased"} <= set(passed)
    if choice in (Choice.SHARED_VIEW, Choice.VIEW):
        assert {"reach.renewal-recorded", "reach.renewing"} <= set(passed)
    for number, point in enumerate(passed):
        root = os.path.join(tmp_path, str(number))
        os.mkdir(root)
        child = start(root, image, choice, UNIKEEL_FAILPOINT=point)
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), point
        child.send_signal(signal.SIGKILL)
        child.wait()
        with ContainerdWorld(root, mounts_of(image)) as next_one:
            next_one.files.reconcile(lambda _container: True)
            next_one.reach.sweep(CONSUMER)
            assert len(next_one.views()) <= 1, point
            next_one.containerd.collect(SNAPSHOTTER)
            assert serve(next_one, choice) == KERNEL
            next_one.files.reconcile(lambda _container: False)
            next_one.files.tick()
            next_one.reach.close()
            next_one.reach.sweep(CONSUMER)
            assert next_one.leftovers() == [], point
            copies = os.path.join(root, "boot", "copies")
            assert not mounts.is_mount_point(copies)
    assert loop.attached_to(os.stat(image)) == []


def test_a_view_lingers_and_goes(world: ContainerdWorld) -> None:
    assert serve(world, Choice.SHARED_VIEW) == KERNEL
    assert world.files.tick() == []
    world.files.release("c1")
    assert world.files.tick() == []
    time.sleep(0.15)
    assert serve(world, Choice.SHARED_VIEW, "c2") == KERNEL
    assert world.files.tick() == []
    world.files.release("c2")
    assert world.files.tick() == []
    time.sleep(0.15)
    assert [gone.kind for gone in world.files.tick()] == ["shared-view"]
    assert world.leftovers() == []
    assert world.containerd.state.calls.count("view") == 1


def test_a_view_that_is_used_between_two_ticks_lingers_from_then_on(
    world: ContainerdWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short tasks come and go between ticks, none of which ever sees a user."""
    now = 100.0
    monkeypatch.setattr(shared, "time", SimpleNamespace(monotonic=lambda: now))
    for number in range(10):
        serve(world, Choice.SHARED_VIEW, f"c{number}")
        now += 0.03
        world.files.release(f"c{number}")
        now += 0.03
        assert world.files.tick() == []
    assert world.containerd.state.calls.count("view") == 1
    now += 0.1
    assert [gone.kind for gone in world.files.tick()] == ["shared-view"]
    assert world.leftovers() == []


def test_32_at_once_have_one_view(world: ContainerdWorld) -> None:
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda number: serve(world, Choice.SHARED_VIEW, f"c{number}"), range(32)))
    assert answers == [KERNEL] * 32
    assert len(world.views()) == world.containerd.state.calls.count("view") == 1
    (holding,) = world.files.listing()
    assert (holding.kind, holding.namespace, holding.snapshotter, len(holding.users)) == (
        "shared-view",
        "default",
        SNAPSHOTTER,
        32,
    )
    assert [holding.lease] == world.containerd.leases.names()


def test_a_view_in_use_stays(world: ContainerdWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(world, Choice.SHARED_VIEW)
    serve(world, Choice.VIEW)
    used = [True]
    monkeypatch.setattr(reach, "is_mounted", lambda _path: used[0])
    for number, view in enumerate(world.views()):
        device = [["ext4", f"/dev/mapper/pool-snap-{number}", "", []]]
        world.snapshots._shelf.put(view, {**world.snapshots._shelf.get(view), "mounts": device})
    world.files.release("c1")
    assert world.files.drop_idle() == []
    assert len(world.views()) == 2
    used[0] = False
    world.files.tick()
    assert world.leftovers() == []


def test_a_view_goes_whose_device_another_one_has_too(world: ContainerdWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own thin snapshots: the device is the parent's, and stays while the shared view is mounted."""
    serve(world, Choice.SHARED_VIEW, "c2")
    serve(world, Choice.VIEW)
    monkeypatch.setattr(reach, "is_mounted", lambda _path: True)
    for view in world.views():
        device = [["ext4", "/dev/mapper/pool-7", "", []]]
        world.snapshots._shelf.put(view, {**world.snapshots._shelf.get(view), "mounts": device})
    world.files.release("c1")
    assert len(world.views()) == len(world.containerd.leases.names()) == 1
    world.files.release("c2")
    world.files.drop_idle()
    assert len(world.views()) == 1  # nobody else has it
    monkeypatch.undo()
    world.files.collect()
    assert world.leftovers() == []


def test_a_device_with_a_mounted_file_system_is_in_use(image: str) -> None:
    from unikeel.boot.sources import is_mounted
    from unikeel.kernel.fd import OwnedFd

    with OwnedFd(os.open(image, os.O_RDONLY)) as backing:
        device = loop.attach(backing.fileno())
        assert not is_mounted(device.path)
        with mounts.detached_mount("ext4", device.path, (("ro", None), ("noload", None))) as mount:
            fd = os.open("kernel", os.O_RDONLY, dir_fd=mount.fileno())
        assert is_mounted(device.path)
        os.close(fd)
        assert not is_mounted(device.path)
        device.close()
    assert not is_mounted(image)
    assert not is_mounted("/dev/nothing-here")


@pytest.mark.parametrize("choice", _CHOICES)
def test_what_is_not_the_image_s_own_is_never_mounted(
    tmp_path: os.PathLike[str], choice: Choice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mounter, "mount", None)
    directory = os.path.join(tmp_path, "fs")
    os.mkdir(directory)
    with ContainerdWorld(os.path.join(tmp_path, "root"), (Mount("bind", directory, "", ("ro", "rbind")),)) as world:
        with pytest.raises(Unavailable, match="own"):
            world.files.acquire(world.source(trusted=False), _PATHS, choice)
        world.files.release("c1")
        world.reach.close()
        assert world.leftovers() == []


def test_a_damaged_image_gives_its_view_back(world: ContainerdWorld, image: str) -> None:
    with open(image, "r+b") as file:
        file.write(bytes(4096))
    for choice in _CHOICES:
        with pytest.raises(BadContent):
            serve(world, choice)
    world.files.release("c1")
    world.files.drop_idle()
    world.reach.close()
    assert world.leftovers() == []


def test_a_failing_containerd_leads_to_the_next_strategy_and_is_said(world: ContainerdWorld) -> None:
    world.containerd.state.faults["view"] = [Unavailable("the pool is full")]
    with world.files.acquire(world.source(), _PATHS, Choice.CACHE) as acquired:
        assert acquired.strategy == "shared-view"
        assert [(name, "the pool is full" in why) for name, why in acquired.fallbacks] == [("cache", True)]


def test_the_engine_s_reconciling_leaves_a_daemon_s_containers_alone(world: ContainerdWorld) -> None:
    from boot_stages import World

    serve(world, Choice.SHARED_VIEW)
    serve(world, Choice.CACHE)
    with World(world.root, "/nothing") as engine:
        assert engine.files.reconcile(lambda _container: False) == []
        assert {holding.kind for holding in engine.files.listing()} == {"object", "shared-view"}
    assert [gone.name for gone in world.files.reconcile(lambda _container: False)] == ["c1"]


# -- layers ----------------------------------------------------------------------------------------------------------


def layered(world: ContainerdWorld, directory: str) -> dict[str, str]:
    """Three layers, the second of which changes the initrd; their chain."""
    below, lower = "", list[str]()
    chain = {}
    for number, files in enumerate(({"kernel": b"k", "initrd": b"i"}, {"initrd": b"other"}, {"data": b"d"})):
        path = os.path.join(directory, f"layer{number}")
        os.mkdir(path)
        for name, data in files.items():
            with open(os.path.join(path, name), "wb") as file:
                file.write(data)
        lower.insert(0, path)
        overlaid = Mount("overlay", "overlay", "", ("lowerdir=" + ":".join(lower),))
        mount = overlaid if number else Mount("bind", path, "", ("ro", "rbind"))
        name = f"sha256:{number}"
        world.snapshots.commit(name, below, (mount,), created_ns=number + 1)
        chain[name] = below = name
    return chain


@pytest.mark.parametrize("choice", [Choice.SHARED_VIEW, Choice.VIEW])
def test_the_lowest_layer_by_comparing(tmp_path: os.PathLike[str], world: ContainerdWorld, choice: Choice) -> None:
    layered(world, os.fspath(tmp_path))
    steps: list[dict[str, object]] = []

    def note(name: str, _start: int, _end: int, attributes: object) -> None:
        if name == "boot.layer" and isinstance(attributes, dict):
            steps.append(attributes)

    top = Parent(CONSUMER, "default", SNAPSHOTTER, "sha256:2", 3, "", trusted=True)
    source = world.source(lowest=True)._replace(parent=top)
    for paths, number, kernel in (
        ({"kernel": "/kernel"}, 0, b"k"),
        ({"kernel": "/kernel", "initrd": "/initrd"}, 1, b"k"),
    ):
        for how in ("compared", "remembered"):
            with world.files.acquire(source, paths, choice, note) as acquired:
                assert content(acquired.files["kernel"]) == kernel
            found = steps.pop()
            assert (found["layer"], found["how"]) == (f"sha256:{number}", how)
    with pytest.raises(BadContent):
        world.files.acquire(source, {"kernel": "/none"}, choice, note)
    world.files.release("c1")
    world.files.drop_idle()
    world.reach.close()
    assert world.leftovers() == []


def test_the_cache_takes_the_whole_parent(tmp_path: os.PathLike[str], world: ContainerdWorld) -> None:
    layered(world, os.fspath(tmp_path))
    source = world.source(lowest=True)._replace(
        parent=Parent(CONSUMER, "default", SNAPSHOTTER, "sha256:2", 3, "", trusted=True)
    )
    with world.files.acquire(source, {"kernel": "/initrd"}, Choice.CACHE) as acquired:
        assert content(acquired.files["kernel"]) == b"other"
    assert CHAIN in world.snapshots.names("committed")


# -- unions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2, 60])
def test_unions_where_layers_cannot_be_handed_over(
    tmp_path: os.PathLike[str], layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As before Linux 6.8: by mount(2), in a mount namespace of its own."""
    paths = []
    for number in range(layers):
        paths.append(os.path.join(tmp_path, "a long name: " + "x" * 200, str(number)))
        os.makedirs(paths[-1])
        with open(os.path.join(paths[-1], f"file{number}"), "wb"):
            pass
    scratch = os.path.join(tmp_path, "scratch")
    os.mkdir(scratch)
    original = mounts.detached_mount

    def refuse(fstype: str, *arguments: object, **named: object) -> object:
        if fstype == "overlay":
            raise OSError(22, "Invalid argument")
        return original(fstype, *arguments, **named)  # type: ignore[arg-type]

    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        before = file.read()
    for patched in (False, True):
        if patched:
            monkeypatch.setattr(mounts, "detached_mount", refuse)
        with overlay.union(paths, scratch) as union:
            assert sorted(os.listdir(f"/proc/self/fd/{union.fileno()}")) == sorted(f"file{n}" for n in range(layers))
            with pytest.raises(OSError, match="Read-only"):
                os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=union.fileno())
    assert os.listdir(scratch) == []
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        assert file.read() == before
