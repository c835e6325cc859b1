"""The conformance suite over all four strategies, on ext4 and erofs images, with real mounts and loop devices."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from boot_stages import World, leftovers
from unikeel.boot.contract import Choice
from unikeel.testing.boot_suite import BootSuite, Stage
from unikeel.testing.boot_tree import make_image, write_tree

_CHOICES = [Choice.CACHE, Choice.SHARED_VIEW, Choice.VIEW, Choice.COPY]
_STAGES = [(choice, fstype) for choice in _CHOICES for fstype in ("ext4", "ext2", "erofs")]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = str(tmp_path_factory.mktemp("images"))
    tree = os.path.join(directory, "tree")
    os.mkdir(tree)
    write_tree(tree)
    made = {fstype: os.path.join(directory, f"{fstype}.img") for fstype in ("ext4", "ext2", "erofs")}
    for fstype, image in made.items():
        make_image(fstype, tree, image)
    return made


@pytest.fixture(scope="class", params=_STAGES, ids=[f"{choice.value}-{fstype}" for choice, fstype in _STAGES])
def stage(
    request: pytest.FixtureRequest, images: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    choice, fstype = request.param
    with World(str(tmp_path_factory.mktemp("root")), images[fstype], fstype) as world:
        yield Stage(world.files, world.source(), choice)
        world.files.release("c1")
        world.files.collect(everything=True)
        assert leftovers(world) == []


class TestStrategies(BootSuite):
    """On each stage in turn."""
