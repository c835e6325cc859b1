"""``siblings``: create and start of ``hello`` while none, and while many idle ones of the same image run; their guests are halted.

The two are in one block, in turn the one and the other first, since starting so many for each single sample would be the benchmark of that.
"""

from __future__ import annotations

from typing import Final

from unikeel.bench.containerd.inside import containers
from unikeel.bench.containerd.inside.session import Session
from unikeel.bench.containerd.inside.tasks import ours, sampled
from unikeel.bench.reporting import rotated

_STRATEGIES: Final = ("shared-view", "cache")


async def measure(session: Session) -> None:
    """Rounds of both."""
    await _samples(session, 0, 1, count=False)
    for number in range(session.request.first, session.request.first + session.request.rounds):
        for count in rotated((0, session.request.siblings), number):
            async with containers.running(session, [ours("hello", strategy) for strategy in _STRATEGIES], count):
                session.begin_round()
                # Starting many takes longer than a view stays without users.
                await _samples(session, count, 1, count=False)
                await _samples(session, count, session.request.per_round, count=True)


async def _samples(session: Session, siblings: int, rounds: int, *, count: bool) -> None:
    for number in range(rounds):
        for strategy in rotated(_STRATEGIES, number):
            await sampled(session, ours("hello", strategy), scenario="siblings", siblings=siblings, count=count)
