"""One start by a command, as a user gives it, until the guest has replied; its figures come from the timeline that the command writes."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Sequence
from typing import Final

from unikeel.bench.campaign.plan import Cell
from unikeel.bench.rows import Key
from unikeel.bench.scenarios.starts import NoSample, check, start_arguments
from unikeel.bench.stage import SNAPSHOTTER, Stage
from unikeel.engine.timeline import Timeline
from unikeel.errors import NotFound, UnikeelError
from unikeel.values import NamedTuple

#: Units of metrics that are not in milliseconds.
UNITS: Final = {
    "written": "KiB",
    "host": "MiB",
    "monitor": "MiB",
    "guest": "MiB",
    "boot_copies": "MiB",
    "cached": "MiB",
    "slab": "MiB",
    "siblings_cpu": "%",
    "flushes": "flushes",
}
#: What can go wrong with a start.
FAILURES: Final = (NoSample, UnikeelError, OSError, ValueError, KeyError)


class Start(NamedTuple):
    """One start: its figures by metric, and its timeline."""

    figures: dict[str, float]
    timeline: Timeline


def key(
    cell: Cell,
    metric: str,
    runtime: str | None,
    *,
    image: str = "",
    concurrency: int | None = 1,
    siblings: int | None = 0,
) -> Key:
    """A series of a cell. Where siblings are of another image, the scenario says so."""
    scenario = f"{cell.scenario}, beside {cell.beside}" if cell.beside else cell.scenario
    return Key(
        scenario, metric, UNITS.get(metric, "ms"), image or cell.image, cell.strategy or None, SNAPSHOTTER, runtime, concurrency, siblings
    )  # fmt: skip


def arguments(image: str, name: str) -> list[str]:
    """The operands and the way to tell readiness. hello repeats its command line, so its reply is a word that only this start was given."""
    if image == "nginx":
        return start_arguments(image)
    return ["--ready", f"console:{name}", image, "wait", name]


def start(stage: Stage, image: str, strategy: str, name: str, timeout: float, program: Sequence[str] = ()) -> Timeline:
    """One start; the container runs when this returns. :param program: what is run in place of ``unikeel``. :raise NoSample: the command failed."""
    path = os.path.join(stage.root, f"{name}.json")
    argv = ["run", "-d", "--name", name, "--boot-files", strategy, "--timeline", path, "--timeout", f"{timeout:g}"]
    try:
        words = [*argv, *arguments(image, name)]
        done = stage.unikeel(words, program=program) if program else stage.unikeel(words)
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise NoSample(f"`unikeel run` ended with status {done.returncode}: {lines[0] if lines else ''}")
        with open(path, encoding="utf-8") as file:
            return Timeline.from_json(json.load(file))
    finally:
        if os.path.exists(path):
            os.unlink(path)


def remove(stage: Stage, name: str) -> float:
    """End and remove a container, if it is there; milliseconds."""
    begun = time.monotonic_ns()
    try:
        stage.engine.container(name).remove(force=True)
    except NotFound:
        return 0.0
    return (time.monotonic_ns() - begun) / 1e6


def sampled(stage: Stage, cell: Cell, name: str, timeout: float, program: Sequence[str] = ()) -> Start:
    """A whole life. :param program: see :func:`start`. :raise NoSample: it was not what was asked for. Nothing is left of it, however it went."""
    written = _written(stage)
    try:
        timeline = start(stage, cell.image, cell.strategy, name, timeout, program)
        found = check(timeline, cell.strategy)
    except BaseException:
        remove(stage, name)
        raise
    figures = found._asdict()
    figures["import"] = figures.pop("imports")
    figures["remove"] = remove(stage, name)
    figures["written"] = (_written(stage) - written) / 1024
    return Start(figures, timeline)


def _written(stage: Stage) -> int:
    """Bytes that commands, what they ran and the keeper have had written to disks so far (proc(5), getrusage(2)); what removes containers is this process."""
    pids = [os.getpid(), stage.keeper()]
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_oublock * 512 + sum(map(_of_process, filter(None, pids)))


def _of_process(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/io", encoding="ascii") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("write_bytes:")), 0)
    except OSError:
        return 0


def steps(timeline: Timeline) -> list[tuple[str, float, float]]:
    """The outermost steps of a start, in milliseconds from its beginning."""
    return [
        (span.name, (span.start - timeline.start) / 1e6, (span.end - timeline.start) / 1e6)
        for span in timeline.spans
        if not span.parent
    ]
