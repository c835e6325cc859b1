"""Images that the ext4 writer makes, as e2fsprogs sees them."""

from __future__ import annotations

import errno
import os
import resource
import stat
import struct
from pathlib import Path

import pytest

from ext4_images import UUID, check, content, debugfs, directory, listing, regular, root, stats, symlink, write
from unikeel.errors import BadContent, InvalidArgument, ResourceExhausted
from unikeel.snapshots.ext4 import Data, Node, empty_image, write_image
from unikeel.snapshots.ext4.output import NoSpace

ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in [(1, 6, 0xFFFFFFFF), (2, 4, 1000), (4, 4, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF), (32, 4, 0xFFFFFFFF)]
)


@pytest.fixture
def image(tmp_path: Path) -> str:
    return str(tmp_path / "image")


def test_every_kind_of_file(image: str) -> None:
    tree = root(
        f=regular(5, mode=0o6755, uid=70000, gid=2_000_000_000, mtime=1_700_000_000_123_456_789),
        empty=regular(),
        fast=symlink(b"t" * 59),
        slow=symlink(b"t" * 60),
        longest=symlink(b"t" * 4095),
        c=Node(stat.S_IFCHR | 0o666, device=(1, 3)),
        b=Node(stat.S_IFBLK | 0o660, device=(259, 70000)),
        p=Node(stat.S_IFIFO | 0o600),
        d=directory(0o1777),
    )
    write(image, tree, b"hello")
    check(image)
    found = stats(image, "f", "empty", "fast", "slow", "longest", "c", "b", "p", "d")
    assert content(image, "f") == b"hello"
    file = found["f"]
    assert (file.mode, file.uid, file.gid, file.size, file.sectors) == (0o6755, 70000, 2_000_000_000, 5, 8)
    assert file.mtime == 1_700_000_000_123_456_789
    assert {name: (s.type, s.size, s.sectors) for name, s in found.items() if name != "f"} == {
        "empty": ("regular", 0, 0),
        "fast": ("symlink", 59, 0),
        "slow": ("symlink", 60, 8),
        "longest": ("symlink", 4095, 8),
        "c": ("character special", 0, 0),
        "b": ("block special", 0, 0),
        "p": ("FIFO", 0, 0),
        "d": ("directory", 4096, 8),
    }
    assert "number: 01:03" in found["c"].text
    assert "number: 259:70000" in found["b"].text
    assert f'dest: "{"t" * 59}"' in found["fast"].text
    assert found["d"].mode == 0o1777
    assert listing(image) == [".", "..", "b", "c", "d", "empty", "f", "fast", "longest", "p", "slow"]


@pytest.mark.parametrize("seconds", [-(2**31), -1, 0, 2**31 - 1, 2**31, 2**32, 2**33 + 5, 2**34 - 2**31 - 1])
def test_times_beyond_2038(image: str, seconds: int) -> None:
    write(image, root(f=regular(mtime=seconds * 10**9 + 999_999_999)))
    assert stats(image, "f")["f"].mtime == seconds * 10**9 + 999_999_999


@pytest.mark.parametrize(("mtime", "stored"), [(-(10**30), -(2**31)), (10**30, 2**34 - 2**31 - 1)])
def test_times_that_ext4_cannot_hold_are_clamped(image: str, mtime: int, stored: int) -> None:
    write(image, root(f=regular(mtime=mtime)))
    assert stats(image, "f")["f"].mtime == stored * 10**9


def test_hard_links_share_one_inode(image: str) -> None:
    node = regular(3)
    write(image, root(a=node, b=node, d=root(c=node)), b"abc")
    check(image)
    found = stats(image, "a", "b", "d/c")
    assert {s.ino for s in found.values()} == {found["a"].ino}
    assert found["a"].links == 3


