"""Guests that need a disk on snapshotters that have none to give: one image is made for all tasks of a parent, each has a snapshot of it, and all of that goes."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lab.paths import PROJECT
from lab_support import archives, containers
from lab_support.dying import Background, dying_at, points, restarted
from lab_support.stage import Setting, nothing_left, settings
from lab_support.waiting import until
from lab_support.world import DISK, LONG, Combination
from unikeel.containerd.records import VIEW

__all__ = ["nothing_left"]
_ALL = (
    Combination("trixie", "overlayfs"),
    Combination("sid", "erofs"),
    Combination("trixie", "native"),
    Combination("sid", "overlayfs"),
)
setting = settings(_ALL)
_NGINX = "nginx:latest"
_STORE = "/var/lib/unikeel/snapshots"


def disks(setting: Setting) -> list[dict[str, Any]]:
    """The made disks, as our command lists them."""
    listed = json.loads(setting.world.unikeel("boot", "ls", "--json").stdout)
    return [holding for holding in listed["holdings"] if holding["kind"] == "disk"]


def files(setting: Setting) -> list[str]:
    """The block images in our store."""
    return [name for name in os.listdir(setting.world.lab.path(_STORE)) if name.endswith(".img")]


def fresh(setting: Setting) -> None:
    """Begin without any."""
    setting.world.unikeel("boot", "gc")
    assert (disks(setting), files(setting)) == ([], [])


def steps(setting: Setting, ident: str) -> dict[str, dict[str, Any]]:
    """The attributes of a start's steps, by name."""
    told = json.loads(setting.world.unikeel("timeline", "--json", ident).stdout)
    return {span["name"]: span["attributes"] for span in told["spans"]}


def given_back(setting: Setting) -> None:
    """What the image was made from is not kept."""
    world = setting.world
    until(
        lambda: (
            not [
                snapshot
                for snapshot in world.api(lambda containerd: containerd.snapshots(setting.snapshotter).list())
                if snapshot.kind == VIEW
            ]
        ),
        "the view that the image was made from is given back",
        20,
    )


def test_a_guest_sees_its_files_on_a_disk(setting: Setting) -> None:
    fresh(setting)
    done = setting.run(setting.new(), "exit=3", image=DISK, check=False, flags=["--rm"])
    assert (done.returncode, ", ext4" in done.stdout) == (3, True), done
    (disk,) = disks(setting)
    assert (disk["users"], disk["snapshotter"], disk["namespace"]) == ([], setting.snapshotter, "default")
    assert disk["size"] > 0
    given_back(setting)
    fresh(setting)


def test_the_image_is_made_once_and_goes_after_its_tasks(setting: Setting) -> None:
    world, first, second = setting.world, setting.new(), setting.new()
    fresh(setting)
    setting.detached(first, "wait", image=DISK)
    assert steps(setting, first)["disk.make"]["files"] > 3
    setting.detached(second, "wait", image=DISK)
    told = steps(setting, second)
    assert "disk.make" not in told
    assert told["disk"]["made"] is True
    world.await_output(second, ", ext4")
    assert len(files(setting)) == 3
    (disk,) = disks(setting)
    assert len(disk["users"]) == 2
    world.unikeel("boot", "gc")
    assert len(files(setting)) == 3
    world.remove(first, second)
    assert len(files(setting)) == 1
    given_back(setting)
    fresh(setting)


def test_many_at_once_make_one_image(setting: Setting) -> None:
    world, count = setting.world, 32 if LONG else 8
    fresh(setting)
    idents = [setting.new("many") for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        made = list(pool.map(lambda ident: setting.detached(ident, "wait", image=DISK, check=False), idents))
    assert [done.stderr for done in made if done.returncode != 0] == []
    assert len(files(setting)) == 1 + count
    assert sum("bytes" in steps(setting, ident).get("disk.make", {}) for ident in idents) == 1
    world.remove_all(idents)
    given_back(setting)
    fresh(setting)


def test_what_a_guest_needs_can_be_read_only(setting: Setting) -> None:
    ident = setting.new()
    fresh(setting)
    setting.detached(ident, "wait", image=DISK, flags=["--read-only"])
    setting.world.await_output(ident, ", ext4")
    assert steps(setting, ident)["disk"]["read_only"] is True
    assert len(files(setting)) == 1
    setting.world.remove(ident)
    fresh(setting)


def test_none_is_made_of_what_somebody_committed(setting: Setting) -> None:
    world, ident, template = setting.world, setting.new("byhand"), setting.new("layers")
    fresh(setting)
    snapshots = ["snapshots", "--snapshotter", setting.snapshotter]
    containers.create(setting, template, image=DISK)
    world.ctr(*snapshots, "commit", f"{ident}-committed", template)
    world.ctr(*snapshots, "prepare", ident, f"{ident}-committed")
    # Its files cannot be looked at, either: how to run it is said with the container.
    containers.create(
        setting,
        ident,
        image=DISK,
        snapshot=ident,
        change=lambda spec: spec.setdefault("annotations", {}).update(archives.DISK),
    )
    outcome = containers.attempt(setting, ident)
    assert outcome.status is None
    assert "no disk is made of a snapshot that is not the image's own" in outcome.refusal
    assert files(setting) == []
    world.remove(ident, template)
    world.ctr(*snapshots, "rm", f"{ident}-committed")


@pytest.mark.long
def test_a_linux_guest_boots_from_it(setting: Setting) -> None:
    """The sample ``nginx``, whose root the disk is."""
    world, ident = setting.world, setting.new()
    world.import_archive(os.path.join(PROJECT, "build", "samples", "nginx.tar"), setting.snapshotter)
    setting.detached(ident, image=_NGINX)
    until(lambda: "ready" in world.output(ident), "nginx is ready", 120)
    world.remove(ident)
    world.ctr("images", "rm", "--sync", _NGINX)
    fresh(setting)


@pytest.mark.long
def test_the_daemon_dies_at_a_step_of_making(setting: Setting) -> None:
    """Whoever asked gets the guest, and nothing is left."""
    world = setting.world

    def life(ident: str) -> None:
        world.unikeel("boot", "gc")
        setting.detached(ident, "wait", image=DISK)
        world.await_output(ident, ", ext4")
        world.remove(ident)

    passed = points(world, lambda: life(setting.new("traced")))
    own = [point for point in passed if point.startswith(("disk.", "snapshots."))]
    assert "disk.make.recorded" in own
    for point in own:
        if point.startswith("snapshots.undo"):
            continue
        ident = setting.new("k")
        world.unikeel("boot", "gc")
        with dying_at(world, point) as kill_during:
            work = Background(lambda ident=ident: life(ident))  # type: ignore[misc]
            assert kill_during(work) == 1, point
            work.join()
        assert world.settled() == []
    restarted(world)
    given_back(setting)
    fresh(setting)
