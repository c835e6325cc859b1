"""Disks that are made of images that are no block devices: the same files whatever the snapshotter, made once, and nothing left by a kill."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import ext4_images
import made_disks_child
from containerd_stages import CONSUMER, ContainerdWorld
from made_disks_child import LIMITS, MIB, made_disks, maker, overlay
from unikeel.boot.contract import HostMount
from unikeel.boot.mounted import Mounter
from unikeel.containerd.records import Mount
from unikeel.engine.made import MadeDisks
from unikeel.errors import DeadlineExceeded, FailedPrecondition, ResourceExhausted, Unavailable
from unikeel.kernel.fd import OwnedFd
from unikeel.snapshots.contract import Disk, How
from unikeel.testing.boot_tree import make_image, write_tree

_KINDS = ("bind", "overlay", "erofs", "erofs-layers", "blockfile")
Steps = list[tuple[str, Mapping[str, str | int | bool]]]


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The lower layer, and above it one that hides a file, replaces a directory and adds one."""
    directory = str(tmp_path_factory.mktemp("trees"))
    lower, upper = os.path.join(directory, "lower"), os.path.join(directory, "upper")
    for path in (lower, upper):
        os.mkdir(path)
    write_tree(lower)
    os.mkdir(os.path.join(lower, "replaced"))
    for name in ("hidden", "replaced/old"):
        Path(lower, name).write_bytes(b"of the lower layer")
    os.setxattr(os.path.join(lower, "setuid"), "security.capability", bytes.fromhex("0100000200040000") + bytes(12))
    os.setxattr(os.path.join(lower, "setuid"), "user.note", b"kept")
    os.mknod(os.path.join(upper, "hidden"), stat.S_IFCHR | 0o644, os.makedev(0, 0))
    os.mkdir(os.path.join(upper, "replaced"))
    os.setxattr(os.path.join(upper, "replaced"), "trusted.overlay.opaque", b"y")
    Path(upper, "replaced", "new").write_bytes(b"of the upper layer")
    return directory


@pytest.fixture(scope="session")
def parents(trees: str) -> dict[str, tuple[Mount, ...]]:
    lower, upper = os.path.join(trees, "lower"), os.path.join(trees, "upper")
    images = {kind: os.path.join(trees, kind) for kind in ("erofs", "ext4")}
    for kind, path in images.items():
        make_image(kind, lower, path)
    make_image("erofs", upper, os.path.join(trees, "above"))
    layers = tuple(Mount("erofs", os.path.join(trees, name), "", ("ro", "loop")) for name in ("above", "erofs"))
    return {
        "bind": (Mount("bind", lower, "", ("ro", "rbind")),),
        "overlay": overlay(f"{upper}:{lower}"),
        "erofs": layers[1:],
        "erofs-layers": (*layers, Mount("format/mkdir/overlay", "overlay", "", ("lowerdir={{ overlay 0 1 }}",))),
        "blockfile": (Mount("ext4", images["ext4"], "", ("loop", "ro")),),
    }


@pytest.fixture
def world(tmp_path: Path, trees: str) -> Iterator[ContainerdWorld]:
    with ContainerdWorld(str(tmp_path / "root"), overlay(f"{trees}/upper:{trees}/lower")) as made:
        yield made


@pytest.fixture
def made(world: ContainerdWorld) -> Iterator[MadeDisks]:
    disks = made_disks(world)
    yield disks
    disks.close()


def described(top: int) -> dict[str, tuple[object, ...]]:
    """Everything of a tree, by path."""
    found: dict[str, tuple[object, ...]] = {}
    for path, directories, files, fd in os.fwalk(".", dir_fd=top):
        for name in sorted([*directories, *files]):
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            place = f"/proc/self/fd/{fd}/{name}"
            what: object = info.st_rdev
            if stat.S_ISREG(info.st_mode):
                what = Path(place).read_bytes()
            elif stat.S_ISLNK(info.st_mode):
                what = os.readlink(place)
            names = sorted(os.listxattr(place, follow_symlinks=False))
            values = [(key, os.getxattr(place, key, follow_symlinks=False)) for key in names]
            links = 0 if stat.S_ISDIR(info.st_mode) else info.st_nlink
            found[os.path.normpath(f"{path}/{name}")] = (
                oct(info.st_mode),
                info.st_uid,
                info.st_gid,
                int(info.st_mtime),
                links,
                what,
                values,
            )
    return found