def test_attributes_in_the_inode_and_in_a_block(image: str) -> None:
    attributes = {
        b"user.small": b"v" * 8,
        b"security.capability": bytes(range(20)),
        b"user.empty": b"",
        b"trusted.large": b"L" * 3000,
        b"user.name" + b"n" * 246: b"\xff\0",
        b"system.posix_acl_access": ACL,
    }
    write(image, root(f=regular(xattrs=attributes), d=directory(xattrs={b"system.posix_acl_default": ACL})))
    check(image)
    shown = debugfs(image, "ea_get -x f trusted.large", "ea_list f", "ea_list d")
    assert b"4c 4c 4c" in shown
    for name in (
        b"user.small (8)",
        b"security.capability (20)",
        b"user.empty (0)",
        b"posix_acl_access",
        b"posix_acl_default",
    ):
        assert name in shown
    assert bytes.fromhex("0001020304050607") in Path(image).read_bytes()


@pytest.mark.parametrize(
    ("node", "part"),
    [
        (regular(xattrs={b"user.x": b"x" * 4096}), "more than the 4 KiB"),
        (regular(xattrs={b"user." + b"n" * 256: b""}), "cannot be stored"),
        (regular(xattrs={b"user.": b""}), "cannot be stored"),
        (regular(xattrs={b"other.x": b""}), "no namespace"),
        (regular(xattrs={b"system.posix_acl_access": b"short"}), "malformed"),
        (regular(xattrs={b"system.posix_acl_access": ACL[:-8]}), "malformed"),
        (regular(xattrs={b"system.posix_acl_access": ACL[:4] + ACL[12:] + ACL[4:12]}), "malformed"),
        (regular(xattrs={b"system.posix_acl_access": ACL + struct.pack("<HHI", 64, 0, 0)}), "malformed"),
        (symlink(b""), "target"),
        (symlink(b"t" * 4096), "target"),
        (Node(stat.S_IFCHR, device=(4096, 0)), "device number 4096:0"),
        (Node(stat.S_IFBLK, device=(0, 1 << 20)), "device number 0:1048576"),
    ],
)
def test_what_ext4_cannot_store_is_refused_by_path_before_writing(image: str, node: Node, part: str) -> None:
    with pytest.raises(BadContent, match=part) as caught:
        write(image, root(d=root(bad=node)))
    assert "'/d/bad'" in caught.value.message
    assert os.path.getsize(image) == 0


def test_too_many_names_of_one_file(image: str) -> None:
    node = regular()
    names = {f"n{number}": node for number in range(65001)}
    with pytest.raises(BadContent, match="65000 names"):
        write(image, root(**names))


def test_entries_fill_blocks_exactly(image: str) -> None:
    # 12-byte entries: 24 bytes of dots and 339 of them leave 4 bytes; and 264-byte ones end on other boundaries.
    for length in (1, 4, 5, 250, 255):
        names = [f"{number:0{length}d}"[-length:] for number in range(10 if length == 1 else 700)]
        write(image, root(**dict.fromkeys(names, regular())))
        check(image)
        assert sorted(listing(image)[2:]) == sorted(names)


