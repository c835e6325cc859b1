"""``kill -9`` of the daemon at each recorded step of Create, Start, Kill and Delete: whoever asked gets the right answer, once, and nothing is left.

The points are learned from a traced life. The short form takes those in :data:`_PART`, the long form all of them with every strategy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from lab_support import ttrpc
from lab_support.dying import Background, dying_at, points, restarted
from lab_support.stage import Setting, nothing_left, settings
from lab_support.world import LONG, ROOTS
from unikeel.containerd.wire import task_pb2

__all__ = ["nothing_left"]
setting = settings(ROOTS if LONG else ROOTS[:1])
_STRATEGIES = ("cache", "shared-view", "view", "copy") if LONG else ("shared-view",)
#: How many points the short form takes, spread over a life.
_SHORT = 8
_INTERNAL = 13
_POISON = "two daemons ended while they did this"


def life(setting: Setting, ident: str, strategy: str) -> Callable[[], None]:
    """Create, start, kill and delete a task, and say how it went."""

    def work() -> None:
        world = setting.world
        setting.detached(ident, "wait", annotations={"org.unikeel.boot-files": strategy})
        assert world.status(ident) == "RUNNING"
        world.ctr("tasks", "kill", "-s", "KILL", ident)
        world.await_status(ident, "STOPPED")
        assert world.delete(ident) == 137
        world.ctr("containers", "rm", ident)

    return work


def part(found: list[str]) -> list[str]:
    """The points that this form of the tests kills at, of those that are the daemon's."""
    own = [point for point in found if not point.startswith("keeper")]
    return own if LONG else own[:: max(1, len(own) // _SHORT)]


@pytest.mark.parametrize("strategy", _STRATEGIES)
def test_the_daemon_dies_at_a_step(setting: Setting, strategy: str) -> None:
    world = setting.world
    life(setting, setting.new("warm"), strategy)()
    found = points(world, life(setting, setting.new("traced"), strategy))
    assert len(part(found)) >= _SHORT, found
    problems = []
    for point in part(found):
        ident = setting.new("k")
        with world.events() as events:
            try:
                with dying_at(world, point) as kill_during:
                    work = Background(life(setting, ident, strategy))
                    killed = kill_during(work)
                    work.join()
                assert killed == 1, "the point was not reached"
                # What was told just before may be told again at once, since the note of it comes after.
                told = [topic for topic, _ in itertools.groupby(events.await_topic(ident, "delete"))]
                assert told == ["create", "start", "exit", "delete"]
                assert world.settled() == []
            except AssertionError as error:
                problems.append(f"{point}: {error}")
                restarted(world)
                world.remove(ident)
    assert problems == []


def test_a_create_that_kills_two_daemons_kills_no_third(setting: Setting) -> None:
    """Whoever asked is told, everybody else is served, and what the two had made is gone."""
    world, poison = setting.world, setting.new("poison")
    answers = []
    with dying_at(world, "task.create.directory", daemons=2) as kill_during:
        work = Background(lambda: answers.append(setting.detached(poison, "wait", check=False)))
        assert kill_during(work) == 2
        work.join()
        (answer,) = answers
        assert (answer.returncode, _POISON in answer.stderr) == (1, True), answer.stderr
        world.remove(poison)
        assert world.settled() == []
        assert setting.run(setting.new(), "exit=3", check=False, flags=["--rm"]).returncode == 3


def test_a_kill_that_kills_two_daemons_kills_no_third(setting: Setting) -> None:
    """The task that it was for lives on, and dies when it is asked again."""
    world, ident = setting.world, setting.new("poison")
    ttrpc.socket_path(world)
    with dying_at(world, "task.kill.begin", daemons=2) as kill_during:
        setting.detached(ident, "wait")
        answers = []
        request = task_pb2.KillRequest(id=ident, signal=9)
        work = Background(lambda: answers.append(ttrpc.ask(world, "Kill", request)))  # containerd 1.7 says "unknown"
        assert kill_during(work) == 2
        work.join()
        (answer,) = answers
        assert (answer.code, _POISON in answer.message) == (_INTERNAL, True)
        assert world.status(ident) == "RUNNING"
        world.ctr("tasks", "kill", "-s", "KILL", ident)
        world.await_status(ident, "STOPPED")
        assert world.delete(ident) == 137
        world.ctr("containers", "rm", ident)


@pytest.mark.long
def test_the_keeper_dies_at_a_step(setting: Setting) -> None:
    """containerd takes that for the end of the task; whatever the step, everything is cleaned up, and the next start works."""
    world = setting.world
    life(setting, setting.new("warm"), "cache")()
    passed = points(world, life(setting, setting.new("traced"), "cache"))
    # What comes before is the start of the keeper itself.
    found = [point for point in passed[passed.index("task.create.recorded") :] if point.startswith("keeper")]
    for point in found:
        ident = setting.new("k")
        with dying_at(world, point) as kill_during:
            work = Background(lambda ident=ident: setting.detached(ident, "wait", check=False))  # type: ignore[misc]
            kill_during(work)
            work.join()
        world.remove(ident)
        assert world.settled() == [], point
        assert setting.run(setting.new(), "exit=3", check=False, flags=["--rm"]).returncode == 3, point