def content(path: str, locks: str) -> dict[str, tuple[object, ...]]:
    """The same of an image."""
    with Mounter(locks).mount((HostMount("ext4", path),)) as mount, opened(mount) as top:
        found = described(top.fileno())
    found.pop("lost+found", None)  # mke2fs makes one, we do not
    return found


def opened(mount: OwnedFd) -> OwnedFd:
    return OwnedFd(os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount.fileno()))


def provide(
    world: ContainerdWorld, made: MadeDisks, task: str = "t1", *, read_only: bool = False
) -> tuple[Disk, Steps]:
    steps: Steps = []
    disk = maker(world, made).provide(
        world.source().parent, task, lambda name, _start, _end, what: steps.append((name, what)), read_only=read_only
    )
    return disk, steps


@pytest.mark.parametrize("kind", _KINDS)
def test_a_disk_has_the_files_of_its_image(
    tmp_path: Path, parents: dict[str, tuple[Mount, ...]], trees: str, kind: str
) -> None:
    with ContainerdWorld(str(tmp_path / "root"), parents[kind]) as world:
        made = made_disks(world)
        disk, steps = provide(world, made)
        assert (disk.how in (How.QCOW2, How.REFLINK), [name for name, _ in steps]) == (True, ["disk.make"])
        image = made.store.disk(world.source().parent.key).path
        ext4_images.check(image)
        found = content(image, str(tmp_path))
        assert stat.S_IMODE(os.stat(image).st_mode) == 0o400
        with opened(OwnedFd(os.open(f"{trees}/lower", os.O_PATH))) as top:
            expected = described(top.fileno())
        del expected["socket"], expected["whiteout"]
        if kind in ("overlay", "erofs-layers"):
            del expected["hidden"], expected["replaced/old"]
            assert found["replaced/new"][5] == b"of the upper layer"
            for same in (expected, found):
                same.pop("replaced/new", None)
                same.pop("replaced")
        assert found == expected
        made.close()
        world.reach.close()
        assert world.leftovers() == []


def test_it_is_made_once(world: ContainerdWorld, made: MadeDisks) -> None:
    first, steps = provide(world, made, "t1")
    second, none = provide(world, made, "t2")
    assert (len(steps), none, first.path != second.path) == (1, [], True)
    assert isinstance(steps[0][1]["bytes"], int)
    assert world.containerd.state.calls.count("view") == 1
    made.release("t1")
    made.release("t2")
    assert len(made.collect()) == 1
    world.reach.close()
    assert world.leftovers() == []


def test_32_at_once_make_it_once(world: ContainerdWorld, made: MadeDisks) -> None:
    begin = threading.Barrier(32)

    def one(number: int) -> tuple[Disk, Steps]:
        begin.wait()
        return provide(world, made, f"t{number}")

    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(one, range(32)))
    assert len({disk.path for disk, _ in found}) == 32
    assert sum("bytes" in what for _, steps in found for _, what in steps) == 1
    assert world.containerd.state.calls.count("view") == 1
    assert len(made.listing()[0].users) == 32


def test_a_read_only_root_is_the_image_itself(world: ContainerdWorld, made: MadeDisks) -> None:
    disk, _ = provide(world, made, read_only=True)
    assert (disk.read_only, disk.format, disk.backing) == (True, "raw", None)
    assert disk.path == made.store.disk(world.source().parent.key).path
    assert made.collect() == []
    made.release("t1")
    assert len(made.collect()) == 1


def test_a_stranger_s_snapshot_is_refused(
    world: ContainerdWorld, made: MadeDisks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mounter, "mount", None)
    with pytest.raises(FailedPrecondition, match="no disk is made of"):
        maker(world, made).provide(world.source(trusted=False).parent, "t", lambda *_: None, read_only=False)
    assert world.containerd.state.calls.count("view") == 0