def test_file_in_several_extents_round_the_copies_of_the_superblock(image: str) -> None:
    size = 700 << 20
    tree = root(a=regular(10), big=regular(size), z=regular(10))
    feed = os.open(os.path.dirname(image), os.O_TMPFILE | os.O_RDWR)
    os.pwrite(feed, b"begin", 0)
    os.pwrite(feed, b"cut", (128 << 20) - 1)
    os.pwrite(feed, b"end", size - 3)
    os.ftruncate(feed, size)
    fd = os.open(image, os.O_RDWR | os.O_CREAT)
    result = write_image(fd, tree, uuid=UUID, free_bytes=0, open_data=lambda _: feed)
    check(image)
    big = stats(image, "big")["big"]
    assert "ETB0" in big.text
    assert big.sectors * 512 == size + 4096
    # Zeroes were not written.
    assert result.blocks < 4 << 20
    for logical, wanted in ((0, b"begin"), (32767, b"c"), (32768, b"ut"), (size // 4096 - 1, b"end")):
        block = int(debugfs(image, f"bmap big {logical}").split()[-1])
        assert os.pread(fd, 4096, block * 4096).strip(b"\0") == wanted
    os.close(fd)
    os.close(feed)


def test_same_tree_same_bytes_whatever_the_order(tmp_path: Path) -> None:
    one = root(a=regular(4, xattrs={b"user.a": b"1", b"user.b": b"2"}), b=root(c=symlink(b"x")), d=directory())
    other = root(d=directory(), b=root(c=symlink(b"x")), a=regular(4, xattrs={b"user.b": b"2", b"user.a": b"1"}))
    for name, tree in (("one", one), ("other", other), ("again", one)):
        write(str(tmp_path / name), tree, b"data")
    found = {(tmp_path / name).read_bytes() for name in ("one", "other", "again")}
    assert len(found) == 1


def test_free_space_and_inodes_follow_the_demand(image: str) -> None:
    write(image, root(f=regular(1 << 20)), bytes(1 << 20), free_bytes=64 << 20)
    lines = dict(
        line.split(":", 1) for line in debugfs(image, "show_super_stats -h").decode().splitlines() if ":" in line
    )
    assert int(lines["Free blocks"]) * 4096 >= 64 << 20
    assert int(lines["Free inodes"]) >= (64 << 20) // 16384
    assert int(lines["Reserved block count"]) == 0
    assert lines["Filesystem UUID"].strip() == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert lines["Filesystem state"].strip() == "clean"
    assert "has_journal" in lines["Filesystem features"]


def test_nothing_else_is_in_the_image(image: str) -> None:
    assert write(image, root()).files == 1
    assert listing(image) == [".", ".."]


@pytest.mark.parametrize("size", [16 << 20, (128 << 20) + 4096, 1000 << 20, (256 << 20) + 12345, 20 << 30])
def test_empty_image_of_a_size(image: str, size: int) -> None:
    fd = os.open(image, os.O_RDWR | os.O_CREAT)
    result = empty_image(fd, size, uuid=UUID)
    os.close(fd)
    assert os.path.getsize(image) == result.size == size
    assert result.blocks < size // 100 + (1 << 20)
    check(image)
    assert listing(image) == [".", ".."]


@pytest.mark.parametrize("size", [0, 1 << 20, 1 << 45])
def test_empty_image_of_a_size_that_cannot_be(image: str, size: int) -> None:
    fd = os.open(image, os.O_RDWR | os.O_CREAT)
    with pytest.raises(InvalidArgument, match=str(size)):
        empty_image(fd, size, uuid=UUID)
    os.close(fd)


def test_destination_must_be_empty_and_the_uuid_whole(image: str) -> None:
    fd = os.open(image, os.O_RDWR | os.O_CREAT)
    with pytest.raises(InvalidArgument, match="UUID"):
        empty_image(fd, 16 << 20, uuid=b"short")
    os.write(fd, b"x")
    with pytest.raises(InvalidArgument, match="not empty"):
        empty_image(fd, 16 << 20, uuid=UUID)
    os.close(fd)


def test_source_that_became_shorter(image: str) -> None:
    with pytest.raises(BadContent, match="ends at byte 3"):
        write(image, root(f=regular(5)), b"abc")


def test_no_space_names_the_destination(image: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(ResourceExhausted, match="image"):
            write(image, root())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_other_errors_are_not_taken_for_no_space() -> None:
    with pytest.raises(OSError, match="broken") as caught, NoSpace(0):
        raise OSError(errno.EIO, "broken")
    assert caught.value.errno == errno.EIO


def test_sources_are_told_apart(image: str) -> None:
    tree = root(a=Node(stat.S_IFREG, data=Data(0, 1, 2)), b=Node(stat.S_IFREG, data=Data(1, 0, 3)))
    feeds = [os.memfd_create("0"), os.memfd_create("1")]
    os.write(feeds[0], b"012")
    os.write(feeds[1], b"abc")
    told: list[int] = []
    fd = os.open(image, os.O_RDWR | os.O_CREAT)
    write_image(fd, tree, uuid=UUID, open_data=feeds.__getitem__, progress=told.append)
    os.close(fd)
    assert (content(image, "a"), content(image, "b"), sum(told)) == (b"12", b"abc", 5)
