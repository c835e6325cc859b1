"""``warm`` and ``first``: identify and acquire alone, and the plain view and mount that they are compared with, all in turn in this process.

It is the daemon's own code with a state root of its own, and no monitor. ``first``: nothing is cached and nothing mounted; ``warm``: the image was acquired
before by another container. For ``copy`` and ``view`` each container pays anew. A sample fails if another strategy served, if it was no hit where one is
due, or if one bit that comes through a descriptor is not the image's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from unikeel.bench.acquiring import read_back
from unikeel.bench.containerd.inside import census, containers, plain
from unikeel.bench.containerd.inside.containers import Kind, Prepared
from unikeel.bench.containerd.inside.harness import Harness
from unikeel.bench.containerd.inside.session import Session
from unikeel.bench.containerd.plan import STRATEGIES, UNIKEEL
from unikeel.bench.reporting import rotated
from unikeel.bench.rows import Key
from unikeel.bench.scenarios.acquire import judge
from unikeel.boot.contract import LOWEST, WHOLE, Choice
from unikeel.errors import UnikeelError

#: The strategies that have a warm and a cold state.
KEEPING: Final = ("shared-view", "cache")
_PLAIN: Final = "view_mount"
_PLAIN_COPY: Final = "view_mount and copy"


async def measure(session: Session) -> None:
    """The rounds of one of the two."""
    request = session.request
    before = await census.take(session.containerd, session.snapshotter)
    async with Harness(session) as harness:
        scenario = _SCENARIOS[request.group](session, harness)
        await scenario.warm_up()
        for number in range(request.first, request.first + request.rounds):
            session.begin_round()
            for image in rotated(request.samples, number):
                await scenario.round(image, number)
    if left := await census.gone(before, session.containerd, session.snapshotter):
        session.failure([session.key(request.group, "acquire")], left)


class _Scenario:
    def __init__(self, session: Session, harness: Harness) -> None:
        self.session = session
        self.harness = harness
        self.scenario = session.request.group

    async def warm_up(self) -> None:
        """Samples that are not counted."""
        for image in self.session.request.samples:
            await self._round(image, 0, count=False)

    async def round(self, image: str, number: int) -> None:
        """A sample of each."""
        await self._round(image, number, count=True)

    async def _round(self, image: str, number: int, *, count: bool) -> None:
        raise NotImplementedError

    async def acquired(self, prepared: Prepared, strategy: str, *, count: bool, layer: str = "") -> None:
        """One identify and acquire, or its failure."""
        image = prepared.kind.image
        key = self.session.key(f"{self.scenario}, {layer}" if layer else self.scenario, "acquire", image, strategy)
        both = key._replace(metric="identify_acquire")
        identify = key._replace(metric="identify", strategy=None)
        warm = self.scenario == "warm"
        try:
            times = await self._one(prepared, strategy, layer, judged=count)
        except (UnikeelError, OSError) as error:
            if count:
                self.session.failure([key, both, identify] if warm else [key], error)
            return
        if count:
            self.session.sample(key, times[1])
        if count and warm:
            self.session.sample(identify, times[0])
            self.session.sample(both, times[0] + times[1])

    async def _one(self, prepared: Prepared, strategy: str, layer: str, *, judged: bool) -> tuple[float, float]:
        """Milliseconds of identify, and of acquire. :raise UnikeelError: it is no sample."""
        image = prepared.kind.image
        paths: Mapping[str, str] = self.session.request.boot_files[image]
        begun = time.perf_counter_ns()
        parent = await self.harness.identify(prepared.id)
        known = time.perf_counter_ns()
        acquired = await self.harness.acquire(parent, prepared, paths, Choice(strategy), layer)
        open_at = time.perf_counter_ns()
        try:
            with acquired:
                answer = {
                    "strategy": acquired.strategy,
                    "hit": acquired.hit,
                    "fallbacks": acquired.fallbacks,
                    "sha256": read_back(acquired),
                }
        finally:
            await self.harness.release(prepared)
        problem = judge(answer, strategy, dict(self.session.request.expected[image]), self.scenario)
        if problem and judged:
            raise UnikeelError(problem)
        return (known - begun) / 1e6, (open_at - known) / 1e6

    async def plain(self, prepared: Prepared, *, copy: bool, count: bool) -> None:
        """One view and mount, or its failure."""
        image = prepared.kind.image
        scenario = f"{self.scenario}-copy" if copy else self.scenario
        key: Key = self.session.key(scenario, "view_mount", image)
        try:
            parent = (await self.harness.identify(prepared.id)).name
            paths = self.session.request.boot_files[image] if copy else {}
            times = await plain.sampled(self.session, parent, paths)
        except (UnikeelError, OSError) as error:
            if count:
                self.session.failure([key], error)
            return
        if count:
            self.session.sample(key, times.view + times.mount + times.copy)


class _Warm(_Scenario):
    """A new container of an image that was acquired before, for each strategy."""

    async def _round(self, image: str, number: int, *, count: bool) -> None:
        prepared = await containers.prepare(self.session, Kind(image, UNIKEEL, "", ()))
        try:
            for strategy in rotated((*STRATEGIES, _PLAIN), number):
                if strategy == _PLAIN:
                    await self.plain(prepared, copy=False, count=count)
                else:
                    await self.acquired(prepared, strategy, count=count)
        finally:
            await containers.remove(self.session, prepared)


class _First(_Scenario):
    """The first container of an image, again and again: what was kept is taken away before each sample."""

    async def _round(self, image: str, number: int, *, count: bool) -> None:
        prepared = await containers.prepare(self.session, Kind(image, UNIKEEL, "", ()))
        try:
            for what in rotated((*KEEPING, _PLAIN, _PLAIN_COPY), number):
                await self.harness.forget()
                if what in KEEPING:
                    await self.acquired(prepared, what, count=count)
                else:
                    await self.plain(prepared, copy=what == _PLAIN_COPY, count=count)
        finally:
            await containers.remove(self.session, prepared)


class _Layers(_Scenario):
    """The first container of an image whose boot files are in one of its layers: a view of the whole image, one of that layer alone, and the cache."""

    async def _round(self, image: str, number: int, *, count: bool) -> None:
        prepared = await containers.prepare(self.session, Kind(image, UNIKEEL, "", ()))
        try:
            for strategy, layer in rotated(_LAYERED, number):
                await self.harness.forget()
                await self.acquired(prepared, strategy, count=count, layer=layer)
        finally:
            await containers.remove(self.session, prepared)


_LAYERED: Final = (
    ("shared-view", WHOLE), ("shared-view", LOWEST), ("view", WHOLE), ("view", LOWEST), ("cache", WHOLE),
)  # fmt: skip
#: Group → how its rounds are taken.
_SCENARIOS: Final[Mapping[str, type[_Scenario]]] = {"first": _First, "warm": _Warm, "layers": _Layers}
