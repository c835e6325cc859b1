"""What the mounting strategies do beyond the suite: refusals, one loop device per image, who keeps what, how long."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from boot_stages import World, leftovers
from unikeel.boot.contract import Choice, HostMount
from unikeel.boot.mounted import Mounter
from unikeel.errors import BadContent, Unavailable
from unikeel.kernel import loop, mounts
from unikeel.kernel.fd import OwnedFd
from unikeel.testing.boot_suite import as_user, attack, content
from unikeel.testing.boot_tree import KERNEL, make_image

_ALL = [Choice.CACHE, Choice.SHARED_VIEW, Choice.VIEW, Choice.COPY]
_MOUNTING = [Choice.SHARED_VIEW, Choice.VIEW, Choice.COPY]
_PATHS = {"kernel": "/kernel"}


def make(directory: str, name: str, kernel: bytes, mode: int = 0o644) -> str:
    tree, path = os.path.join(directory, name + ".tree"), os.path.join(directory, name)
    os.mkdir(tree)
    with open(os.path.join(tree, "kernel"), "wb") as file:
        file.write(kernel)
    os.chmod(os.path.join(tree, "kernel"), mode)
    make_image("ext4", tree, path)
    return path


@pytest.fixture
def world(tmp_path: os.PathLike[str]) -> Iterator[World]:
    with World(os.path.join(tmp_path, "root"), make(os.fspath(tmp_path), "image", KERNEL)) as made:
        yield made
        made.files.reconcile(lambda _container: False)
        made.files.drop_idle()
        assert leftovers(made) == []


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that were mounted."""
    seen: list[str] = []
    original = Mounter.mount

    def mount(
        self: Mounter, host: Sequence[HostMount], namespace: int | None = None, later: ExitStack | None = None
    ) -> OwnedFd:
        seen.extend(one.source for one in host)
        return original(self, host, namespace, later)

    monkeypatch.setattr(Mounter, "mount", mount)
    return seen


def mount_table() -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return sorted(file)


def serve(world: World, choice: Choice, container: str = "c1") -> bytes:
    with world.files.acquire(world.source(container), _PATHS, choice) as acquired:
        assert acquired.strategy == choice.value
        return content(acquired.files["kernel"])


@pytest.mark.parametrize("choice", _ALL)
def test_journal_to_be_recovered_is_refused_by_all(world: World, choice: Choice) -> None:
    subprocess.run(["debugfs", "-w", "-R", "feature needs_recovery", world.image], check=True, capture_output=True)
    with pytest.raises(BadContent):
        serve(world, choice)


@pytest.mark.parametrize("choice", _ALL)
def test_no_file_system_is_refused_by_all(world: World, choice: Choice) -> None:
    with open(world.image, "r+b") as file:
        file.write(bytes(4096))
    with pytest.raises(BadContent):
        serve(world, choice)


@pytest.mark.parametrize("choice", _MOUNTING)
def test_untrusted_is_never_mounted(world: World, choice: Choice, mounted: list[str]) -> None:
    with pytest.raises(Unavailable, match="chain of layers"):
        world.files.acquire(world.source(trusted=False), _PATHS, choice)
    for safe in (Choice.AUTO, Choice.CACHE):
        with world.files.acquire(world.source(trusted=False), _PATHS, safe) as acquired:
            assert acquired.strategy == "cache"
    assert mounted == []


@pytest.mark.parametrize("choice", _ALL)
def test_missing_image_is_unavailable(world: World, choice: Choice) -> None:
    os.rename(world.image, world.image + ".away")
    try:
        with pytest.raises(Unavailable, match="cannot be opened"):
            serve(world, choice)
    finally:
        os.rename(world.image + ".away", world.image)


def test_one_loop_device_and_no_entry_in_the_mount_table(world: World) -> None:
    before = mount_table()
    kept = [
        world.files.acquire(world.source(f"{choice.value}-{n}"), _PATHS, choice)
        for choice in (Choice.SHARED_VIEW, Choice.VIEW)
        for n in range(4)
    ]
    assert len(loop.attached_to(os.stat(world.image))) == 1
    with OwnedFd(os.open(world.image, os.O_RDONLY)) as image:
        device = loop.find(image.fileno())
        assert device is not None
        assert (device.status.read_only, device.status.autoclear) == (True, True)
        device.close()
    assert mount_table() == before
    for acquired in kept:
        acquired.close()


def test_32_threads_mount_once(world: World, mounted: list[str]) -> None:
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda n: serve(world, Choice.SHARED_VIEW, f"c{n}"), range(32)))
    assert answers == [KERNEL] * 32
    assert mounted == [world.image]


def test_the_holder_serves_the_next_command(world: World, mounted: list[str]) -> None:
    assert serve(world, Choice.SHARED_VIEW) == KERNEL
    world.files.close()  # the command ends; the holder lives
    with world.files.acquire(world.source("c2"), _PATHS, Choice.SHARED_VIEW) as acquired:
        assert (acquired.hit, content(acquired.files["kernel"])) == (True, KERNEL)
    assert mounted == [world.image]


def test_without_a_holder_views_still_work(world: World) -> None:
    world.holder.away = True
    with world.files.acquire(world.source(), _PATHS, Choice.SHARED_VIEW) as acquired:
        assert (acquired.strategy, acquired.fallbacks) == ("shared-view", [])
        assert acquired.notes == ["the shared view is not kept: the holder is away"]
    world.files.release("c1")
    world.files.close()
    assert loop.attached_to(os.stat(world.image)) == []
    world.holder.away = False


