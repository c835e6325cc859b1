"""``exec``, ``import``, ``ready``: whole starts by the command line, from the command's start to the monitor's exec and to the ready guest.

One command gives a sample of each, from the timeline that it writes; its zero point is the instant before the command was spawned. The same
timeline says how long ``acquire`` took inside a real start (scenario ``start``), for comparison with the sample that is taken alone. In each round an
interpreter that does nothing is timed, too (``baseline``): what no Python program can undercut, and a measure of the host's noise.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import Final

from unikeel.bench.plan import Plan, Progress
from unikeel.bench.rows import Board, Key
from unikeel.bench.stage import SNAPSHOTTER, STRATEGIES, Stage
from unikeel.engine.timeline import Timeline
from unikeel.errors import UnikeelError
from unikeel.values import NamedTuple

_STARTS: Final = 30
#: A series that begins with so many failures is not tried any further.
_GIVE_UP: Final = 3
_SECONDS: Final = "60"
_IMAGES: Final = ("hello", "nginx")
_KEEPING: Final = ("cache", "shared-view")


class Sample(NamedTuple):
    """What one start took, in milliseconds."""

    exec: float
    imports: float
    ready: float
    acquire: float
    prepare: float


class NoSample(Exception):
    """A start that is no sample; the message says why."""


#: What can go wrong with a start, or with its timeline.
_FAILURES: Final = (NoSample, UnikeelError, OSError, ValueError, KeyError)


def measure(stage: Stage, plan: Plan, board: Board, progress: Progress) -> None:
    """Start each image by each strategy in turn, many times."""
    images = plan.of(_IMAGES)
    if not plan.wants("exec", "import", "ready"):
        return
    count = plan.count(_STARTS)
    for image in images:
        for strategy in STRATEGIES:
            with contextlib.suppress(*_FAILURES):  # if it fails again, that is counted
                _start(stage, image, strategy)
    baseline = board.series(Key("interpreter", "baseline", "ms"))
    for number in range(count):
        for image in images:
            stage.quiet.wait()
            baseline.add(stage.interpreter_alone())
            for strategy in STRATEGIES:
                progress.at(f"start of {image}, {strategy}", number, count)
                _take(stage, plan, board, image, strategy)


def _take(stage: Stage, plan: Plan, board: Board, image: str, strategy: str) -> None:
    key = Key("warm", "exec", "ms", image, strategy, SNAPSHOTTER, stage.runtime, 1, 0)
    keys = {
        "exec": key,
        "imports": key._replace(metric="import"),
        "ready": key._replace(metric="ready"),
        "acquire": key._replace(scenario="start", metric="acquire"),
        "prepare": key._replace(scenario="start", metric="prepare"),
    }
    with_acquire = ("acquire", "prepare") if plan.wants("acquire") else ()
    wanted = {
        field: board.series(key) for field, key in keys.items() if field in with_acquire or plan.wants(key.metric)
    }
    if all(series.failures >= _GIVE_UP and not series.samples for series in wanted.values()):
        return
    failure = ""
    try:
        sample = check(_start(stage, image, strategy), strategy)
    except _FAILURES as error:
        failure = str(error) or type(error).__name__
    for field, series in wanted.items():
        if failure:
            series.fail(failure)
        else:
            series.add(getattr(sample, field))


def _start(stage: Stage, image: str, strategy: str) -> Timeline:
    """One start, and the end of its container. :raise NoSample: the command failed."""
    path = os.path.join(stage.root, "bench-timeline.json")
    argv = ["run", "-d", "--boot-files", strategy, "--timeline", path, "--timeout", _SECONDS, *start_arguments(image)]
    try:
        done = stage.unikeel(argv)
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise NoSample(f"`unikeel run` ended with status {done.returncode}: {lines[0] if lines else ''}")
        with open(path, encoding="utf-8") as file:
            return Timeline.from_json(json.load(file))
    finally:
        stage.remove_containers()
        if os.path.exists(path):
            os.unlink(path)


def start_arguments(image: str) -> list[str]:
    if image == "nginx":
        return ["-p", f"127.0.0.1:{_free_port()}:80", "--ready", "port:80", image]
    return ["--ready", "first-output", image, "wait"]


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def check(timeline: Timeline, strategy: str) -> Sample:
    """The figures of a start. :raise NoSample: a step is missing, another strategy served, or it was no hit where one is due."""
    spans = {span.name: span for span in reversed(timeline.spans)}
    missing = [name for name in ("interpreter", "import", "boot.acquire", "exec", "ready") if name not in spans]
    if missing:
        raise NoSample(f"the timeline has no step {missing[0]!r}")
    acquire = spans["boot.acquire"]
    served = acquire.attributes.get("strategy")
    if served != strategy:
        raise NoSample(f"{served} served instead ({acquire.attributes.get('fallbacks', '')})")
    if strategy in _KEEPING and acquire.attributes.get("hit") is not True:
        raise NoSample("not a hit, although it was acquired before")
    prepare = spans.get("boot-files.prepare")
    return Sample(
        exec=(spans["exec"].end - timeline.start) / 1e6,
        imports=spans["interpreter"].milliseconds + spans["import"].milliseconds,
        ready=(spans["ready"].end - timeline.start) / 1e6,
        acquire=acquire.milliseconds,
        prepare=prepare.milliseconds if prepare else 0.0,
    )
