"""Specifications, annotations, snapshots and mounts that ask for too much: refused with the right code and a sentence, or done without harm."""

from __future__ import annotations

from typing import Any

import pytest

from lab_support import containers, ttrpc
from lab_support.stage import Setting, nothing_left, settings
from lab_support.world import DISK, ROOTS, SILENT
from unikeel.containerd.wire import task_pb2, types_pb2
from unikeel.errors import UnikeelError

__all__ = ["nothing_left"]
setting = settings(ROOTS)
_PREFIX = "com.urunc.unikernel."
_GIVEN = {f"{_PREFIX}unikernelType": "generic", f"{_PREFIX}hypervisor": "qemu", f"{_PREFIX}binary": "/boot/hello"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("binary", "../../../etc/shadow"),
        ("binary", "/boot/../boot/hello"),
        ("binary", "/boot/hello,readonly=off"),
        ("binary", "/boot/hello\n-monitor stdio"),
        ("binary", "/nowhere"),
        ("binary", "/boot"),
        ("initrd", "/proc/self/environ"),
        ("initrd", "a" * 5000),
        ("cmdline", "x\x00y"),
        ("hypervisor", "qemu,accel=kvm"),
        ("unikernelType", "../generic"),
        ("mountRootfs", "perhaps"),
        ("block", "/disk.img"),
    ],
)
def test_hostile_annotations(setting: Setting, name: str, value: str) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["process"]["args"] = []
        spec.setdefault("annotations", {}).update({**_GIVEN, _PREFIX + name: value})

    ident = setting.new("hostile")
    containers.create(setting, ident, change=change)
    assert containers.attempt(setting, ident).refusal
    setting.world.remove(ident)


@pytest.mark.parametrize(
    "word", ["a,b=c", "file=/etc/shadow,if=none", "'quoted' \"twice\"", "-monitor", "$(id)", "%s%n", "ünïcödé"]
)
def test_arguments_are_the_guest_s_alone(setting: Setting, word: str) -> None:
    """Whatever they hold, they reach the guest's command line and nothing else."""
    ident = setting.new("words")
    containers.create(setting, ident, change=lambda spec: spec["process"].update(args=[word, "exit=3"]))
    ended, output = containers.run(setting, ident)
    assert ended.status == 3
    assert f"command line: {word} exit=3" in output
    setting.world.remove(ident)


def test_a_huge_specification(setting: Setting) -> None:
    """8 MiB of environment: it works or is refused; the daemon lives."""
    ident, daemon = setting.new("huge"), setting.world.await_daemon()
    containers.create(
        setting, ident, change=lambda spec: spec["process"].update(env=[f"A{n}={'x' * 4096}" for n in range(2048)])
    )
    assert containers.attempt(setting, ident).status in (3, None)
    setting.world.remove(ident)
    assert setting.world.await_daemon().pid == daemon.pid


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"annotations": []}',
        b'{"process": {"args": "sh"}}',
        b'{"process": {"args": [1, 2]}}',
        b"[" * 100000,
        b'{"linux": {"resources": {"memory": {"limit": "much"}}}}',
        b'{"annotations": {"com.urunc.unikernel.binary": 7}}',
    ],
)
def test_a_configuration_that_is_none(setting: Setting, document: bytes) -> None:
    """Asked at the socket, since containerd makes none of these."""
    world = setting.world
    world.lab.put("/tmp/bundle/config.json", document)
    request = task_pb2.CreateTaskRequest(id="malformed", bundle="/tmp/bundle")
    found = ttrpc.ask(world, "Create", request)
    assert found.code not in (0, 13), found
    assert "Traceback" not in found.message
    assert 10 < len(found.message) < 4096


@pytest.mark.parametrize(
    ("kind", "source", "options"),
    [
        ("ext4", "/nonexistent", ("rw",)),
        ("ext4", "/etc/passwd", ("loop",)),
        ("ext4", "/dev/zero", ()),
    ],
)
def test_mounts_that_are_not_the_snapshot_s(setting: Setting, kind: str, source: str, options: tuple[str, ...]) -> None:
    """What a container gets is what its snapshotter says."""
    world, ident = setting.world, setting.new("mounts")
    containers.create(setting, ident, image=DISK)
    spec = world.api(lambda containerd: containerd.containers.get(ident)).spec
    assert spec is not None
    world.lab.put("/tmp/bundle/config.json", spec.value)
    mount = types_pb2.Mount(type=kind, source=source, options=options)
    found = ttrpc.ask(world, "Create", task_pb2.CreateTaskRequest(id=ident, bundle="/tmp/bundle", rootfs=[mount]))
    if found.code == 0:  # containerd knows nothing of this task
        ttrpc.ask(world, "Delete", task_pb2.DeleteRequest(id=ident))
    assert found.code not in (0, 13), found
    assert len(found.message) > 10
    world.remove(ident)


def test_a_snapshot_that_is_gone(setting: Setting) -> None:
    world, ident = setting.world, setting.new("gone")
    containers.create(setting, ident)
    mounts = world.api(lambda containerd: containerd.snapshots(setting.snapshotter).mounts(ident))
    world.ctr("snapshots", "--snapshotter", setting.snapshotter, "rm", ident)
    with pytest.raises(UnikeelError) as caught:
        world.api(lambda containerd: containerd.tasks.create(ident, mounts))
    assert "snapshot" in str(caught.value), caught.value
    world.remove(ident)


@pytest.mark.parametrize("strategy", ["shared-view", "view", "copy", "cache"])
def test_a_parent_that_somebody_committed(setting: Setting, strategy: str) -> None:
    """Its name is no chain ID of the image: only the reader in user space touches it, or the start is refused."""
    world, ident = setting.world, setting.new("byhand")
    snapshots = ["snapshots", "--snapshotter", setting.snapshotter]
    template = setting.new("layers")
    containers.create(setting, template)
    world.ctr(*snapshots, "commit", f"{ident}-committed", template)
    world.ctr(*snapshots, "prepare", ident, f"{ident}-committed")
    change = {"org.unikeel.boot-files": strategy}
    containers.create(
        setting, ident, snapshot=ident, change=lambda spec: spec.setdefault("annotations", {}).update(change)
    )
    outcome = containers.attempt(setting, ident)
    if outcome.status is None:
        assert any(word in outcome.refusal for word in ("parent", "chain", "trust")), outcome
    else:
        assert (outcome.status, strategy) == (3, "cache"), "the kernel was let near it"
    world.remove(ident, template)
    world.ctr(*snapshots, "rm", f"{ident}-committed")


def test_an_image_that_says_nothing(setting: Setting) -> None:
    """It is an ordinary container then, without a program."""
    ident = setting.new("silent")
    done = setting.run(ident, "exit=0", image=SILENT, check=False)
    assert done.returncode != 0
    assert "not found" in done.stderr or "no such file" in done.stderr, done.stderr
    assert setting.world.monitors() == []
    setting.world.remove(ident)