def test_a_view_in_use_is_not_idle(world: World) -> None:
    acquired = world.files.acquire(world.source(), _PATHS, Choice.SHARED_VIEW)
    assert world.files.drop_idle() == []
    world.files.release("c1")
    assert [gone.kind for gone in world.files.drop_idle()] == ["shared-view"]
    assert content(acquired.files["kernel"]) == KERNEL  # who has it open keeps it
    acquired.close()


def test_copy_reads_the_containers_snapshot_until_a_guest_ran(world: World, tmp_path: os.PathLike[str]) -> None:
    own = make(os.fspath(tmp_path), "own", b"from the snapshot")
    for ran, expected in ((False, b"from the snapshot"), (True, KERNEL)):
        source = world.source(f"ran-{ran}")._replace(rootfs=(HostMount("ext4", own, ("rw", "loop")),), guest_ran=ran)
        with world.files.acquire(source, _PATHS, Choice.COPY) as acquired:
            assert content(acquired.files["kernel"]) == expected
        assert loop.attached_to(os.stat(own)) == []  # the monitor may open it now
        assert world.files.read_file(source, "/kernel", Choice.COPY, 1 << 20) == expected


def test_copy_is_kept_for_restarts(world: World, mounted: list[str]) -> None:
    for guest_ran in (False, True):
        source = world.source()._replace(guest_ran=guest_ran)
        with world.files.acquire(source, _PATHS, Choice.COPY) as acquired:
            assert (acquired.hit, content(acquired.files["kernel"])) == (guest_ran, KERNEL)
    assert mounted == [world.image]


def test_tmpfs_goes_with_the_last_copy(world: World) -> None:
    copies = os.path.join(world.root, "boot", "copies")
    kept = [world.files.acquire(world.source(container), _PATHS, Choice.COPY) for container in ("c1", "c2")]
    assert mounts.is_mount_point(copies)
    world.files.release("c1")
    assert mounts.is_mount_point(copies)
    assert [(row.kind, row.users, row.size) for row in world.files.listing()] == [("copy", ("c2",), len(KERNEL))]
    world.files.release("c2")
    assert not mounts.is_mount_point(copies)
    assert [content(acquired.files["kernel"]) for acquired in kept] == [KERNEL, KERNEL]
    for acquired in kept:
        acquired.close()


def test_copies_of_an_earlier_boot_are_forgotten(world: World) -> None:
    serve(world, Choice.COPY)
    world.database.execute("UPDATE boot_copies SET boot = 'earlier'")
    mounts.unmount(os.path.join(world.root, "boot", "copies"))
    assert [gone.kind for gone in world.files.reconcile(lambda _container: True)] == ["copy"]
    assert serve(world, Choice.COPY) == KERNEL


@pytest.mark.parametrize("choice", [Choice.SHARED_VIEW, Choice.VIEW])
def test_private_kernels_where_mounts_cannot_be_cloned(
    tmp_path: os.PathLike[str], choice: Choice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 6.15 a detached mount cannot be cloned: another one is made, and mapped."""

    def refuse(path: str, *, dirfd: int = -100, recursive: bool = False) -> OwnedFd:
        raise OSError(errno.EINVAL, f"{path}, {dirfd}, {recursive}")

    monkeypatch.setattr(mounts, "open_tree_clone", refuse)
    with (
        World(os.path.join(tmp_path, "root"), make(os.fspath(tmp_path), "image", KERNEL, 0o600)) as world,
        world.files.acquire(world.source(), _PATHS, choice) as acquired,
    ):
        assert acquired.strategy == choice.value
        fd = acquired.files["kernel"].fd.fileno()
        assert os.fstat(fd).st_uid == world.source().monitor_uid
        assert as_user(world.source().monitor_uid, ["head", "-c1", f"/proc/self/fd/{fd}"], [fd]).returncode == 0
        assert as_user(999, ["head", "-c1", f"/proc/self/fd/{fd}"], [fd]).returncode != 0


def test_the_attack_works_on_what_is_not_sealed(world: World) -> None:
    """The control of the suite's attack: through a plain descriptor uid 0 without capabilities writes."""
    serve(world, Choice.CACHE)
    world.files.settle()
    digest = world.files.listing()[0].name
    plain = OwnedFd(os.open(os.path.join(world.root, "boot", "objects", digest[:2], digest), os.O_RDONLY))
    with world.files.acquire(world.source(), _PATHS, Choice.CACHE) as acquired:
        file = acquired.files["kernel"]
        assert attack(file, 0) == []
        worked = attack(file._replace(fd=plain), 0)
    assert {"chmod", "chmod and write"} <= set(worked)
    plain.close()


def test_a_changed_object_is_read_again_in_the_next_boot(world: World) -> None:
    serve(world, Choice.CACHE)
    world.files.settle()
    digest = world.files.listing()[0].name
    with open(os.path.join(world.root, "boot", "objects", digest[:2], digest), "r+b") as file:
        file.write(b"rotten")
    world.database.execute("UPDATE boot_objects SET verified = 'the boot before'")
    with world.files.acquire(world.source(), _PATHS, Choice.CACHE) as acquired:
        assert content(acquired.files["kernel"]) == KERNEL
        assert not acquired.hit
        assert ["its bytes have changed" in note for note in acquired.notes] == [True]
