"""What the test modules of the lab share as fixtures: a world, a name for a container, and the look at what is left.

A module names where it runs by ``world = worlds(COMBINATIONS)``, and imports the other two.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest

from lab_support.world import Combination, World, name_of, world_of

_numbers = itertools.count(1)


class Setting(NamedTuple):
    """Where one test runs: a world, and a snapshotter in it, whose images are there."""

    world: World
    combination: Combination

    @property
    def snapshotter(self) -> str:
        """The snapshotter's name."""
        return self.combination.snapshotter

    def new(self, word: str = "c") -> str:
        """A name that no container has."""
        return f"{word}{next(_numbers)}"

    def run(self, ident: str, *args: str, **options: Any) -> Any:
        """:meth:`World.run` with this snapshotter."""
        return self.world.run(ident, *args, snapshotter=self.snapshotter, **options)

    def detached(self, ident: str, *args: str, **options: Any) -> Any:
        """:meth:`World.detached` with this snapshotter."""
        return self.world.detached(ident, *args, snapshotter=self.snapshotter, **options)


def settings(combinations: Sequence[Combination]) -> Callable[..., Setting]:
    """A fixture: the settings that a module's tests run in, one after the other."""

    @pytest.fixture(scope="module", params=combinations, ids=name_of)
    def setting(request: pytest.FixtureRequest) -> Setting:
        combination: Combination = request.param
        world = world_of(combination.root, request.config)
        world.provide(combination.snapshotter)
        return Setting(world, combination)

    return setting


@pytest.fixture(autouse=True)
def nothing_left(setting: Setting) -> Iterator[None]:
    """Whatever a test leaves is removed, and was a failure of that test."""
    yield
    left = setting.world.settled()
    for ident in setting.world.ctr("containers", "ls", "-q").stdout.split():
        setting.world.remove(ident)
    assert left == []
