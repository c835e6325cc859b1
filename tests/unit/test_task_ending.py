"""A task's end, and kills by its memory limit: each is told once, in the order in which it happened, whichever is noticed first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ttrpc_service import run
from unikeel.engine.ending import ExitReport
from unikeel.engine.tasks import Task
from unikeel.model.task_states import TaskState
from unikeel.shim import ending
from unikeel.shim.desk import Desk
from unikeel.shim.ending import Ending
from unikeel.shim.live import Live


class Told:
    """A desk with one task, whose changes take their time as those of a real one do."""

    def __init__(self) -> None:
        task = Task("t1", "/c.sock", "default", "one", TaskState.RUNNING, 1, "", {}, {}, 0, pid=7)
        self.live = Live(task)
        self.topics: list[str] = []
        self.begun: list[asyncio.Task[Any]] = []
        self.registry = SimpleNamespace(by_name=lambda _ident: self.live)
        self.oom = SimpleNamespace(remove=lambda _ident: None)
        metrics = SimpleNamespace(ended=lambda: None)
        self.node = SimpleNamespace(work=self.work, begin=self.begin, metrics=metrics)

    async def work(self, function: Callable[..., Any], *arguments: Any) -> Any:
        await asyncio.sleep(0)
        return function(*arguments)

    def begin(self, coroutine: Any) -> None:
        self.begun.append(asyncio.ensure_future(coroutine))

    async def change(self, live: Live, state: TaskState | None = None, *, happened: Any, **changes: Any) -> Task:
        before = live.task
        await asyncio.sleep(0)
        task = before._replace(state=state or before.state, **changes)
        self.topics += [topic for topic, _ in happened(task)]
        await asyncio.sleep(0)
        return live.changed(task)


@pytest.mark.parametrize("first", ["limit", "end"])
@pytest.mark.parametrize("rounds", range(4))
def test_the_limit_is_told_before_the_end(first: str, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "oom_kills", lambda _cgroups: 1)
    monkeypatch.setattr(Ending, "_report", lambda _self, _task: ExitReport(137, "killed", 5, monitor_failed=False))

    async def test() -> None:
        told = Told()
        taking = Ending(cast("Desk", told))
        notices: list[Callable[[str], None]] = [taking.limit_hit, taking.told]
        for notice in notices if first == "limit" else reversed(notices):
            notice("t1")
            for _ in range(rounds):
                await asyncio.sleep(0)
        await asyncio.gather(*told.begun)
        assert told.topics == ["/tasks/oom", "/tasks/exit"]
        assert told.live.task.state is TaskState.STOPPED
        assert told.live.task.exit_code == 137

    run(test)
