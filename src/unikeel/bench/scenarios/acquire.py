"""``acquire``: from the known parent to open descriptors of all boot files, in a new process for each sample.

``first``: nothing is cached and nothing mounted; the images were loaded just before, so their pages are where the load left them. ``warm``: the
image was started before, in another process. For ``copy`` and ``view`` each container pays anew: that is their nature. A sample fails if another
strategy served, if it was no hit where one is due, or if one bit that comes through a descriptor is not the image's.
"""

from __future__ import annotations

import json
from typing import Any, Final

from unikeel.bench.plan import IMAGES, Plan, Progress
from unikeel.bench.rows import Board, Key
from unikeel.bench.stage import SNAPSHOTTER, STRATEGIES, Stage

_WARM_UPS: Final = 2
#: 200 samples are what p99 needs.
_WARM: Final = 200
_WARM_NGINX: Final = 50
_FIRST: Final = 30
#: The strategies that are warm because something was kept.
_KEEPING: Final = ("cache", "shared-view")


def measure(stage: Stage, plan: Plan, board: Board, progress: Progress) -> None:
    """Both scenarios; ``first`` first, because ``warm`` leaves things behind."""
    images = plan.of(IMAGES)
    if not plan.wants("acquire") or not images:
        return
    for number in range(plan.count(_FIRST)):
        progress.at("acquire, first", number, plan.count(_FIRST))
        for image in images:
            stage.quiet.wait()
            for strategy in STRATEGIES:
                stage.forget_boot_files()
                _take(stage, board, "first", image, strategy)
    for image in images:
        for strategy in STRATEGIES * _WARM_UPS:
            ask(stage, image, strategy)
    rounds = {image: plan.count(_WARM_NGINX if image == "nginx" else _WARM) for image in images}
    for number in range(max(rounds.values())):
        progress.at("acquire, warm", number, max(rounds.values()))
        for image in (image for image in images if number < rounds[image]):
            stage.quiet.wait()
            for strategy in STRATEGIES:
                _take(stage, board, "warm", image, strategy)


def _take(stage: Stage, board: Board, scenario: str, image: str, strategy: str) -> None:
    answer = ask(stage, image, strategy)
    key = Key(scenario, "acquire", "ms", image, strategy, SNAPSHOTTER, None, 1, 0)
    prepare = board.series(key._replace(metric="prepare"))
    series = board.series(key)
    failure = judge(answer, strategy, stage.expected[image], scenario)
    if failure:
        series.fail(failure)
        prepare.fail(failure)
    else:
        series.add(answer["ns"] / 1e6)
        prepare.add(answer["prepare_ns"] / 1e6)


def ask(stage: Stage, image: str, strategy: str) -> dict[str, Any]:
    """One acquire in a process of its own; what it answers."""
    done = stage.python("unikeel.bench.acquiring", [stage.root, stage.config, image, strategy])
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        return {"error": lines[-1] if lines else f"the process ended with status {done.returncode}"}
    return answer if isinstance(answer, dict) else {"error": "the process answered something else"}


def judge(answer: dict[str, Any], strategy: str, expected: dict[str, str], scenario: str) -> str:
    """Why a sample is none; empty if it is one."""
    if "error" in answer:
        return str(answer["error"])
    if answer["strategy"] != strategy:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in answer["fallbacks"])
        return f"{answer['strategy']} served instead ({reasons})"
    if answer["sha256"] != expected:
        return "the bytes read back are not the image's"
    if strategy in _KEEPING and answer["hit"] != (scenario == "warm"):
        return (
            "not a hit, although it was acquired before" if scenario == "warm" else "a hit, although nothing was kept"
        )
    return ""
