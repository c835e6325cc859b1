"""The conformance suite over all four strategies, with parents that a containerd's snapshotters give: block images, one and several layers
of directories, several erofs images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from containerd_stages import ContainerdWorld
from unikeel.boot.contract import Choice
from unikeel.boot.readers.contract import PathReason
from unikeel.containerd.records import Mount
from unikeel.testing.boot_suite import BootSuite, Stage
from unikeel.testing.boot_tree import CASES, Case, make_image, write_tree

_CHOICES = [Choice.CACHE, Choice.SHARED_VIEW, Choice.VIEW, Choice.COPY]
_KINDS = ("blockfile", "erofs", "bind", "overlay", "erofs-layers", "fsmerge")
_STAGES = [(choice, kind) for choice in _CHOICES for kind in _KINDS]
_OVERLAY = "format/mkdir/overlay"


@pytest.fixture(scope="session")
def parents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Mount, ...]]:
    directory = str(tmp_path_factory.mktemp("parents"))
    tree, other = os.path.join(directory, "tree"), os.path.join(directory, "other")
    for path in (tree, other):
        os.mkdir(path)
    write_tree(tree)
    with open(os.path.join(other, "above"), "wb") as file:
        file.write(b"another layer")
    ext4, erofs, above = (os.path.join(directory, name) for name in ("ext4", "erofs", "above"))
    make_image("ext4", tree, ext4)
    make_image("erofs", tree, erofs)
    make_image("erofs", other, above)
    options = ("ro", "loop")
    layers = (Mount("erofs", above, "", options), Mount("erofs", erofs, "", options))
    return {
        "blockfile": (Mount("ext4", ext4, "", ("loop", "ro")),),
        "erofs": (Mount("erofs", erofs, "", options),),
        "bind": (Mount("bind", tree, "", ("ro", "rbind")),),
        "overlay": (Mount("overlay", "overlay", "", (f"lowerdir={other}:{tree}", "index=off")),),
        "erofs-layers": (*layers, Mount(_OVERLAY, "overlay", "", ("lowerdir={{ overlay 0 1 }}",))),
        "fsmerge": (layers[1], Mount("format/bind", "{{ mount 0 }}", "", ("ro", "rbind"))),
    }


@pytest.fixture(scope="class", params=_STAGES, ids=[f"{choice.value}-{kind}" for choice, kind in _STAGES])
def stage(
    request: pytest.FixtureRequest, parents: dict[str, tuple[Mount, ...]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    choice, kind = request.param
    with ContainerdWorld(str(tmp_path_factory.mktemp("root")), parents[kind]) as world:
        yield _Stage(world.files, world.source(), choice, is_union=kind in ("overlay", "erofs-layers"))
        world.files.release("c1")
        world.files.collect(everything=True)
        world.reach.close()
        assert world.leftovers() == []


@dataclass
class _Stage(Stage):
    is_union: bool = False


class TestThroughContainerd(BootSuite):
    """On each stage in turn."""

    @pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
    def test_same_answer(self, stage: Stage, case: Case) -> None:
        if (
            isinstance(stage, _Stage) and stage.is_union and case.name == "whiteout"
        ):  # in a layer, it means that there is nothing
            case = replace(case, expected=PathReason.MISSING)
        super().test_same_answer(stage, case)
