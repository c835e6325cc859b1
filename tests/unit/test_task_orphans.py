"""Tasks that containerd has given up: who must say so, and how often, before a guest is ended for it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from unikeel.engine.tasks import Task, identify
from unikeel.errors import Unavailable
from unikeel.model.task_states import TaskState
from unikeel.shim import orphans
from unikeel.shim.live import Live, Registry
from unikeel.shim.making import Making
from unikeel.shim.orphans import Known, Orphans

_ALL, _NO_TASK, _NOTHING = Known(True, True), Known(False, True), Known(False, False)


class Stage:
    """A registry with one task, a containerd that says what it is told to, a clock."""

    def __init__(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bundle = bundle
        self.registry = Registry()
        self.live = self.put()
        self.says: Known | None = _ALL
        self.asked = 0
        self.now = 1000.0
        self.orphans = Orphans(self.registry, cast("Making", self), self.ask)
        monkeypatch.setattr(orphans, "time", SimpleNamespace(monotonic=lambda: self.now))

    def put(self, state: TaskState = TaskState.RUNNING) -> Live:
        ident = identify("/sock", "default", "c")
        request = {"bundle": str(self.bundle)}
        return self.registry.put(Task(ident, "/sock", "default", "c", state, 1, "", request, {}, 0))

    async def ask(self, task: Task) -> Known:
        assert task is self.live.task
        self.asked += 1
        if self.says is None:
            raise Unavailable("containerd is away")
        return self.says

    async def discard(self, live: Live) -> Task:
        """As :meth:`Making.discard`."""
        self.registry.forget(live)
        return live.task

    def look(self, says: Known | None, seconds: float = 5.0) -> bool:
        """Some seconds later, a look; whether the task is there still."""
        self.says = says
        self.now += seconds
        asyncio.run(self.orphans.sweep())
        return len(self.registry) > 0


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    return Stage(bundle, monkeypatch)


def test_nobody_is_asked_for_a_task_of_this_daemon_with_a_bundle(stage: Stage) -> None:
    assert stage.look(_NOTHING)
    assert stage.look(_NOTHING, 1000)
    assert stage.asked == 0


def test_containerd_is_asked_once_for_an_earlier_daemon_s(stage: Stage) -> None:
    stage.orphans.doubt()
    assert stage.look(_ALL)
    assert stage.look(_NOTHING, 1000)
    assert stage.asked == 1


@pytest.mark.parametrize("says", [_NO_TASK, _NOTHING])
def test_without_a_bundle_and_a_task_it_goes_after_a_while(stage: Stage, says: Known) -> None:
    stage.bundle.rmdir()
    assert stage.look(says)
    assert stage.look(says, 7)
    assert not stage.look(says, 2)


def test_a_bundle_that_is_not_seen_is_no_reason_while_containerd_knows_the_task(stage: Stage) -> None:
    stage.bundle.rmdir()
    for _ in range(5):
        assert stage.look(_ALL)


def test_a_task_without_a_container_goes_although_it_has_a_bundle(stage: Stage) -> None:
    stage.orphans.doubt()
    assert stage.look(_NOTHING)
    assert not stage.look(_NOTHING, 9)


def test_a_task_with_a_bundle_and_a_container_stays(stage: Stage) -> None:
    """containerd will find out about it when it loads the bundle next."""
    stage.orphans.doubt()
    for _ in range(5):
        assert stage.look(_NO_TASK)


@pytest.mark.parametrize("between", [None, _ALL])
def test_who_is_not_sure_is_asked_from_the_beginning(stage: Stage, between: Known | None) -> None:
    os.rmdir(stage.bundle)
    assert stage.look(_NOTHING)
    assert stage.look(between)
    assert stage.look(_NOTHING)
    assert stage.look(_NOTHING)
    assert not stage.look(_NOTHING)


def test_a_containerd_that_is_away_is_asked_again_when_it_is_back(stage: Stage) -> None:
    stage.orphans.doubt()
    for _ in range(5):
        assert stage.look(None)
    assert stage.look(_NOTHING)
    assert not stage.look(_NOTHING, 9)


@pytest.mark.parametrize("state", [TaskState.CREATING, TaskState.DELETING])
def test_what_is_under_way_is_left(stage: Stage, state: TaskState) -> None:
    stage.live = stage.put(state)
    stage.orphans.doubt()
    stage.bundle.rmdir()
    assert stage.look(_NOTHING)
    assert stage.look(_NOTHING, 100)
    assert stage.asked == 0


def test_what_somebody_works_on_is_left(stage: Stage) -> None:
    stage.bundle.rmdir()

    async def work() -> None:
        stage.says = _NOTHING
        async with stage.live.lock:
            for _ in range(3):
                stage.now += 10
                await stage.orphans.sweep()

    asyncio.run(work())
    assert (len(stage.registry), stage.asked) == (1, 0)


def test_one_that_cannot_be_taken_away_is_tried_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(_live: Live) -> Task:
        raise Unavailable("it does not die")

    stage.bundle.rmdir()
    with monkeypatch.context() as patched:
        patched.setattr(stage, "discard", refused)
        assert stage.look(_NOTHING)
        assert stage.look(_NOTHING, 9)
    assert not stage.look(_NOTHING)
