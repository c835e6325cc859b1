"""Containers come and go: after many of them everything is as before. ``UNIKEEL_CHURN_SECONDS`` says how long (20)."""

from __future__ import annotations

import os
import threading

from lab_support.leaks import Holdings, growth, holdings
from lab_support.stage import Setting, nothing_left, settings
from lab_support.waiting import PATIENCE, Stopwatch, until
from lab_support.world import LONG, ROOTS

__all__ = ["nothing_left"]
setting = settings(ROOTS if LONG else ROOTS[1:])
_SECONDS = float(os.environ.get("UNIKEEL_CHURN_SECONDS", "3600" if LONG else "20"))
_STRATEGIES = ("cache", "shared-view", "view")
#: Python's and SQLite's own caches grow a little in the beginning, and no further.
_MEMORY = 24 << 20


def rounds(setting: Setting, seconds: float, workers: int = 2) -> int:
    """Make and remove containers with every strategy, some at once; how many."""
    watch, counts = Stopwatch(), [0] * workers
    errors: list[str] = []

    def work(number: int) -> None:
        while watch() < seconds and not errors:
            strategy = _STRATEGIES[counts[number] % len(_STRATEGIES)]
            annotations = {"org.unikeel.boot-files": strategy}
            done = setting.run(setting.new("churn"), "exit=1", annotations=annotations, flags=["--rm"], check=False)
            if done.returncode != 1:
                errors.append(f"round {counts[number]} with {strategy}: {done.stderr}")
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + PATIENCE)
    assert errors == []
    return sum(counts)


def settled_holdings(setting: Setting) -> Holdings:
    """What is held once nothing is on its way out any more."""
    world = setting.world
    world.unikeel("boot", "gc")
    seen = [holdings(world)]

    def is_still() -> bool:
        seen.append(holdings(world))
        return seen[-1].counts == seen[-2].counts and seen[-1].counts["views"] == 0

    until(is_still, "nothing is on its way out any more", 30, pause=0.5)
    return seen[-1]


def test_everything_is_as_before(setting: Setting) -> None:
    rounds(setting, min(_SECONDS / 4, 60))
    before = settled_holdings(setting)
    count = rounds(setting, _SECONDS)
    after = settled_holdings(setting)
    assert growth(before, after) == [], f"after {count} containers"
    assert after.memory - before.memory < _MEMORY
    assert count >= _SECONDS / 4, "it was hardly tried"
