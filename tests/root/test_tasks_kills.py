"""``kill -9`` of the daemon at every recorded step of a task's life: containerd's requests are answered by the next one, and nothing is lost, done twice or left.

The points are learned from a traced life. The short form kills at a part of them, the long form (UNIKEEL_LONG=1) at all.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterator

import pytest

from tasks_world import LONG, World, eventually, kill_and_wait, names_of, run, shim, until

#: What the short form kills at: of each request, where it hurts most.
_PART = (
    "task.create.recorded",
    "task.create.boot-files",
    "task.create.launching",
    "task.create.launched",
    "task.create.created",
    "task.start.let-go",
    "task.start.running",
    "task.pause.frozen",
    "task.kill.sent",
    "task.exit.read",
    "task.exit.recorded",
    "task.clear.sandbox",
    "task.delete.cleared",
    "task.delete.done",
)
_EVENTS = ["create", "start", "paused", "resumed", "exit", "delete"]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="uk-") as directory:  # pytest's are too long for the paths of sockets
        made = World(directory)
        made.start()
        run(life(made, "warm"))
        made.stop()
        yield made
        made.close()


async def life(world: World, name: str) -> None:
    """A whole life; whatever happens to the daemon, containerd sees just this."""
    bundle = world.bundle(name, "wait")
    async with shim(world, name, bundle) as task:
        pid = await task.create(name, bundle)
        assert (await task.state(name)).pid == pid
        assert await task.start(name) == pid
        waiting = asyncio.ensure_future(task.wait(name))
        await task.pause(name)
        await task.resume(name)
        await task.kill(name, signal.SIGKILL)
        assert await waiting == 137
        assert await task.delete(name) == 137
    await eventually(lambda: _EVENTS[-1] in world.topics(name), "all events are told")
    # Those that were told just before the daemon died may be told again by the next one; none is told before its turn, and none is left out.
    assert names_of(world.topics(name)) == _EVENTS


def pid_in(told: str) -> int:
    """The process that has stopped."""
    with open(told, encoding="ascii") as file:
        return int(file.read().split()[1])


async def killed_at(world: World, name: str, told: str) -> None:
    """A life during which the daemon is killed where it has stopped itself."""
    living = asyncio.ensure_future(life(world, name))
    await eventually(lambda: living.done() or (os.path.exists(told) and os.path.getsize(told)), "it stops")
    if not living.done():
        pid = await asyncio.to_thread(pid_in, told)
        await asyncio.to_thread(kill_and_wait, pid)
    await living


def points(world: World) -> list[str]:
    """The points that a daemon passes in a life, each once."""
    trace = os.path.join(world.directory, "trace")
    world.start(UNIKEEL_FAILPOINT_TRACE=trace)
    before = os.path.getsize(trace)
    run(life(world, "traced"))
    world.stop()
    with open(trace, encoding="utf-8") as file:
        file.seek(before)
        return [name for name in names_of(file.read().split()) if not name.startswith("keeper")]


def test_the_daemon_is_killed_at_each_step(world: World) -> None:
    passed = points(world)
    assert set(_PART) <= set(passed)
    for index, point in enumerate(passed if LONG else _PART):
        told = world.start_stopping_at(point)
        run(killed_at(world, f"life{index}", told))
        assert os.path.exists(told), f"{point} was not reached"
        assert world.settled() == [], point
        world.stop()


def test_a_request_that_kills_daemons_is_refused(world: World) -> None:
    """Two daemons died over a Create: the keeper answers it, and what there is of the task is taken back."""

    async def create() -> None:
        bundle = world.bundle("deadly", "wait")
        async with shim(world, "deadly", bundle) as task:
            asking = asyncio.ensure_future(task.create("deadly", bundle))
            killed = 0
            while not asking.done():
                await asyncio.sleep(0.01)
                if killed < 2 and world.has_directory("deadly"):
                    daemon = int(world.hello().get("daemon") or 0)
                    if daemon:
                        await asyncio.to_thread(kill_and_wait, daemon)
                        killed += 1
            error = asking.exception()
            assert error is None or "daemon" in str(error)
            if error is None:
                await task.kill("deadly")
                await task.delete("deadly")

    world.start()
    run(create())
    until(lambda: world.hello().get("ready") is True)
    assert world.settled() == []
    world.stop()
