"""``import``, scenario ``all``: the interpreter's start and *every* import before the monitor's exec, also those that come when first needed.

The steps ``interpreter`` and ``import`` of a timeline end where the command begins its work; what it imports after that is in other steps. Here
the interpreter itself lists its imports (``-X importtime``), which makes each a little dearer. What is imported once the monitor runs (to ask it how it
is, which brings asyncio along) goes on while the guest boots, and is not counted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Final

from unikeel.bench.plan import Plan, Progress
from unikeel.bench.rows import Board, Key
from unikeel.bench.scenarios.starts import start_arguments
from unikeel.bench.stage import SNAPSHOTTER, Stage
from unikeel.engine.timeline import Timeline
from unikeel.errors import UnikeelError

_STARTS: Final = 10
_IMAGES: Final = ("hello", "nginx")
_STRATEGY: Final = "cache"
_FIRST: Final = "unikeel.cli.main"
#: The first that is imported after the exec.
_AFTER: Final = "unikeel.sandbox.controlling"
_MARK: Final = "import time:"


def measure(stage: Stage, plan: Plan, board: Board, progress: Progress) -> None:
    """Some starts by one strategy: imports hardly differ between strategies."""
    if not plan.wants("import"):
        return
    count = plan.count(_STARTS)
    for number in range(count):
        for image in plan.of(_IMAGES):
            stage.quiet.wait()
            progress.at(f"imports of a start of {image}", number, count)
            series = board.series(Key("all", "import", "ms", image, _STRATEGY, SNAPSHOTTER, stage.runtime, 1, 0))
            try:
                series.add(_one(stage, image))
            except (UnikeelError, OSError, ValueError, KeyError) as error:
                series.fail(str(error) or type(error).__name__)


def _one(stage: Stage, image: str) -> float:
    path = os.path.join(stage.root, "bench-timeline.json")
    argv = ["run", "-d", "--boot-files", _STRATEGY, "--timeline", path, *start_arguments(image)]
    try:
        done = stage.unikeel(argv, "-X", "importtime")
        lines = done.stderr.decode(errors="replace").splitlines()
        if done.returncode:
            said = [line for line in lines if not line.startswith(_MARK)]
            raise ValueError(f"`unikeel run` ended with status {done.returncode}: {said[0] if said else ''}")
        with open(path, encoding="utf-8") as file:
            interpreter = Timeline.from_json(json.load(file)).find("interpreter")
        if interpreter is None:
            raise ValueError("the timeline has no step 'interpreter'")
        return interpreter.milliseconds + later_imports(lines)
    finally:
        stage.remove_containers()
        if os.path.exists(path):
            os.unlink(path)


def later_imports(lines: Iterable[str]) -> float:
    """Milliseconds of all imports after that of the command line's first module, which the step ``interpreter`` ends in, up to the monitor's exec.

    A module is listed after those that it imports, so all that comes later in the list was imported later. What that first module imports
    after its clock was read is listed before it: it is counted from the first module of ours on.
    """
    total, counting = 0, False
    for line in lines:
        if not line.startswith(_MARK):
            continue
        own, _, name = (part.strip() for part in line.removeprefix(_MARK).split("|"))
        if name == _AFTER:
            break
        counting = counting or name == "unikeel" or name.startswith("unikeel.")
        if counting and name != _FIRST:
            total += int(own)
    return total / 1000
