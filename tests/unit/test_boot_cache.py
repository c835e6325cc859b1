"""The strategy ``cache`` without root: everything but the read-only clone of its directory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from boot_stages import World
from readers_images import tool
from unikeel.boot.contract import Choice, Limits, Source
from unikeel.boot.readers.contract import PathError, PathReason
from unikeel.boot.readers.files import MappedFile
from unikeel.errors import BadContent, ResourceExhausted, Unavailable
from unikeel.kernel.fd import OwnedFd

KB = 1 << 10
FILES = {"kernel": b"K" * 40 * KB, "initrd": b"I" * 30 * KB, "same": b"K" * 40 * KB, "small": b"s" * KB}


def plain(path: str) -> OwnedFd:
    return OwnedFd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = str(tmp_path_factory.mktemp("cache"))
    tree = os.path.join(directory, "tree")
    os.mkdir(tree)
    for name, data in FILES.items():
        with open(os.path.join(tree, name), "wb") as file:
            file.write(data)
    path = os.path.join(directory, "image")
    tool("mke2fs", "-q", "-t", "ext4", "-d", tree, path, "1M")
    return path


Opener = Callable[..., AbstractContextManager[World]]


@pytest.fixture
def opened(tmp_path: os.PathLike[str], image: str) -> Opener:
    @contextmanager
    def make(cache_size: int = 1 << 20, seconds: float = 30) -> Iterator[World]:
        limits = Limits(seconds=seconds)
        with World(os.path.join(tmp_path, "root"), image, cache_size=cache_size, limits=limits, door=plain) as world:
            yield world

    return make


def serve(world: World, source: Source, **paths: str) -> tuple[bool, list[str]]:
    """Acquire from the cache and compare; hit or not, and the notes."""
    with world.files.acquire(source, paths, Choice.CACHE) as acquired:
        assert (acquired.strategy, acquired.fallbacks) == ("cache", [])
        for role, path in paths.items():
            file = acquired.files[role]
            assert os.pread(file.fd.fileno(), 1 << 20, 0) == FILES[path.strip("/")]
            assert os.fstat(file.fd.fileno()).st_mode & 0o777 == 0o444
        return acquired.hit, acquired.notes


def kept(world: World) -> set[int]:
    """Sizes of the objects kept, which the disk agrees with."""
    assert world.files.settle(30)
    objects = [holding for holding in world.files.listing() if holding.kind == "object"]
    assert {holding.name for holding in objects} == set(world.files._store.digests())
    return {holding.size for holding in objects}


def test_fill_then_hit_also_in_another_process(opened: Opener) -> None:
    with opened() as world:
        assert serve(world, world.source(), kernel="/kernel", initrd="/initrd") == (False, [])
        assert serve(world, world.source(), kernel="/kernel", initrd="/initrd") == (True, [])
        assert serve(world, world.source("c2"), kernel="/kernel", config="/small") == (False, [])
    with opened() as world:
        assert serve(world, world.source("c3"), kernel="/kernel", config="/small") == (True, [])


def test_equal_bytes_are_kept_once(opened: Opener) -> None:
    with opened() as world:
        serve(world, world.source(), kernel="/kernel", initrd="/same")
        serve(world, world.source(name="another parent"), kernel="/kernel")
        assert kept(world) == {len(FILES["kernel"])}
        (holding,) = world.files.listing()
        assert sorted(holding.parents) == ["another parent", "sha256:chain"]


def test_reading_makes_no_user(opened: Opener) -> None:
    with opened() as world:
        assert world.files.read_file(world.source(), "/small", Choice.AUTO, 10 * KB) == FILES["small"]
        assert [holding.reclaimable for holding in world.files.listing()] == [True]
        serve(world, world.source(), config="/small")
        assert [holding.users for holding in world.files.listing()] == [("c1",)]
        world.files.release("c1")
        assert [holding.users for holding in world.files.listing()] == [()]


def test_bound_takes_the_least_recently_used(opened: Opener) -> None:
    with opened(cache_size=75 * KB) as world:
        for name in ("kernel", "initrd", "kernel"):
            serve(world, world.source(), kernel=name)
        world.files.release("c1")
        assert kept(world) == {40 * KB, 30 * KB}
        with world.files.acquire(world.source("c2"), {"kernel": "/small"}, Choice.CACHE):
            assert kept(world) == {40 * KB, 30 * KB, KB}
        world.files.release("c2")
        world.database.execute("UPDATE boot_objects SET size = size + ? WHERE size = ?", (8 * KB, KB))
        world.files.collect()
        assert kept(world) == {40 * KB, 9 * KB}


def test_what_is_used_stays_even_over_the_bound(opened: Opener) -> None:
    with opened(cache_size=10 * KB) as world:
        assert serve(world, world.source(), kernel="/kernel", initrd="/initrd", config="/small") == (False, [])
        assert kept(world) == {40 * KB, 30 * KB, KB}
        assert world.files.collect(everything=True) == []
        assert serve(world, world.source(), kernel="/kernel", initrd="/initrd", config="/small") == (True, [])
        world.files.release("c1")
        assert sum(kept(world)) <= 10 * KB


def test_read_of_a_file_larger_than_the_cache(opened: Opener) -> None:
    with opened(cache_size=KB) as world:
        assert world.files.read_file(world.source(), "/kernel", Choice.CACHE, 1 << 20) == FILES["kernel"]


def test_collect_everything(opened: Opener) -> None:
    with opened() as world:
        serve(world, world.source(), kernel="/kernel", config="/small")
        world.files.release("c1")
        assert sorted(gone.size for gone in world.files.collect(everything=True)) == [KB, 40 * KB]
        assert (world.files.listing(), kept(world)) == ([], set())
        assert world.database.query("SELECT * FROM boot_parents") == []


def spoil(world: World, how: Callable[[str], None]) -> None:
    assert world.files.settle(30)
    (digest,) = world.files._store.digests()
    path = os.path.join(world.root, "boot", "objects", digest[:2], digest)
    os.chmod(path, 0o600)
    how(path)


def overwrite(path: str) -> None:
    with open(path, "r+b") as file:
        file.write(b"rot")


@pytest.mark.parametrize("how", [os.unlink, lambda path: os.truncate(path, 5)], ids=["missing", "short"])
def test_an_object_that_is_not_there_is_read_again(opened: Opener, how: Callable[[str], None]) -> None:
    with opened() as world:
        serve(world, world.source(), kernel="/kernel")
        spoil(world, how)
        hit, notes = serve(world, world.source(), kernel="/kernel")
        assert (hit, len(notes)) == (False, 1)
        assert "missing or has another size" in notes[0]
        assert serve(world, world.source(), kernel="/kernel") == (True, [])


def test_an_object_is_hashed_once_per_boot_of_the_host(opened: Opener) -> None:
    with opened() as world:
        serve(world, world.source(), kernel="/kernel")
        assert world.files.settle(30)
        world.database.execute("UPDATE boot_objects SET verified = 'before'")
        assert serve(world, world.source(), kernel="/kernel") == (False, [])
        assert serve(world, world.source(), kernel="/kernel") == (True, [])
        assert world.files.settle(30)
        world.database.execute("UPDATE boot_objects SET verified = 'before'")
        spoil(world, overwrite)
        hit, notes = serve(world, world.source(), kernel="/kernel")
        assert (hit, len(notes)) == (False, 1)
        assert "bytes have changed" in notes[0]


def test_limits_hold_for_hits_too(opened: Opener) -> None:
    with opened() as world:
        serve(world, world.source(), kernel="/kernel")
        with pytest.raises(PathError) as caught:
            world.files.read_file(world.source(), "/kernel", Choice.CACHE, KB)
        assert caught.value.reason is PathReason.TOO_LARGE


def test_a_verdict_is_final(opened: Opener) -> None:
    with opened() as world:
        for path in ("/none", "/"):
            with pytest.raises(BadContent):
                world.files.acquire(world.source(), {"kernel": path}, Choice.AUTO)
        assert os.listdir(os.path.join(world.root, "boot", "tmp")) == []


def before_copying(monkeypatch: pytest.MonkeyPatch, fault: Callable[[int], None]) -> None:
    """Have the readers do something else first when they copy a file."""
    original = MappedFile.copy_to

    def copy_to(file: MappedFile, fd: int) -> None:
        fault(fd)
        original(file, fd)

    monkeypatch.setattr(MappedFile, "copy_to", copy_to)


def test_a_slow_fill_falls_back_and_still_fills(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    go, done = threading.Event(), threading.Event()

    def fault(_fd: int) -> None:
        go.wait()
        done.set()

    before_copying(monkeypatch, fault)
    with opened(seconds=0.05) as world:
        with pytest.raises(
            Unavailable, match=r"cache: reading the boot files of sha256:chain took longer than 0\.05 s"
        ):
            world.files.acquire(world.source(trusted=False), {"kernel": "/kernel"}, Choice.AUTO)
        go.set()
        assert done.wait(30)
    with opened() as world:
        serve(world, world.source(), kernel="/kernel")


def test_a_full_disk_makes_room_once(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    full = [ResourceExhausted("no space left")]

    def fault(fd: int) -> None:
        if full:
            os.write(fd, b"half")
            raise full.pop()

    with opened() as world:
        serve(world, world.source("c0", name="another parent"), config="/small")
        world.files.release("c0")
        before_copying(monkeypatch, fault)
        assert serve(world, world.source(), kernel="/kernel") == (False, [])
        assert kept(world) == {40 * KB}


def test_a_disk_that_stays_full_is_a_failure_of_the_means(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(_fd: int) -> None:
        raise ResourceExhausted("no space left")

    before_copying(monkeypatch, fault)
    with opened() as world, pytest.raises(Unavailable, match="disk is full"):
        world.files.acquire(world.source(trusted=False), {"kernel": "/kernel"}, Choice.CACHE)


def test_reconcile_removes_strays_and_dead_containers(opened: Opener) -> None:
    with opened() as world:
        serve(world, world.source("gone"), kernel="/kernel")
        serve(world, world.source("here"), kernel="/kernel")
        stray, unfinished = "ab" + "0" * 62, "1-dead.1.2.ff"
        os.makedirs(os.path.join(world.root, "boot", "objects", "ab"), exist_ok=True)
        for path in (f"objects/ab/{stray}", f"tmp/{unfinished}"):
            with open(os.path.join(world.root, "boot", path), "wb") as file:
                file.write(b"left")
        freed = world.files.reconcile(lambda container: container == "here")
        assert {(gone.kind, gone.name) for gone in freed} == {
            ("object", stray),
            ("unfinished", unfinished),
            ("user", "gone"),
        }
        assert [holding.users for holding in world.files.listing()] == [("here",)]
        assert world.files.reconcile(lambda container: container == "here") == []


def test_the_timeline_tells_the_steps(opened: Opener) -> None:
    steps: list[tuple[str, dict[str, str | int | bool]]] = []
    with opened() as world:
        for _ in range(2):
            acquired = world.files.acquire(
                world.source(),
                {"kernel": "/kernel"},
                Choice.AUTO,
                lambda name, start, end, attributes: steps.append((name, {**attributes, "ordered": start <= end})),
            )
            acquired.close()
    served = {"choice": "auto", "strategy": "cache", "bytes": 40 * KB, "ordered": True}
    assert steps == [
        ("boot.cache.fill", {"parent": "sha256:chain", "ordered": True}),
        ("boot.acquire", served | {"hit": False}),
        ("boot.acquire", served | {"hit": True}),
    ]
