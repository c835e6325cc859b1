"""Disks beside that of the root, and copies where nothing can be shared, with real guests: the host's are neither unmounted nor given twice."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

import unikeel
from engine_leftovers import host_leftovers, wait_keeper_gone
from engine_stages import LONG, PATIENCE, Stage
from ordinary_images import docker_archive
from teller_stage import teller_stage
from unikeel.errors import FailedPrecondition, InvalidArgument, NotFound
from unikeel.kernel import loop
from unikeel.kernel.fd import OwnedFd
from unikeel.model.volumes import parse

_IN_USE = "is in use: it is mounted, or another guest has it"
MONITORS = ("uml", "qemu") if LONG else ("uml",)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    directory = str(tmp_path_factory.mktemp("disks"))
    os.makedirs(os.path.join(directory, "secrets/..now"))
    with open(os.path.join(directory, "secrets/..now/token"), "w", encoding="utf-8") as file:
        file.write("secret")
    os.symlink("..now/token", os.path.join(directory, "secrets/token"))
    return teller_stage(directory)


@pytest.fixture
def engine(stage: Stage) -> Iterator[unikeel.Engine]:
    with stage.engine() as opened:
        yield opened
        for container in opened.containers(everything=True):
            container.remove(force=True)
    wait_keeper_gone(stage.root)
    assert host_leftovers(stage.root, stage.idents) == []


def disk_of(path: str, content: str) -> str:
    """A disk file with one file, ``what``, in it."""
    tree = f"{path}.d"
    os.makedirs(tree, exist_ok=True)
    with open(os.path.join(tree, "what"), "w", encoding="utf-8") as file:
        file.write(content)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, path, "16m"], check=True, timeout=PATIENCE)
    return path


def on_the_disk(path: str, name: str) -> str:
    """What is in a disk file, by e2fsprogs; the file system is as it should be, without a journal to be replayed."""
    subprocess.run(["e2fsck", "-fn", path], check=True, capture_output=True, timeout=PATIENCE)
    read = subprocess.run(
        ["debugfs", "-R", f"cat /{name}", path], check=True, capture_output=True, text=True, timeout=PATIENCE
    )
    return read.stdout


def create(
    engine: unikeel.Engine, stage: Stage, monitor: str, *args: str, volumes: tuple[str, ...]
) -> unikeel.Container:
    options = unikeel.Options(
        guest="linux",
        kernel="default",
        monitor=monitor,
        network="none",
        args=args,
        volumes=tuple(parse(volume) for volume in volumes),
    )
    container = engine.create("files", options)
    stage.idents += [container.id, f"{container.id}.fs1"]
    return container


def lines(container: unikeel.Container) -> set[str]:
    with open(container.console_log, encoding="utf-8", errors="replace") as file:
        return set(file.read().replace("\r", "").splitlines())


@pytest.mark.parametrize("monitor", MONITORS)
def test_disks_and_copies_reach_a_guest(engine: unikeel.Engine, stage: Stage, monitor: str) -> None:
    """A file, a device, one of them for reading only and beneath the other, and a directory of links, which on user-mode Linux is a copy."""
    one = disk_of(os.path.join(stage.directory, f"{monitor}1.img"), "one")
    two = disk_of(os.path.join(stage.directory, f"{monitor}2.img"), "two")
    with OwnedFd(os.open(two, os.O_RDWR | os.O_CLOEXEC)) as file:
        device = loop.attach(file.fileno(), writable=True)
    with device.fd:
        volumes = (f"{one}:/one/two:disk,ro", f"{device.path}:/one", f"{stage.directory}/secrets:/run/secrets:ro")
        asked = ("r:/one/what", "w:/one/new", "r:/one/two/what", "w:/one/two/new", "r:/run/secrets/token")
        container = create(engine, stage, monitor, *asked, volumes=volumes)
        container.start(seconds=PATIENCE)
        assert container.wait(PATIENCE) == 0, lines(container)
    assert lines(container) >= {
        "r:/one/what: two",
        "w:/one/new: ",
        "r:/one/two/what: one",
        "w:/one/two/new: Read-only file system",
        "r:/run/secrets/token: secret",
    }
    assert on_the_disk(two, "new") == "by the guest"
    assert on_the_disk(one, "what") == "one"


@pytest.mark.long
@pytest.mark.parametrize("monitor", ["uml", "qemu"])
def test_the_image_s_own_disk_is_where_the_image_says(stage: Stage, engine: unikeel.Engine, monitor: str) -> None:
    """What the guest writes to it stays with the container, and does not reach another one of the image."""
    with open(disk_of(os.path.join(stage.directory, "own.img"), "own"), "rb") as file:
        disk = file.read()
    archive = os.path.join(stage.directory, f"{monitor}.tar")
    docker_archive(archive, os.path.join(stage.directory, "program"), "", {"data.img": disk})
    engine.load(archive, name=f"own-{monitor}")
    places = (("com.urunc.unikernel.block", "/data.img"), ("com.urunc.unikernel.blkMntPoint", "/srv/data"))
    options = unikeel.Options(
        guest="linux",
        kernel="default",
        monitor=monitor,
        network="none",
        args=("r:/srv/data/what", "r:/srv/data/new", "w:/srv/data/new"),
        annotations=places,
    )
    told = {"r:/srv/data/what: own", "w:/srv/data/new: "}
    container, other = (engine.create(f"own-{monitor}", options) for _ in range(2))
    stage.idents += [container.id, other.id]
    for expected in ("No such file or directory", "by the guest"):
        container.start(seconds=PATIENCE)
        assert container.wait(PATIENCE) == 0
        assert lines(container) >= {*told, f"r:/srv/data/new: {expected}"}
    other.start(seconds=PATIENCE)
    assert other.wait(PATIENCE) == 0
    assert "r:/srv/data/new: No such file or directory" in lines(other)


def test_what_somebody_else_uses_is_refused(engine: unikeel.Engine, stage: Stage) -> None:
    """Whether by a loop device that shows the file, or by a guest that runs, or by the host that has mounted it."""
    disk = disk_of(os.path.join(stage.directory, "busy.img"), "busy")
    container = create(engine, stage, "uml", "wait", volumes=(f"{disk}:/data:disk",))
    other = create(engine, stage, "uml", "wait", volumes=(f"{disk}:/data:disk,ro",))
    with OwnedFd(os.open(disk, os.O_RDWR | os.O_CLOEXEC)) as file:
        device = loop.attach(file.fileno(), writable=True)
    with device.fd:
        with pytest.raises(FailedPrecondition, match="is in use by /dev/loop"):
            container.start(seconds=PATIENCE)
        third = create(engine, stage, "uml", "wait", volumes=(f"{device.path}:/data",))
        with (
            OwnedFd(os.open(device.path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)),
            pytest.raises(FailedPrecondition, match=_IN_USE),
        ):
            third.start(seconds=PATIENCE)
    if not LONG:
        return
    container.start(ready="console:waiting", seconds=PATIENCE)
    with pytest.raises(FailedPrecondition, match=_IN_USE):
        other.start(seconds=PATIENCE)
    container.kill()
    container.wait(PATIENCE)


def test_what_is_no_disk_is_refused(engine: unikeel.Engine, stage: Stage) -> None:
    plain = os.path.join(stage.directory, "plain")
    with open(plain, "wb") as file:
        file.truncate(1 << 20)
    for source, error, said in (
        (plain, InvalidArgument, "holds no file system that is known here"),
        (stage.directory, InvalidArgument, "neither a block device nor a file"),
        (f"{plain}.not", NotFound, "cannot be opened: No such file or directory"),
    ):
        container = create(engine, stage, "uml", "wait", volumes=(f"{source}:/data:disk",))
        with pytest.raises(error, match=said):
            container.start(seconds=PATIENCE)
