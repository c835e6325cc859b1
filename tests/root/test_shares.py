"""Shared roots and volumes with a real guest: the distribution's kernel, our own init, virtiofsd in its sandbox."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

import unikeel
from engine_leftovers import host_leftovers, limit, records, wait_keeper_gone
from engine_stages import LONG, PATIENCE, Stage
from teller_stage import teller_stage
from unikeel.engine.ending import adopt
from unikeel.errors import InvalidArgument
from unikeel.keeper.wire import UNSERVED
from unikeel.model.volumes import parse

_STATE = unikeel.ContainerState


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    directory = str(tmp_path_factory.mktemp("shares"))
    for name in ("data/sub", "fixed"):
        os.makedirs(os.path.join(directory, name))
    for name in ("data/one", "data/sub/two", "fixed/three", "four"):
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(f"this is {name}")
    return teller_stage(directory)


@pytest.fixture
def engine(stage: Stage) -> Iterator[unikeel.Engine]:
    with stage.engine() as opened:
        yield opened
        for container in opened.containers(everything=True):
            container.remove(force=True)
    wait_keeper_gone(stage.root)
    assert host_leftovers(stage.root, stage.idents) == []


def create(
    engine: unikeel.Engine,
    stage: Stage,
    *args: str,
    root: str = "",
    volumes: tuple[str, ...] = (),
    console: str = "",
) -> unikeel.Container:
    wishes = (("org.unikeel.rootfs", root), ("org.unikeel.console", console))
    options = unikeel.Options(
        guest="linux",
        kernel="default",
        network="none",
        args=args,
        annotations=tuple((name, value) for name, value in wishes if value),
        volumes=tuple(parse(f"{stage.directory}/{volume}") for volume in volumes),
    )
    container = engine.create("files", options)
    stage.idents += [container.id, f"{container.id}.fs0", f"{container.id}.fs1"]
    return container


def output(container: unikeel.Container) -> list[str]:
    container.start(seconds=PATIENCE)
    assert container.wait(PATIENCE) == 0
    return lines(container)


def lines(container: unikeel.Container) -> list[str]:
    with open(container.console_log, encoding="utf-8", errors="replace") as file:
        return file.read().replace("\r", "").splitlines()


VOLUMES = ("data:/data", "fixed:/fixed:ro", "four:/etc/four")
ASKED = ("r:/data/one", "r:/data/sub/two", "r:/etc/four", "w:/data/new", "w:/fixed/three", "r:/fixed/three")
ANSWERS = {
    "r:/data/one: this is data/one",
    "r:/data/sub/two: this is data/sub/two",
    "r:/etc/four: this is four",
    "w:/data/new: ",
    "w:/fixed/three: Read-only file system",
    "r:/fixed/three: this is fixed/three",
}


def test_volumes_reach_a_guest_and_it_ends_with_their_server(engine: unikeel.Engine, stage: Stage) -> None:
    """Its root is a disk. The end of the file server is the end of the guest, which would wait for its answers for ever, and the reason is told."""
    container = create(engine, stage, *ASKED, "wait", volumes=VOLUMES)
    container.start(ready="console:waiting", seconds=PATIENCE)
    assert set(lines(container)) >= ANSWERS
    new = os.path.join(stage.directory, "data", "new")
    with open(new, encoding="utf-8") as file:
        assert file.read() == "by the guest"
    os.unlink(new)
    with open(os.path.join(stage.root, "containers", container.id, "fs1", "pid"), encoding="ascii") as file:
        os.kill(int(file.read()), signal.SIGKILL)
    assert container.wait(PATIENCE) == 137
    assert container.refresh().reason == "the file server of the guest's shared directories has ended"


@pytest.mark.parametrize("before", [True, False])
def test_the_end_of_a_file_server_is_seen_by_the_next_keeper(
    engine: unikeel.Engine, stage: Stage, *, before: bool
) -> None:
    """Whether it comes before that one has adopted the monitor, or after."""
    if not LONG:
        return  # each is a guest of its own
    container = create(engine, stage, "wait", volumes=VOLUMES)
    container.start(ready="console:waiting", seconds=PATIENCE)
    with open(os.path.join(stage.root, "containers", container.id, "fs1", "pid"), encoding="ascii") as file:
        server = int(file.read())
    keeper = engine._services.keeper.ask({"op": "hello"})["pid"]
    assert isinstance(keeper, int)
    os.kill(keeper, signal.SIGKILL)
    if before:
        os.kill(server, signal.SIGKILL)
    assert adopt(engine._services, engine._services.containers.get(container.id))
    if not before:
        os.kill(server, signal.SIGKILL)
    container.wait(PATIENCE)
    with open(os.path.join(stage.root, "containers", container.id, "monitor.log"), encoding="utf-8") as file:
        assert UNSERVED in file.read()


def test_a_shared_root_has_them_too_and_keeps_what_the_guest_writes(engine: unikeel.Engine, stage: Stage) -> None:
    """Its console is virtio's, which our init opens once the driver is loaded."""
    asked = (*ASKED, "r:/kept", "w:/kept", "r:/proc/consoles")
    container = create(engine, stage, *asked, root="shared", volumes=VOLUMES, console="virtio")
    told = output(container)
    assert any(line.startswith("r:/proc/consoles: hvc0 ") for line in told)
    assert set(told) >= {*ANSWERS, "r:/kept: No such file or directory", "w:/kept: "}
    assert container.inspect()["rootfs"] == {"kind": "shared", "reason": "org.unikeel.rootfs=shared, by virtiofs"}
    with open(os.path.join(stage.root, "containers", container.id, "root/upper/kept"), encoding="utf-8") as file:
        assert file.read() == "by the guest"
    if LONG:
        assert "r:/kept: by the guest" in output(container)[len(told) :]


def test_what_cannot_be_given_fails_the_start_and_leaves_nothing(engine: unikeel.Engine, stage: Stage) -> None:
    container = create(engine, stage, volumes=("nothing:/data",))
    with pytest.raises(InvalidArgument, match="nothing' cannot be given to a guest: No such file or directory"):
        container.start()
    assert container.state is _STATE.CREATED


def test_a_command_that_is_killed_while_files_are_served_leaves_nothing(stage: Stage) -> None:
    """The server runs already, and its guest does not yet."""
    volume = f"{stage.directory}/data:/data"
    argv = [
        os.path.join(os.path.dirname(__file__), "../../.venv/bin/unikeel"),
        "--root",
        stage.root,
        "--config",
        stage.config,
        "create",
    ]
    argv += ["--guest", "linux", "--kernel", "default", "--net", "none", "-v", volume, "files", "wait"]
    ident = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout.strip()
    stage.idents += [ident, f"{ident}.fs1"]
    starting = subprocess.Popen([*argv[:5], "start", ident], env={**os.environ, "UNIKEEL_FAILPOINT": "share.started"})
    with limit(PATIENCE, "coming as far as the server"):
        _, status = os.waitpid(starting.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    starting.kill()
    starting.wait(PATIENCE)
    with stage.engine() as engine:
        container = engine.containers(everything=True)[0]
        assert container.state is _STATE.CREATED
        container.remove()
    wait_keeper_gone(stage.root)
    assert os.listdir(os.path.join(stage.root, "run", "bundles")) == []
    assert os.listdir(os.path.join(stage.root, "run", "oci")) == []
    assert [*records(stage.root), *host_leftovers(stage.root, stage.idents)] == []
