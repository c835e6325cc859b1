"""A directory of the host as an ext4 image: what is taken over, what is left out, what is refused, and that no link is followed."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import ext4_images
from unikeel.errors import BadContent, DeadlineExceeded, ResourceExhausted, Unavailable
from unikeel.kernel.fd import OwnedFd
from unikeel.snapshots.ext4 import Node, write_image
from unikeel.snapshots.ext4.trees import Bounds, HostTree

MIB = 1 << 20


def nothing() -> None:
    """No deadline."""


def seen(path: Path, bounds: Bounds | None = None, look: Callable[[], None] = nothing) -> HostTree:
    top = OwnedFd(os.open(path, os.O_PATH | os.O_DIRECTORY))
    return HostTree(top, bounds or Bounds(64 * MIB), look)


def child(tree: HostTree, path: str) -> Node:
    node = tree.root
    for name in path.split("/"):
        assert node.children is not None
        node = node.children[name.encode()]
    return node


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "etc" / "deep").mkdir(parents=True)
    (top / "etc" / "motd").write_bytes(b"hello")
    (top / "etc" / "deep" / "big").write_bytes(os.urandom(3 * MIB + 5))
    with open(top / "sparse", "wb") as file:
        file.seek(8 * MIB)
        file.write(b"end")
    (top / "empty").touch()
    (top / "out").symlink_to("/etc/passwd")
    (top / "dir-link").symlink_to("etc")
    (top / ("l" * 200)).symlink_to("x" * 300)
    os.link(top / "etc" / "motd", top / "same")
    os.mkfifo(top / "fifo")
    os.chmod(top / "etc" / "motd", 0o4640)
    os.utime(top / "empty", ns=(1, 1_600_000_000_123_456_789))
    (top / os.fsdecode(b"caf\xe9")).write_bytes(b"not text")
    return top


def test_the_image_has_what_the_directory_has(tree: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "image")
    with seen(tree) as found, open(path, "w+b") as out:
        write_image(out.fileno(), found.root, uuid=ext4_images.UUID, free_bytes=MIB, open_data=found.open)
        assert child(found, "same") is child(found, "etc/motd")
        assert child(found, "out").target == b"/etc/passwd"
        assert child(found, "dir-link").target == b"etc"
        assert stat.S_IMODE(child(found, "same").mode) == 0o4640
        assert child(found, "empty").mtime == 1_600_000_000_123_456_789
    ext4_images.check(path)
    target = tmp_path / "copy"
    for name in ("etc/deep/big", "sparse", "etc/motd", "same"):
        ext4_images.debugfs(path, f"dump /{name} {target}")
        assert target.read_bytes() == (tree / name).read_bytes()
    assert os.stat(path).st_blocks * 512 < 6 * MIB


def test_the_same_directory_gives_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    images = []
    for number in range(2):
        with seen(tree) as found, open(tmp_path / str(number), "w+b") as out:
            write_image(out.fileno(), found.root, uuid=ext4_images.UUID, free_bytes=MIB, open_data=found.open)
        images.append((tmp_path / str(number)).read_bytes())
    assert images[0] == images[1]


def test_sockets_are_left_out(tree: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(tree)
        try:
            listening.bind("socket")
        finally:
            os.chdir(here)
        with seen(tree) as found:
            assert found.root.children is not None
            assert b"socket" not in found.root.children
            assert b"fifo" in found.root.children


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (Bounds(MIB), "made_limit"),
        (Bounds(64 * MIB, entries=4), "more than 4 files"),
        (Bounds(64 * MIB, metadata=100), "more than 100 bytes of names"),
    ],
)
def test_what_is_too_much(tree: Path, bounds: Bounds, message: str) -> None:
    with pytest.raises(ResourceExhausted, match=message):
        seen(tree, bounds)


def test_a_file_that_changes_meanwhile_is_refused(tree: Path) -> None:
    with seen(tree) as found:
        number = next(n for n, file in enumerate(found._files) if file.name == b"big")
        os.truncate(tree / "etc" / "deep" / "big", 7)
        with pytest.raises(BadContent, match="was changed"):
            found.open(number)


def test_a_directory_that_becomes_a_link_is_not_followed(tree: Path, tmp_path: Path) -> None:
    with seen(tree) as found:
        number = next(n for n, file in enumerate(found._files) if file.name == b"big")
        found.open(next(n for n, file in enumerate(found._files) if file.directory == ()))
        os.rename(tree / "etc", tmp_path / "elsewhere")
        (tree / "etc").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(Unavailable, match="cannot be opened"):
            found.open(number)


def test_time_is_bounded(tree: Path) -> None:
    def look() -> None:
        raise DeadlineExceeded("too late")

    with pytest.raises(DeadlineExceeded):
        seen(tree, look=look)


def test_nothing_stays_open(tree: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with seen(tree) as found:
        for number in range(len(found._files)):
            found.open(number)
    with pytest.raises(ResourceExhausted):
        seen(tree, Bounds(1))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_large_tree_is_seen_soon(tmp_path: Path) -> None:
    for directory in range(20):
        (tmp_path / f"d{directory}").mkdir()
        for number in range(100):
            (tmp_path / f"d{directory}" / f"f{number}").write_bytes(b"x")
    begun = time.monotonic()
    with seen(tmp_path) as found:
        assert found.entries == 2020
        assert found.size == 2000 * 4096
    assert time.monotonic() - begun < 5
