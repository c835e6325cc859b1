"""Images of the ext4 writer in the real kernel: mounted, compared, written to, checked again."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ext4_images import UUID, check, directory, regular, root, stats, symlink, write
from layer_archives import flat
from unikeel.snapshots.ext4 import Node, empty_image

CONTENT = bytes(range(256)) * 1000
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in [(1, 6, 0xFFFFFFFF), (2, 4, 1000), (4, 4, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF), (32, 4, 0xFFFFFFFF)]
)


@contextlib.contextmanager
def mounted(image: str, *, options: str = "loop") -> Iterator[str]:
    """The image, mounted; unmounted afterwards whatever happens."""
    folder = f"{image}.mounted"
    os.makedirs(folder, exist_ok=True)
    subprocess.run(["mount", "-t", "ext4", "-o", options, image, folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def image(tmp_path: Path) -> str:
    return str(tmp_path / "image")


def sample() -> Node:
    shared = regular(1000, 7, mode=0o4755, uid=1000, gid=100_000, mtime=1_600_000_000_123_456_789)
    attributes = {
        b"user.small": b"value",
        b"user.large": b"v" * 3500,
        b"trusted.t": b"",
        b"security.capability": struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0),
        b"system.posix_acl_access": ACL,
    }
    return root(
        shared=shared,
        d=root(other=shared, deep=root(file=regular(len(CONTENT), uid=4_000_000_000, gid=65536))),
        sticky=directory(0o1777, mtime=(2**33 + 1) * 10**9, xattrs={b"system.posix_acl_default": ACL}),
        secret=regular(5, mode=0o600, mtime=-5 * 10**9 - 1),
        attributes=regular(9, mode=0o664, xattrs=attributes),
        fast=symlink(b"d/deep"),
        slow=symlink(b"./" * 100 + b"shared"),
        char=Node(stat.S_IFCHR | 0o666, device=(1, 3), uid=3),
        block=Node(stat.S_IFBLK | 0o660, device=(4095, 1048575)),
        pipe=Node(stat.S_IFIFO | 0o640),
        empty=regular(),
    )


def compare(folder: str, tree: Node) -> None:
    """Every file's stat, content, target and attributes against the tree that the image was made from."""
    inodes: dict[int, int] = {}
    nodes = flat(tree)
    for path, node in nodes.items():
        place = os.path.join(folder, path) if path else folder
        found = os.lstat(place)
        assert found.st_mode == node.mode, path
        assert (found.st_uid, found.st_gid, found.st_nlink) == (node.uid, node.gid, node.links), path
        assert {found.st_mtime_ns, found.st_ctime_ns} == {node.mtime}, path
        assert inodes.setdefault(id(node), found.st_ino) == found.st_ino, path
        names = os.listxattr(place, follow_symlinks=False)
        read = {os.fsencode(name): os.getxattr(place, name, follow_symlinks=False) for name in names}
        assert read == (node.xattrs or {}), path
        if stat.S_ISREG(node.mode):
            start = node.data.offset if node.data else 0
            assert Path(place).read_bytes() == CONTENT[start : start + node.size], path
        elif stat.S_ISLNK(node.mode):
            assert os.fsencode(os.readlink(place)) == node.target
        elif node.children is not None:
            assert sorted(os.fsencode(name) for name in os.listdir(place)) == sorted(node.children)
        else:
            assert found.st_rdev == os.makedev(*node.device), path


def test_kernel_sees_the_tree_and_can_write_to_it(image: str) -> None:
    tree = sample()
    write(image, tree, CONTENT, free_bytes=64 << 20)
    with mounted(image, options="loop,ro,noload") as folder:
        compare(folder, tree)
    with mounted(image) as folder:
        compare(folder, tree)
        for number in range(2000):
            Path(folder, f"sticky/{number}").write_bytes(CONTENT[: number * 16])
        os.unlink(os.path.join(folder, "d/other"))
        os.setxattr(os.path.join(folder, "empty"), "user.new", b"n" * 2000)
        os.mkdir(os.path.join(folder, "made"))
        os.rename(os.path.join(folder, "d/deep"), os.path.join(folder, "made/deep"))
        os.truncate(os.path.join(folder, "attributes"), 10_000_000)
        os.sync()
    check(image)
    assert stats(image, "/shared")["/shared"].links == 1
    with mounted(image) as folder:
        assert Path(folder, "sticky/1999").read_bytes() == CONTENT[: 1999 * 16]
        assert Path(folder, "made/deep/file").read_bytes() == CONTENT


def test_free_space_can_be_used_to_the_end(image: str) -> None:
    write(image, root(f=regular(10)), CONTENT, free_bytes=32 << 20)
    with mounted(image) as folder:
        target = os.open(os.path.join(folder, "fill"), os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            while True:
                os.write(target, bytes(1 << 20))
        assert os.fstat(target).st_size >= 31 << 20
        os.close(target)
    check(image)


def test_large_directories(image: str) -> None:
    files = {f"file-{number:06d}": regular() for number in range(120_000)}
    tree = root(files=root(**files), directories=root(**{f"{number}": directory() for number in range(65_010)}))
    write(image, tree, free_bytes=8 << 20)
    check(image)
    with mounted(image) as folder:
        assert len(os.listdir(os.path.join(folder, "files"))) == 120_000
        assert os.lstat(os.path.join(folder, "directories")).st_nlink == 1
        Path(folder, "files/one-more").write_bytes(b"x")
        # No further directory: the kernel counts links in a directory without an index, and would make 1 a 2.
        Path(folder, "directories/one-more").write_bytes(b"x")
    check(image)


def test_empty_image_in_the_kernel(image: str) -> None:
    fd = os.open(image, os.O_RDWR | os.O_CREAT)
    empty_image(fd, 1 << 30, uuid=UUID)
    os.close(fd)
    with mounted(image) as folder:
        assert os.listdir(folder) == []
        assert os.stat(folder).st_mode == stat.S_IFDIR | 0o755
        for number in range(300):
            os.makedirs(os.path.join(folder, f"{number}/a/b"))
        Path(folder, "data").write_bytes(CONTENT * 100)
    check(image)
