"""Tasks, outcomes and events on the disk, and the writer that puts changes together."""

from __future__ import annotations

import sqlite3
import threading
from functools import partial
from typing import Any

import pytest
from google.protobuf.empty_pb2 import Empty

from unikeel.engine.tasks import Place, Task, Tasks, identify, idents
from unikeel.errors import AlreadyExists, FailedPrecondition, Internal, NotFound, ResourceExhausted
from unikeel.model.task_states import TaskState
from unikeel.records.database import Database
from unikeel.records.writer import Writer
from unikeel.shim.outbox import Outbox
from unikeel.shim.outcomes import Asked, Outcomes


@pytest.fixture
def database(tmp_path: Any) -> Any:
    found = Database(str(tmp_path / "state.db"))
    yield found
    found.close()


def _task(name: str) -> Task:
    ident = identify("/c.sock", "default", name)
    return Task(ident, "/c.sock", "default", name, TaskState.CREATING, 1, "", {"bundle": "/b"}, {"image": "i"}, -1)


def _add(tasks: Tasks, name: str, cursor: sqlite3.Cursor) -> Task:
    return tasks.add(cursor, _task(name))


def _remember(tasks: Tasks, ttrpc: str, cursor: sqlite3.Cursor) -> None:
    tasks.remember(cursor, Place("/c.sock", "default"), ttrpc)


def _tell(outbox: Outbox, topic: str, cursor: sqlite3.Cursor) -> None:
    outbox.add(cursor, "/c.sock", "default", topic, Empty())


def test_a_task_is_recorded_changed_and_forgotten(database: Database) -> None:
    tasks, writer = Tasks(database, 8), Writer(database)
    task = writer.write(lambda cursor: tasks.add(cursor, _task("a")))
    assert task.slot == 7
    changed = writer.write(lambda cursor: tasks.update(cursor, task, TaskState.CREATED, pid=5, cgroups={"x": "/y"}))
    assert tasks.all() == [changed] == [task._replace(state=TaskState.CREATED, pid=5, cgroups={"x": "/y"})]
    assert idents(database) == {task.ident}
    with pytest.raises(NotFound):
        writer.write(lambda cursor: tasks.update(cursor, task, pid=6))
    with pytest.raises(FailedPrecondition):
        writer.write(lambda cursor: tasks.update(cursor, changed, TaskState.PAUSED))
    writer.write(lambda cursor: tasks.delete(cursor, changed))
    assert tasks.all() == []


def test_slots_are_taken_from_above_and_given_again(database: Database) -> None:
    tasks, writer = Tasks(database, 3), Writer(database)
    made = [writer.write(partial(_add, tasks, name)) for name in "abc"]
    assert [task.slot for task in made] == [2, 1, 0]
    with pytest.raises(ResourceExhausted):
        writer.write(lambda cursor: tasks.add(cursor, _task("d")))
    writer.write(lambda cursor: tasks.delete(cursor, made[1]))
    assert writer.write(lambda cursor: tasks.add(cursor, _task("d"))).slot == 1
    writer.write(lambda cursor: tasks.delete(cursor, made[2]))
    with pytest.raises(AlreadyExists):
        writer.write(lambda cursor: tasks.add(cursor, _task("a")))


def test_places_are_remembered(database: Database) -> None:
    tasks, writer = Tasks(database, 3), Writer(database)
    for ttrpc in ("/old", "/new"):
        writer.write(partial(_remember, tasks, ttrpc))
    assert tasks.places() == {Place("/c.sock", "default"): "/new"}
    assert Place("/c.sock", "default").short != Place("/c.sock", "k8s.io").short


def test_nobody_has_tasks_where_no_daemon_was(database: Database) -> None:
    assert idents(database) == set()


def test_an_outcome_is_told_again_until_its_connection_ends(database: Database) -> None:
    outcomes, writer = Outcomes(database), Writer(database)
    asked = Asked((1 << 64) - 1, 3)
    assert outcomes.find(asked) is None
    writer.write(lambda cursor: outcomes.store(cursor, asked, b"answer"))
    assert outcomes.find(asked) == b"answer"
    other = asked._replace(stream=5)
    writer.write(lambda cursor: outcomes.store_error(cursor, other, NotFound("there is no task x")))
    with pytest.raises(NotFound, match="no task x"):
        outcomes.find(other)
    writer.later(lambda cursor: outcomes.forget(cursor, asked.connection))
    writer.flush()
    assert outcomes.find(asked) is None


def test_events_wait_in_their_order(database: Database) -> None:
    outbox, writer = Outbox(database), Writer(database)
    for topic in ("/tasks/create", "/tasks/start", "/tasks/exit"):
        writer.write(partial(_tell, outbox, topic))
    first, *rest = outbox.waiting()
    writer.write(lambda cursor: outbox.taken(cursor, "/c.sock", first.number))
    assert outbox.waiting() == rest
    assert [event.topic for event in rest] == ["/tasks/start", "/tasks/exit"]


def test_changes_of_many_are_made_together_and_fail_alone(database: Database) -> None:
    writer = Writer(database)
    writer.write(lambda cursor: cursor.execute("CREATE TABLE numbers (n INTEGER UNIQUE)").rowcount)
    results: list[object] = []

    def insert(number: int) -> None:
        try:
            results.append(
                writer.write(lambda cursor: cursor.execute("INSERT INTO numbers VALUES (?)", (number,)).rowcount)
            )
        except sqlite3.IntegrityError:
            results.append("refused")

    with database.write():  # nobody can write meanwhile, so that they meet
        threads = [threading.Thread(target=insert, args=(number % 20,)) for number in range(40)]
        for thread in threads:
            thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(map(str, results)) == ["1"] * 20 + ["refused"] * 20
    assert len(database.query("SELECT n FROM numbers")) == 20


@pytest.mark.parametrize(("changes", "flushed"), [((False,), False), ((True,), True), ((False, True), True)])
def test_only_what_must_outlive_the_host_is_flushed(
    database: Database, monkeypatch: pytest.MonkeyPatch, changes: tuple[bool, ...], flushed: bool
) -> None:
    writer = Writer(database)
    flushes: list[int] = []
    made: list[bool] = []
    monkeypatch.setattr(database, "flush", lambda: flushes.append(1))

    def change(_cursor: sqlite3.Cursor) -> None:
        made.append(True)

    with database.write(flush=False):  # nobody can write meanwhile, so that they meet
        threads = [threading.Thread(target=partial(writer.write, change, flush=flush)) for flush in changes]
        for thread in threads:
            thread.start()
        for _ in range(3):
            writer.later(change)
    for thread in threads:
        thread.join(60)
    writer.flush()
    assert len(made) == len(changes) + 3
    assert bool(flushes) is flushed


def test_what_waits_is_written_at_the_end(database: Database) -> None:
    outcomes, writer = Outcomes(database), Writer(database)
    writer.later(lambda cursor: outcomes.store(cursor, Asked(1, 1), b"x"))
    writer.close()
    assert outcomes.find(Asked(1, 1)) == b"x"
    with pytest.raises(Internal):
        writer.write(lambda _cursor: None)
