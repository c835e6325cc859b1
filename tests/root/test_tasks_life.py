"""The whole life of tasks, by the task service's own protocol: real keeper, daemon, sandboxes and monitors, a containerd in memory."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.empty_pb2 import Empty

from tasks_world import World, eventually, launch, run, shim
from unikeel.containerd.wire import metrics_v1_pb2, metrics_v2_pb2, task_pb2, task_types_pb2
from unikeel.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unimplemented

_LOGGER = """\
#!/bin/sh
exec 5>&-
cat <&3 >{out} & cat <&4 >/dev/null; wait
"""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="uk-") as directory:  # pytest's are too long for the paths of sockets
        made = World(directory)
        made.start()
        yield made
        made.close()


@pytest.fixture(autouse=True)
def nothing_is_left(world: World) -> Iterator[None]:
    yield
    assert world.settled() == []


def test_a_whole_life(world: World) -> None:
    async def life() -> None:
        bundle = world.bundle("life", "wait")
        async with shim(world, "life", bundle) as task:
            pid = await task.create("life", bundle)
            state = await task.state("life")
            assert (state.pid, state.status, state.bundle) == (pid, task_types_pb2.CREATED, bundle)
            assert await task.start("life") == pid
            assert (await task.state("life")).status == task_types_pb2.RUNNING
            pids = await task.ask("Pids", task_pb2.PidsRequest(id="life"), task_pb2.PidsResponse)
            assert [process.pid for process in pids.processes] == [pid]
            connected = await task.ask("Connect", task_pb2.ConnectRequest(id="life"), task_pb2.ConnectResponse)
            assert connected.shim_pid == world.hello()["pid"]
            waiting = asyncio.ensure_future(task.wait("life"))
            await task.pause("life")
            assert (await task.state("life")).status == task_types_pb2.PAUSED
            with pytest.raises(FailedPrecondition):
                await task.pause("life")
            await task.resume("life")
            with pytest.raises(FailedPrecondition):
                await task.delete("life")
            await task.kill("life", signal.SIGKILL)
            assert await waiting == 137
            assert await task.wait("life") == 137
            with pytest.raises(NotFound):
                await task.kill("life")
            assert await task.delete("life") == 137
            with pytest.raises(NotFound):
                await task.delete("life")
            await eventually(lambda: len(world.topics("life")) == 6)
            assert world.topics("life") == ["create", "start", "paused", "resumed", "exit", "delete"]

    run(life())


@pytest.mark.parametrize("code", [0, 3, 127])
def test_the_guest_s_own_end(world: World, code: int) -> None:
    async def life() -> None:
        name = f"code{code}"
        bundle = world.bundle(name, f"exit={code}")
        async with shim(world, name, bundle) as task:
            await task.create(name, bundle)
            waiting = asyncio.ensure_future(task.wait(name))
            await task.start(name)
            assert await waiting == code
            state = await task.state(name)
            assert (state.status, state.exit_status) == (task_types_pb2.STOPPED, code)
            assert state.exited_at.seconds > 0
            assert await task.delete(name) == code
            await eventually(lambda: len(world.topics(name)) == 4)
            assert world.topics(name) == ["create", "start", "exit", "delete"]

    run(life())


def test_one_that_was_never_started(world: World) -> None:
    async def life() -> None:
        bundle = world.bundle("unstarted", "wait")
        async with shim(world, "unstarted", bundle) as task:
            await task.create("unstarted", bundle)
            with pytest.raises(AlreadyExists):
                await task.create("unstarted", bundle)
            await task.delete("unstarted")
            await eventually(lambda: "delete" in world.topics("unstarted"))
            assert world.topics("unstarted") == ["create", "exit", "delete"]

    run(life())


def test_containerd_gives_a_task_up(world: World) -> None:
    """What the launcher asks with ``delete``: whatever runs is taken away, also a second time."""

    async def life() -> None:
        bundle = world.bundle("given", "wait")
        async with shim(world, "given", bundle) as task:
            await task.create("given", bundle)
            await task.start("given")
        for _ in range(2):
            answer = await launch(world, "given", bundle, "Delete")
            assert answer.exit == 0, answer.error
            assert task_pb2.DeleteResponse.FromString(answer.output).exit_status in (137, 255)

    run(life())
    assert world.monitor("given") == 0


def test_what_cannot_be_done_is_said(world: World) -> None:
    async def life() -> None:
        bundle = world.bundle("said", "wait")
        async with shim(world, "said", bundle) as task:
            await task.create("said", bundle)
            await task.start("said")
            with pytest.raises(Unimplemented, match="unikernel"):
                await task.ask("Exec", task_pb2.ExecProcessRequest(id="said", exec_id="e"), Empty)
            with pytest.raises(Unimplemented):
                await task.ask("Checkpoint", task_pb2.CheckpointTaskRequest(id="said"), Empty)
            with pytest.raises(InvalidArgument):
                await task.kill("said", 99)
            with pytest.raises(NotFound):
                await task.state("unknown")
            await task.ask("Shutdown", task_pb2.ShutdownRequest(id="said", now=True), Empty)
            await task.kill("said")
            await task.wait("said")
            await task.delete("said")

    run(life())


# -- streams ---------------------------------------------------------------------------------------------------------------


def _fifo(directory: Path, name: str, flags: int) -> tuple[str, int]:
    path = str(directory / name)
    os.mkfifo(path)
    return path, os.open(path, flags | os.O_NONBLOCK)


async def _heard(fd: int, wanted: bytes, so_far: bytes = b"") -> bytes:
    """What comes out of a fifo, until it holds what is wanted."""
    data = bytearray(so_far)

    def more() -> bool:
        try:
            data.extend(os.read(fd, 65536))
        except BlockingIOError:
            return False
        return wanted in data

    await eventually(more, f"{wanted!r} comes out")
    return bytes(data)


@pytest.mark.parametrize("terminal", [False, True])
def test_input_and_output(world: World, tmp_path: Path, terminal: bool) -> None:
    name = f"streams{terminal}"
    source, writing = _fifo(tmp_path, "in", os.O_RDWR)
    target, reading = _fifo(tmp_path, "out", os.O_RDONLY)

    async def life() -> None:
        bundle = world.bundle(name, "echo exit=4")
        async with shim(world, name, bundle) as task:
            await task.create(name, bundle, terminal=terminal, stdin=source, stdout=target)
            await task.start(name)
            await _heard(reading, b"command line: echo exit=4")
            os.write(writing, b"typed\r" if terminal else b"typed\n")
            await _heard(reading, b"typed")
            await task.ask("ResizePty", task_pb2.ResizePtyRequest(id=name, width=80, height=25), Empty)
            world.kill_daemon()
            os.write(writing, b"again\r" if terminal else b"again\n")
            await _heard(reading, b"again")
            os.write(writing, b"\x04")
            assert await task.wait(name) == 4
            await task.ask("CloseIO", task_pb2.CloseIORequest(id=name, stdin=True), Empty)
            assert await task.delete(name) == 4

    run(life())
    while data := os.read(reading, 65536):
        assert data
    for fd in (writing, reading):
        os.close(fd)


def test_output_to_a_file_and_to_a_program(world: World, tmp_path: Path) -> None:
    plain, logged = tmp_path / "deep" / "plain.log", tmp_path / "logged"
    program = tmp_path / "logger"
    program.write_text(_LOGGER.format(out=logged))
    program.chmod(0o755)

    async def life(name: str, uri: str) -> None:
        bundle = world.bundle(name, "exit=0")
        async with shim(world, name, bundle) as task:
            await task.create(name, bundle, stdout=uri, stderr=uri)
            await task.start(name)
            assert await task.wait(name) == 0
            await task.delete(name)

    run(life("to-file", f"file://{plain}"))
    assert b"hello from a unikernel" in plain.read_bytes()
    run(life("to-program", f"binary://{program}?id=x"))
    run(eventually(lambda: b"hello from a unikernel" in logged.read_bytes()))


def test_a_stream_that_is_not_there(world: World) -> None:
    async def life() -> None:
        bundle = world.bundle("nowhere", "exit=0")
        async with shim(world, "nowhere", bundle) as task:
            with pytest.raises(NotFound, match="no-such-fifo"):
                await task.create("nowhere", bundle, stdout="/no-such-fifo")

    run(life())
    assert world.topics("nowhere") == []


# -- resources -------------------------------------------------------------------------------------------------------------


def test_stats_and_limits(world: World) -> None:
    async def life() -> None:
        bundle = world.bundle("measured", "wait")
        async with shim(world, "measured", bundle) as task:
            await task.create("measured", bundle)
            await task.start("measured")
            found = await task.ask("Stats", task_pb2.StatsRequest(id="measured"), task_pb2.StatsResponse)
            name = found.stats.type_url.rpartition("/")[2]
            if name == metrics_v2_pb2.DESCRIPTOR.package + ".Metrics":
                used = metrics_v2_pb2.Metrics.FromString(found.stats.value).memory.usage
            else:
                used = metrics_v1_pb2.Metrics.FromString(found.stats.value).memory.usage.usage
            assert used > 1 << 20
            limits = json.dumps({"memory": {"limit": 512 << 20}, "cpu": {"shares": 512}}).encode()
            await task.ask("Update", task_pb2.UpdateTaskRequest(id="measured", resources=Packed(value=limits)), Empty)
            wrong = Packed(value=b'{"memory": {"limit": "much"}}')
            with pytest.raises(InvalidArgument):
                await task.ask("Update", task_pb2.UpdateTaskRequest(id="measured", resources=wrong), Empty)
            await task.kill("measured")
            await task.wait("measured")
            await task.delete("measured")

    run(life())


# -- the death of others ---------------------------------------------------------------------------------------------------


def test_the_keeper_is_killed_and_another_one_takes_over(world: World, tmp_path: Path) -> None:
    """Without a service manager the connections are lost; guests go on, and their streams are opened again."""
    target, reading = _fifo(tmp_path, "out", os.O_RDONLY)
    source, writing = _fifo(tmp_path, "in", os.O_RDWR)

    async def before(bundle: str) -> bytes:
        async with shim(world, "adopted", bundle) as task:
            await task.create("adopted", bundle, stdin=source, stdout=target)
            await task.start("adopted")
            return await _heard(reading, b"command line")

    async def after(heard: bytes) -> None:
        async with shim(world, "another", other) as task:
            assert (await task.state("adopted")).status == task_types_pb2.RUNNING
            os.write(writing, b"still here\n")
            await _heard(reading, b"still here", heard)
            os.write(writing, b"\x04")
            assert await task.wait("adopted") == 6
            assert await task.delete("adopted") == 6

    bundle = world.bundle("adopted", "echo exit=6")
    other = world.bundle("another", "wait")
    heard = run(before(bundle))
    world.kill_keeper()
    assert world.monitor("adopted") > 0
    world.start()
    run(after(heard))
    for fd in (writing, reading):
        os.close(fd)


def test_what_could_not_be_taken_away_is_tried_again(world: World) -> None:
    """A directory of the task that cannot be removed for a while; the sweep does it then."""
    bundle = world.bundle("stubborn", "wait")
    directory = os.path.join(world.run, "tasks", world.idents[-1], "pin")

    async def begin() -> None:
        async with shim(world, "stubborn", bundle) as task:
            await task.create("stubborn", bundle)
            await task.start("stubborn")

    run(begin())
    os.mkdir(directory)
    subprocess.run(["mount", "-t", "tmpfs", "pin", directory], check=True)
    answer = run(launch(world, "stubborn", bundle, "Delete"))
    assert answer.exit != 0
    assert "Traceback" not in answer.error
    assert world.monitor("stubborn") == 0
    subprocess.run(["umount", directory], check=True)
    run(eventually(lambda: not os.path.exists(directory), "the sweep takes it away", 30))
