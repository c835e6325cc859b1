"""Boot files under containerd: the four strategies, views and their leases, and what is refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lab_support.stage import Setting, nothing_left, settings
from lab_support.waiting import until
from lab_support.world import COMBINATIONS, HELLO, LONG, SILENT
from unikeel.containerd.records import VIEW, Lease, SnapshotInfo

__all__ = ["nothing_left"]
setting = settings(COMBINATIONS)
_STRATEGY = "org.unikeel.boot-files"
_LAYER = "org.unikeel.boot-layer"
_STRATEGIES = ("cache", "shared-view", "view", "copy")
#: For an image that says nothing itself.
_GIVEN = {
    "com.urunc.unikernel.unikernelType": "generic",
    "com.urunc.unikernel.hypervisor": "qemu",
    "com.urunc.unikernel.binary": "/boot/hello",
}


def views(setting: Setting) -> list[SnapshotInfo]:
    """The views that containerd has in a snapshotter."""
    found = setting.world.api(lambda containerd: containerd.snapshots(setting.snapshotter).list())
    return [snapshot for snapshot in found if snapshot.kind == VIEW]


def leases(setting: Setting) -> list[Lease]:
    """All leases."""
    return setting.world.api(lambda containerd: containerd.leases.list())


def timeline(setting: Setting, ident: str) -> str:
    """What our command prints about a task."""
    return str(setting.world.unikeel("timeline", ident).stdout)


def drop_views(setting: Setting) -> None:
    """Give back every view that nobody uses, now."""
    setting.world.unikeel("boot", "gc")
    until(lambda: not views(setting), "views without users are gone")


def image_is_new(setting: Setting) -> None:
    """Forget what is cached."""
    drop_views(setting)


@pytest.mark.parametrize("strategy", _STRATEGIES)
def test_each_strategy_gives_the_same_files(setting: Setting, strategy: str) -> None:
    world, ident = setting.world, setting.new()
    done = setting.detached(ident, "wait", annotations={_STRATEGY: strategy}, check=False)
    if done.returncode != 0:
        assert strategy == "copy", done.stderr
        assert not setting.combination.has_disks
        assert "copy" in done.stderr, done.stderr
        return world.remove(ident)
    assert "hello from a unikernel" in world.await_output(ident, "command line: wait")
    told = timeline(setting, ident)
    if setting.combination.has_disks:
        assert strategy in told, told
    world.remove(ident)
    return None


def test_an_image_without_a_file_that_says_so(setting: Setting) -> None:
    """The annotations of the container are enough."""
    assert (
        setting.run(setting.new(), "exit=4", image=SILENT, annotations=_GIVEN, check=False, flags=["--rm"]).returncode
        == 4
    )


def test_many_at_once_share_one_view(setting: Setting) -> None:
    world = setting.world
    count = 32 if LONG else 6
    idents = [setting.new("many") for _ in range(count)]
    drop_views(setting)
    with ThreadPoolExecutor(count) as pool:
        made = list(
            pool.map(
                lambda ident: setting.detached(ident, "wait", annotations={_STRATEGY: "shared-view"}, check=False),
                idents,
            )
        )
    assert [done.stderr for done in made if done.returncode != 0] == []
    found = views(setting)
    assert len(found) == 1, found
    owners = [lease for lease in leases(setting) if any("unikeel" in label for label in lease.labels)]
    assert len(owners) == 1, owners
    resources = world.api(lambda containerd: containerd.leases.resources(owners[0].id))
    assert [resource.id for resource in resources] == [found[0].name]
    listed = world.unikeel("boot", "ls").stdout
    assert "shared-view" in listed or "view" in listed, listed
    world.remove_all(idents)
    until(lambda: not views(setting), "the view goes with its last user, a little later", 20)
    until(lambda: not [lease for lease in leases(setting) if "unikeel" in lease.id], "so does its lease", 20)


def test_many_at_once_fill_the_cache_once(setting: Setting) -> None:
    count = 32 if LONG else 6
    idents = [setting.new("many") for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        made = list(
            pool.map(
                lambda ident: setting.detached(ident, "wait", annotations={_STRATEGY: "cache"}, check=False), idents
            )
        )
    assert [done.stderr for done in made if done.returncode != 0] == []
    until(lambda: not views(setting), "the view that the cache was filled from is given back", 20)
    setting.world.remove_all(idents)


def test_a_view_has_one_container(setting: Setting) -> None:
    world, first, second = setting.world, setting.new(), setting.new()
    drop_views(setting)
    for ident in (first, second):
        setting.detached(ident, "wait", annotations={_STRATEGY: "view"})
    assert len(views(setting)) == 2
    world.remove(first)
    until(lambda: len(views(setting)) == 1, "its view goes with the container")
    world.remove(second)
    until(lambda: not views(setting), "and so does the other")


def test_the_lowest_layer(setting: Setting) -> None:
    """A view of only the layers that hold boot files."""
    world, ident = setting.world, setting.new()
    setting.detached(ident, "wait", annotations={_STRATEGY: "shared-view", _LAYER: "lowest"})
    assert "boot.layer" in timeline(setting, ident)
    world.remove(ident)


def test_an_image_is_removed_while_its_view_is_in_use(setting: Setting) -> None:
    """containerd collects it, and the guest goes on; another start from the same name is refused by containerd."""
    world, ident = setting.world, setting.new()
    setting.detached(ident, "wait", annotations={_STRATEGY: "shared-view"})
    world.ctr("images", "rm", "--sync", HELLO)
    try:
        assert world.status(ident) == "RUNNING"
        assert len(views(setting)) == 1
        assert setting.detached(setting.new(), "wait", check=False).returncode != 0
    finally:
        world.remove(ident)
        world.provide_again(HELLO, setting.snapshotter)
    assert setting.run(setting.new(), "exit=2", check=False, flags=["--rm"]).returncode == 2


def test_what_annotations_may_not_say(setting: Setting) -> None:
    ident = setting.new()
    for key, value in (
        (_STRATEGY, "nonsense"),
        ("org.unikeel.nonsense", "x"),
        (_LAYER, "middle"),
        ("org.unikeel.monitor", "../qemu"),
    ):
        done = setting.run(ident, "exit=0", annotations={key: value}, check=False)
        assert done.returncode != 0, key
        assert key in done.stderr, done.stderr
        assert "traceback" not in done.stderr.lower()
        setting.world.remove(ident)


def test_where_boot_files_come_from_is_listed(setting: Setting) -> None:
    world, ident = setting.world, setting.new()
    setting.detached(ident, "wait", annotations={_STRATEGY: "shared-view"})
    found: Any = json.loads(world.unikeel("boot", "ls", "--json").stdout)
    text = json.dumps(found)
    assert setting.snapshotter in text
    assert "default" in text
    world.remove(ident)