def test_limits(world: ContainerdWorld, made: MadeDisks) -> None:
    parent = world.source().parent
    small = maker(world, made, LIMITS._replace(size=MIB))
    with pytest.raises(ResourceExhausted, match="raise containerd.made_limit"):
        small.provide(parent, "t", lambda *_: None, read_only=False)
    slow = maker(world, made, LIMITS._replace(seconds=0))
    with pytest.raises(DeadlineExceeded):
        slow.provide(parent, "t", lambda *_: None, read_only=False)
    assert provide(world, made)[0].format in ("raw", "qcow2")
    world.reach.close()
    assert (world.views(), world.rows.all()) == ([], [])


def test_what_cannot_be_had_is_said_and_leaves_nothing(world: ContainerdWorld, made: MadeDisks) -> None:
    world.containerd.state.faults["view"] = [Unavailable("the pool is full")]
    with pytest.raises(Unavailable, match="the pool is full"):
        provide(world, made)
    assert made.listing() == []
    provide(world, made)
    world.reach.close()
    assert (world.views(), world.rows.all()) == ([], [])


def test_an_image_that_is_collected_meanwhile_is_made_again(
    world: ContainerdWorld, made: MadeDisks, monkeypatch: pytest.MonkeyPatch
) -> None:
    provide(world, made, "t1")
    made.release("t1")
    collected: list[object] = []

    def collect(point: str) -> None:
        if point == "disk.image" and not collected:
            collected.extend(made.collect())

    monkeypatch.setattr("unikeel.engine.disk_making.failpoint", collect)
    _, steps = provide(world, made, "t2")
    assert (len(collected), len(steps)) == (1, 1)


def start(root: str, trees: str, **environment: str) -> subprocess.Popen[bytes]:
    program = os.path.abspath(made_disks_child.__file__)
    variables = {"PATH": os.environ["PATH"], **environment}
    return subprocess.Popen([sys.executable, program, root, f"{trees}/upper:{trees}/lower"], env=variables)


def test_killed_at_every_step(tmp_path: Path, trees: str) -> None:
    trace = str(tmp_path / "trace")
    (tmp_path / "first").mkdir()
    assert start(str(tmp_path / "first"), trees, UNIKEEL_FAILPOINT_TRACE=trace).wait(60) == 0
    passed = list(dict.fromkeys(Path(trace).read_text(encoding="utf-8").split()))
    assert {"disk.make.begin", "disk.make.recorded", "snapshots.import.made", "disk.prepared", "disk.removed"} <= set(
        passed
    )
    for number, point in enumerate(passed):
        root = tmp_path / str(number)
        root.mkdir()
        child = start(str(root), trees, UNIKEEL_FAILPOINT=point)
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), point
        child.send_signal(signal.SIGKILL)
        child.wait()
        with ContainerdWorld(str(root), overlay(f"{trees}/upper:{trees}/lower")) as world:
            made = made_disks(world)
            made.reconcile(world.owner.is_dead, lambda _task: False)
            world.reach.sweep(CONSUMER)
            assert len(made.listing()) <= 1, point
            assert provide(world, made, "t2")[0].size > 0
            made.release("t2")
            assert len(made.collect()) == 1, point
            world.reach.close()
            assert world.leftovers() == [], point
            assert [name for name in os.listdir(root / "snapshots") if name.endswith(".img")] == [], point
            made.close()


def test_whether_a_parent_is_gone(world: ContainerdWorld) -> None:
    parent = world.source().parent
    assert not world.reach.is_gone(parent)
    assert world.reach.is_gone(parent._replace(created_ns=2)), "made anew"
    assert not world.reach.is_gone(parent._replace(consumer="another")), "nobody can be asked"
    world.containerd.state.faults["stat"] = [Unavailable("containerd is away")]
    assert not world.reach.is_gone(parent)
    world.snapshots._shelf.remove(parent.name)
    assert world.reach.is_gone(parent)
