"""``unikeel ps``: containers."""

from __future__ import annotations

import time

from unikeel.cli.options import JSON, Command, Option, Parsed
from unikeel.cli.output import age, json, line, table, write
from unikeel.engine import tasks
from unikeel.engine.settings import Settings
from unikeel.errors import NotFound
from unikeel.lean import TYPE_CHECKING
from unikeel.model.states import ContainerState
from unikeel.model.task_states import TaskState

if TYPE_CHECKING:
    from unikeel.cli.session import Session
    from unikeel.engine.containers import Container
    from unikeel.engine.engine import Engine
    from unikeel.engine.tasks import Task

COMMAND = Command(
    "ps",
    "list the containers and tasks that run",
    options=(
        Option(("-a", "--all"), "also those that do not run"),
        Option(("-q", "--quiet"), "print ids only"),
        JSON,
    ),
    examples=(("unikeel ps -a", "all containers"), ("unikeel rm -f $(unikeel ps -aq)", "remove all of them")),
    details="Tasks are what containerd runs; in place of ports they have its namespace, and -q leaves them out: containerd removes them. "
    "JSON keys: id, name, image, state, exit_code, reason, pid, strategy, containerd, namespace, and created, "
    "started, finished in nanoseconds since the epoch (0: not yet); of containers, whose containerd is empty, also image_digest, ports, runs, auto_remove.",
)


def run(parsed: Parsed, session: Session) -> int:
    """List them."""
    with session.engine() as engine:
        records = recorded(engine, everything=parsed.flag("all"))
        running = recorded_tasks(engine, everything=parsed.flag("all"))
    if parsed.flag("json"):
        json([*(described(record) for record in records), *(described_task(task) for task in running)])
    elif parsed.flag("quiet"):
        for record in records:
            line(record.id)
    else:
        now = time.time_ns()
        rows = [
            (record.id, record.name, record.image, state(record), ports(record), age(record.created_ns, now))
            for record in records
        ]
        rows += [
            (task.ident[:12], task.id, task.image, task_state(task), task.namespace, age(task.created_ns, now))
            for task in running
        ]
        write(table(("ID", "NAME", "IMAGE", "STATE", "PORTS", "AGE"), rows))
    return 0


def recorded(engine: Engine, *, everything: bool) -> list[Container]:
    """What is recorded of the containers now, without those that another command removes meanwhile."""
    found = []
    for container in engine.containers(everything=everything):
        try:
            found.append(container.record)
        except NotFound:
            continue
    return found


def recorded_tasks(engine: Engine, *, everything: bool) -> list[Task]:
    """What is recorded of containerd's tasks, whether or not the daemon runs."""
    found = tasks.recorded(engine.services.database)
    return [task for task in found if everything or task.state is not TaskState.STOPPED]


def described_task(task: Task) -> dict[str, object]:
    """One task, as JSON."""
    return {
        "id": task.ident,
        "name": task.id,
        "image": task.image,
        "state": task.state.value,
        "exit_code": task.exit_code if task.finished_ns else None,
        "reason": task.reason,
        "pid": task.pid,
        "strategy": task.strategy,
        "containerd": task.containerd,
        "namespace": task.namespace,
        "created": task.created_ns,
        "started": task.started_ns,
        "finished": task.finished_ns,
    }


def task_state(task: Task) -> str:
    """The state, with the exit code of one that has ended."""
    return f"stopped ({task.exit_code})" if task.state is TaskState.STOPPED else task.state.value


def described(record: Container) -> dict[str, object]:
    """One container, as JSON."""
    return {
        "id": record.id,
        "name": record.name,
        "image": record.image,
        "image_digest": record.image_digest,
        "state": record.state.value,
        "exit_code": record.exit_code,
        "reason": record.reason,
        "pid": record.pid,
        "ports": [port._asdict() for port in Settings.from_json(dict(record.settings)).ports],
        "strategy": record.strategy,
        "runs": record.runs,
        "auto_remove": record.auto_remove,
        "containerd": "",
        "namespace": "",
        "created": record.created_ns,
        "started": record.started_ns,
        "finished": record.finished_ns,
    }


def state(record: Container) -> str:
    """The state, with the exit code of one that has ended."""
    ended = record.state is ContainerState.EXITED and record.exit_code is not None
    return f"exited ({record.exit_code})" if ended else record.state.value


def ports(record: Container) -> str:
    """The published ports."""
    return ", ".join(str(port) for port in Settings.from_json(dict(record.settings)).ports)
