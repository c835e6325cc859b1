"""The readers against the kernel: the same images mounted read-only, and images that the kernel wrote."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from readers_images import (
    Opened,
    by_kernel,
    by_reader,
    content_digest,
    debugfs,
    expected,
    found,
    make_erofs,
    make_ext,
    noise,
    sample_tree,
    tool,
    write,
)
from unikeel.boot.readers.contract import Reader
from unikeel.errors import BadContent

BASE = "none,filetype,sparse_super,large_file"
MODERN = f"{BASE},extent,64bit,flex_bg,metadata_csum,dir_index,huge_file,dir_nlink,extra_isize,has_journal"
EXT = {
    "ext2": ("-b1024", "-I128", "-O", BASE),
    "ext3": ("-b1024", "-I256", "-O", f"{BASE},has_journal,dir_index,uninit_bg,ext_attr"),
    "ext4-1k": ("-b1024", "-I256", "-O", MODERN),
    "ext4-4k": ("-b4096", "-I256", "-O", f"{MODERN},metadata_csum_seed,large_dir"),
    "ext4-inline": ("-b4096", "-I512", "-O", f"{MODERN},inline_data,ext_attr"),
    "ext4-bigalloc": ("-b1024", "-C8192", "-O", f"{MODERN},bigalloc"),
    "ext4-meta-bg": ("-b1024", "-g512", "-O", f"{BASE},extent,metadata_csum,64bit,meta_bg,dir_index"),
    "ext4-ea-inode": ("-b1024", "-I256", "-O", f"{MODERN},ea_inode,ext_attr"),
}
EROFS = ["", "-Eforce-inode-extended,noinline_data", "--chunksize=4096", "-zlz4hc -C65536 -Eztailpacking,fragments"]
PATHS = [
    *("/", ".", "..", "/..", "//", "/short", "short/", "absolute", "long", "boot/up", "dangling", "loop", "fifo"),
    *("fifo/", "fifo/x", "boot", "boot/", "boot/.", "boot/kernel", "boot/kernel/", "boot/kernel/.", "boot/kernel/.."),
    *("boot/../boot/kernel", "../../boot/kernel", "missing", "missing/", "missing/x", "boot/missing", "empty/../short"),
    *("n" * 255, "n" * 256, "boot/kernel/" + "n" * 256, "missing/" + "n" * 256, "./" * 2047 + "x", "./" * 2048),
    *("latin \udce4", "latin \udce4/..", "many/file with a rather long name 0049", "l40", "l41", "l40/", "l20/../l20"),
    *("l21/../l20", "l21/../l20/", "sizes/60/", "hollow", "hollow/", "hollow/short"),
]


@contextmanager
def mounted(image: str, at: Path, options: str = "ro") -> Iterator[str]:
    at.mkdir(exist_ok=True)
    tool("mount", "-o", f"loop,{options}", image, str(at))
    try:
        yield str(at)
    finally:
        tool("umount", str(at))


def check(reader: Reader, root: str) -> None:
    """Everything that the reader finds is what the kernel finds, and the other way round; every path ends alike."""
    wanted = {path: entry for path, entry in expected(root).items() if not path.startswith("/lost+found")}
    assert found(reader) == wanted
    for path in wanted:
        status = os.lstat(root + path)
        if not stat.S_ISLNK(status.st_mode):
            info = reader.lookup(path)
            assert (info.mode, info.uid, info.gid) == (status.st_mode, status.st_uid, status.st_gid)
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in PATHS:
            assert by_reader(reader, path) == by_kernel(fd, path), path
    finally:
        os.close(fd)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = sample_tree(str(tmp_path_factory.mktemp("tree")))
    os.mkdir(f"{root}/l0")
    for number in range(1, 42):
        os.symlink(f"/l{number - 1}" if number % 2 else f"l{number - 1}", f"{root}/l{number}")
    os.mknod(f"{root}/block", stat.S_IFBLK | 0o600, os.makedev(7, 0))
    os.mknod(f"{root}/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.chown(f"{root}/boot/kernel", 70000, 80000)
    return root


@pytest.fixture
def image(tmp_path: Path) -> str:
    return str(tmp_path / "image")


@pytest.mark.parametrize("layout", EXT)
def test_reads_ext_as_the_kernel_does(layout: str, tree: str, image: str, tmp_path: Path) -> None:
    make_ext(image, tree, *EXT[layout], size="12M")
    with mounted(image, tmp_path / "at") as root, Opened(image) as reader:
        check(reader, root)


@pytest.mark.parametrize("layout", EROFS)
def test_reads_erofs_as_the_kernel_does(layout: str, tree: str, image: str, tmp_path: Path) -> None:
    make_erofs(image, tree, *layout.split())
    with mounted(image, tmp_path / "at") as root, Opened(image) as reader:
        check(reader, root)


def write_by_hand(root: str) -> None:
    """What only a kernel writes: hash trees, unwritten extents, removed and grown files, attributes beside data."""
    sample_tree(root)
    for number in range(500):
        write(f"{root}/hashed/a name that is long enough to need many blocks {number:05d}", b"%d" % number)
    for number in range(0, 500, 3):
        os.unlink(f"{root}/hashed/a name that is long enough to need many blocks {number:05d}")
    with open(f"{root}/boot/unwritten", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 200_000)
        os.pwrite(file.fileno(), noise(3000, 9), 50_000)
        os.pwrite(file.fileno(), noise(300, 10), 150_001)
    with open(f"{root}/boot/kernel", "r+b") as file:
        file.truncate(63_457)
        file.truncate(99_000)
    for number in range(0, 200, 7):
        write(f"{root}/grown/{number}", b"x" * number)
        with open(f"{root}/grown/{number}", "ab") as file:
            file.write(noise(number, number))
    for number in range(40):
        os.makedirs(f"{root}/deep/" + "/".join("d" for _ in range(number)), exist_ok=True)


@pytest.mark.parametrize("layout", EXT)
def test_reads_what_the_kernel_wrote(layout: str, image: str, tmp_path: Path) -> None:
    make_ext(image, None, *EXT[layout], "-N4096", size="24M")
    with mounted(image, tmp_path / "at", "rw") as root:
        write_by_hand(root)
    with mounted(image, tmp_path / "at") as root, Opened(image) as reader:
        check(reader, root)


@pytest.mark.parametrize("layout", ["ext2", "ext3", "ext4-4k"])
def test_a_file_system_that_is_mounted_needs_recovery(layout: str, image: str, tmp_path: Path) -> None:
    """A copy taken while the kernel has it mounted for writing is refused, as is one with an open unlinked file."""
    make_ext(image, None, *EXT[layout], size="12M")
    with mounted(image, tmp_path / "at", "rw") as root:
        write(f"{root}/file", b"x" * 5000)
        os.sync()
        shutil.copyfile(image, f"{image}.copy")
    with pytest.raises(BadContent, match="needs recovery"), Opened(f"{image}.copy"):
        pass
    with Opened(image) as reader:
        assert reader.lookup("/file").size == 5000


def test_a_link_of_no_length_is_as_good_as_none(image: str, tmp_path: Path) -> None:
    """The kernel calls it damage, too (EUCLEAN), so both say that the content is bad."""
    source = str(tmp_path / "source")
    os.makedirs(source)
    os.symlink("x", f"{source}/link")
    make_ext(image, source, "-b1024", "-I256", "-O", f"{BASE},extent")
    debugfs(image, "sif /link size 0")
    with mounted(image, tmp_path / "at") as root, Opened(image) as reader:
        with pytest.raises(BadContent):
            reader.lookup("/link")
        with pytest.raises(OSError, match=r"cleaning|Input/output"):
            os.stat(f"{root}/link")


def test_reads_a_block_device(tree: str, image: str) -> None:
    make_ext(image, tree, *EXT["ext4-4k"], size="12M")
    device = tool("losetup", "--find", "--show", "--read-only", image).strip()
    try:
        with Opened(device) as reader:
            assert content_digest(reader, "/boot/kernel") == expected(tree)["/boot/kernel"].digest
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_agrees_with_fsck_erofs(tree: str, image: str, tmp_path: Path) -> None:
    make_erofs(image, tree, "-zlz4hc,9", "-C32768", "-Ededupe,fragments")
    tool("fsck.erofs", f"--extract={tmp_path / 'out'}", image)
    with Opened(image) as reader:
        wanted = expected(str(tmp_path / "out"))
        assert {path: entry.digest for path, entry in found(reader).items()} == {p: e.digest for p, e in wanted.items()}
