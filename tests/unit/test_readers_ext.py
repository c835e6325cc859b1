"""The ext reader against images that mke2fs makes, with debugfs as a second opinion; and what it must refuse."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
from pathlib import Path

import pytest

from readers_images import (
    LIMIT,
    Entry,
    Mutation,
    Opened,
    content_digest,
    debugfs,
    expected,
    found,
    make_ext,
    mutated,
    noise,
    sample_tree,
    tool,
    write,
    write_sparse,
)
from unikeel.boot.readers.contract import PathError, PathReason
from unikeel.boot.readers.crc import crc32c
from unikeel.errors import BadContent

BASE = "none,filetype,sparse_super,large_file"
MODERN = f"{BASE},extent,64bit,flex_bg,metadata_csum,dir_index,huge_file,dir_nlink,extra_isize,has_journal"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> str:
    return sample_tree(str(tmp_path_factory.mktemp("tree")))


@pytest.fixture
def image(tmp_path: Path) -> str:
    return str(tmp_path / "image")


LAYOUTS = {
    "ext2-1k": ("-b1024", "-I128", "-O", BASE),
    "ext2-revision-0": ("-b1024", "-r0", "-O", "none"),
    "ext2-no-filetype": ("-b2048", "-I128", "-O", "none,sparse_super,dir_index"),
    "ext3": ("-b1024", "-I256", "-O", f"{BASE},has_journal,resize_inode,ext_attr,dir_index"),
    "ext3-uninit-bg": ("-b1024", "-I256", "-O", f"{BASE},has_journal,uninit_bg"),
    "extents-4k": ("-b4096", "-I256", "-O", f"{BASE},extent"),
    "own-writer": ("-b4096", "-I256", "-O", f"{BASE},extent,dir_nlink,extra_isize,has_journal,flex_bg"),
    "modern-1k": ("-b1024", "-I256", "-O", MODERN),
    "modern-4k": ("-b4096", "-I256", "-O", MODERN),
    "modern-seed": ("-b2048", "-I512", "-O", f"{MODERN},metadata_csum_seed"),
    "checksums-128": ("-b1024", "-I128", "-O", f"{BASE},metadata_csum"),
    "checksums-block-map": ("-b1024", "-I256", "-O", f"{BASE},metadata_csum,flex_bg"),
    "inline": ("-b1024", "-I256", "-O", f"{MODERN},inline_data"),
    "inline-1k-inodes": ("-b4096", "-I1024", "-O", f"{BASE},extent,inline_data,ext_attr"),
    "bigalloc": ("-b1024", "-C8192", "-O", f"{MODERN},bigalloc"),
    "bigalloc-4k": ("-b4096", "-C16384", "-O", f"{MODERN},bigalloc"),
    "meta-bg": ("-b1024", "-g256", "-O", f"{BASE},extent,metadata_csum,64bit,meta_bg,^resize_inode"),
    "meta-bg-32": ("-b1024", "-g256", "-O", f"{BASE},extent,uninit_bg,meta_bg,^resize_inode"),
    "no-sparse-super": ("-b1024", "-g512", "-O", "none,filetype,extent,meta_bg,^resize_inode"),
    "sparse-super2": ("-b1024", "-g512", "-O", f"{MODERN},sparse_super2,meta_bg,^sparse_super"),
    "uninit-64bit": ("-b1024", "-I256", "-O", f"{BASE},extent,uninit_bg,64bit"),
    "everything": (
        "-b1024",
        "-O",
        f"{MODERN},quota,project,mmp,ea_inode,large_dir,verity,stable_inodes,encrypt,fast_commit",
    ),
    "casefold-feature": ("-b4096", "-O", f"{MODERN},casefold"),
    "blocks-of-64k": ("-b65536", "-O", f"{BASE},extent,metadata_csum,64bit"),
    "blocks-of-64k-ext2": ("-b65536", "-I128", "-O", BASE),
    "hurd": ("-b4096", "-I128", "-ohurd", "-O", "none,sparse_super,large_file"),
}


def _size(layout: str) -> str:
    return "12M" if "64k" in layout else "6M"


def _check_all(image: str, tree: str, layout: str) -> None:
    wanted = expected(tree)
    if "inline" in layout:  # mke2fs 1.47.0 gives files with holes a wrong size there; debugfs tells what is in them
        for path in ("/boot/holes", "/boot/pieces"):
            debugfs(image, f"dump {path} {image}.dump")
            data = Path(f"{image}.dump").read_bytes()
            wanted[path] = Entry(wanted[path].mode, len(data), hashlib.sha256(data).hexdigest())
    with Opened(image) as reader:
        assert found(reader) == wanted


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reads_what_mke2fs_wrote(layout: str, tree: str, image: str) -> None:
    make_ext(image, tree, *LAYOUTS[layout], size=_size(layout))
    _check_all(image, tree, layout)


@pytest.mark.parametrize("layout", ["modern-1k", "ext2-1k", "inline", "blocks-of-64k"])
def test_reads_hash_tree_directories(layout: str, tree: str, image: str) -> None:
    options = [*LAYOUTS[layout][:-1], LAYOUTS[layout][-1] + ",dir_index"]
    make_ext(image, tree, *options, size=_size(layout))
    done = os.spawnlp(os.P_WAIT, "sh", "sh", "-c", f"e2fsck -fyD '{image}' >/dev/null 2>&1")
    assert done in {0, 1}
    _check_all(image, tree, layout)


@pytest.mark.parametrize(
    ("options", "name"),
    [(("-b1024", "-O", BASE), "ext2"), (("-b1024", "-O", f"{BASE},has_journal"), "ext3"), (("-O", MODERN), "ext4")],
)
def test_names_the_format(options: tuple[str, ...], name: str, image: str) -> None:
    make_ext(image, None, *options)
    with Opened(image) as reader:
        assert reader.fstype == name


@pytest.mark.parametrize("options", [("-b1024", "-O", BASE), ("-b1024", "-O", MODERN)])
def test_reads_far_and_sparse_maps(options: tuple[str, ...], image: str, tmp_path: Path) -> None:
    """A block beyond the reach of double indirection, and enough pieces for a tree of extents."""
    source = str(tmp_path / "source")
    os.mkdir(source)
    write_sparse(f"{source}/far", {0: b"begin", (66 << 20) + 5: b"middle", (67 << 20) - 3: b"end"}, 67 << 20)
    write_sparse(f"{source}/comb", {2048 * number: noise(1024, number) for number in range(900)}, 2048 * 900)
    make_ext(image, source, *options)
    with Opened(image) as reader:
        assert found(reader) == expected(source)


def test_reads_unwritten_extents_as_zeroes(image: str) -> None:
    make_ext(image, None, "-b1024", "-O", MODERN)
    debugfs(image, "write /dev/null /file", "fallocate /file 2 9", "sif /file size 9000")
    with Opened(image) as reader:
        assert b"".join(reader.open("/file", LIMIT).chunks()) == bytes(9000)
        assert content_digest(reader, "/file")


def test_reads_owners_and_devices(image: str) -> None:
    make_ext(image, None, "-b1024", "-O", MODERN)
    requests = ["write /dev/null /file", "sif /file uid 70000", "sif /file uid_high 1", "sif /file gid 5"]
    debugfs(image, *requests, "mknod dev b 7 0", "mknod pipe p")
    with Opened(image) as reader:
        info = reader.lookup("/file")
        assert (info.uid, info.gid) == (70000, 5)
        for path in ("/dev", "/pipe", "/", "/lost+found"):
            with pytest.raises(PathError) as error:
                reader.open(path, LIMIT)
            assert error.value.reason is PathReason.NOT_REGULAR


def test_a_limit_is_a_limit(tree: str, image: str) -> None:
    make_ext(image, tree, "-O", MODERN)
    with Opened(image) as reader:
        assert reader.open("/sizes/4096", 4096).info.size == 4096
        with pytest.raises(PathError) as error:
            reader.open("/sizes/4097", 4096)
        assert error.value.reason is PathReason.TOO_LARGE


def test_the_descriptor_stays_the_callers(image: str) -> None:
    make_ext(image, None, "-O", MODERN)
    with open(image, "rb") as file, Opened(image) as reader:
        file.seek(17)
        reader.lookup("/lost+found")
        assert file.tell() == 17


def _features(word: int, bits: int) -> Mutation:
    def change(data: bytearray) -> None:
        offset = 1024 + 92 + 4 * word
        struct.pack_into("<I", data, offset, struct.unpack_from("<I", data, offset)[0] | bits)
        _sum_super(data)

    return change


def _field(offset: int, form: str, value: int) -> Mutation:
    def change(data: bytearray) -> None:
        struct.pack_into(form, data, 1024 + offset, value)
        _sum_super(data)

    return change


def _sum_super(data: bytearray) -> None:
    struct.pack_into("<I", data, 1024 + 1020, crc32c(0xFFFFFFFF, bytes(data[1024:2044])))


REFUSED = {
    "needs recovery: its journal": _features(1, 0x4),
    "needs recovery: errors": _field(58, "<H", 3),
    "needs recovery: it was not cleanly": _field(58, "<H", 0),
    "needs recovery: it has orphaned": _field(232, "<I", 12),
    "needs recovery: it has orphaned inodes": _features(2, 0x10000),
    "feature compression": _features(1, 0x1),
    "feature journal_dev": _features(1, 0x8),
    "feature dirdata": _features(1, 0x1000),
    "unknown incompatible features 0x40000": _features(1, 0x40000),
    "0x80000000": _features(1, 0x80000000),
    "block size": _field(24, "<I", 7),
    "blocks of 1024 bytes, the image only": _field(4, "<I", 1 << 30),
    "geometry": _field(32, "<I", 0),
    "geometry is": _field(20, "<I", 9),
    "is damaged": _field(88, "<H", 96),
    "number of inodes": _field(0, "<I", 1 << 30),
    "descriptor size": _field(254, "<H", 48),
    "unknown type": _field(373, "<B", 2),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refuses_by_name(message: str, image: str) -> None:
    make_ext(image, None, "-b1024", "-O", MODERN)
    mutated(image, REFUSED[message])
    with pytest.raises(BadContent, match=message), Opened(image):
        pass


@pytest.mark.parametrize(("word", "bits"), [(0, 0x1000), (0, 0x80000000), (2, 0x20000), (2, 0x80000000), (1, 0x30000)])
def test_reads_in_spite_of_features_that_only_matter_to_writers(word: int, bits: int, tree: str, image: str) -> None:
    """``orphan_file`` without orphans, unknown compatible and read-only-compatible bits, encrypt and casefold unused."""
    make_ext(image, tree, "-b1024", "-O", MODERN, size="6M")
    mutated(image, _features(word, bits))
    with Opened(image) as reader:
        assert found(reader) == expected(tree)


def test_refuses_an_external_journal(image: str) -> None:
    tool("mke2fs", "-q", "-F", "-O", "journal_dev", image, "6M")
    with pytest.raises(BadContent, match="journal_dev"), Opened(image):
        pass


@pytest.mark.parametrize(
    ("flag", "path", "message"),
    [
        (0x800, "/file", "encrypt"),
        (0x100000, "/file", "verity"),
        (0x200000, "/file", "holds an attribute"),
        (0x800, "/directory/file", "encrypt"),
        (0x40000000, "/directory/file", "casefold"),
    ],
)
def test_refuses_single_inodes_by_name(flag: int, path: str, message: str, image: str, tmp_path: Path) -> None:
    source = str(tmp_path / "source")
    write(f"{source}/directory/file", b"x")
    write(f"{source}/file", b"x")
    make_ext(image, source, "-b1024", "-O", f"{BASE},extent")
    target = "/directory" if "directory" in path else "/file"
    debugfs(image, f"sif {target} flags {0x80000 | flag:#x}")
    with Opened(image) as reader, pytest.raises(BadContent, match=message):
        reader.open(path, LIMIT)


@pytest.fixture(scope="module")
def summed_once(tree: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_ext(str(tmp_path_factory.mktemp("summed") / "image"), tree, "-b1024", "-O", MODERN, size="6M")


@pytest.fixture
def summed(summed_once: str, image: str) -> str:
    shutil.copyfile(summed_once, image)
    return image


def _block_of(image: str, path: str) -> int:
    return int(tool("debugfs", "-R", f"blocks {path}", image).split()[0])


def _inode_offset(image: str, path: str) -> int:
    words = tool("debugfs", "-R", f"imap {path}", image).split()
    return int(words[words.index("at") + 2].rstrip(",")) * 1024 + int(words[-1], 16)


@pytest.mark.parametrize("offset", [100, 1030])
def test_a_wrong_superblock_checksum_is_named(summed: str, offset: int) -> None:
    mutated(summed, lambda data: data.__setitem__(1024 + offset % 1020, data[1024 + offset % 1020] ^ 1))
    with pytest.raises(BadContent), Opened(summed):
        pass


def test_a_wrong_descriptor_checksum_is_named(summed: str) -> None:
    mutated(summed, lambda data: data.__setitem__(2048 + 50, data[2048 + 50] ^ 1))
    with pytest.raises(BadContent, match="descriptor of group 0"), Opened(summed):
        pass


def test_a_wrong_descriptor_checksum_of_uninit_bg_is_named(image: str) -> None:
    make_ext(image, None, "-b1024", "-O", f"{BASE},uninit_bg")
    mutated(image, lambda data: data.__setitem__(2048 + 14, data[2048 + 14] ^ 1))
    with Opened(image) as reader, pytest.raises(BadContent, match="descriptor of group 0"):
        reader.lookup("/")


@pytest.mark.parametrize("byte", [4, 16, 125, 131, 200])
def test_a_wrong_inode_checksum_is_named(summed: str, byte: int) -> None:
    offset = _inode_offset(summed, "/boot/kernel") + byte
    mutated(summed, lambda data: data.__setitem__(offset, data[offset] ^ 1))
    with Opened(summed) as reader, pytest.raises(BadContent, match="checksum of inode"):
        reader.lookup("/boot/kernel")


def test_a_wrong_directory_checksum_is_named(summed: str) -> None:
    offset = _block_of(summed, "/boot") * 1024 + 16
    mutated(summed, lambda data: data.__setitem__(offset, data[offset] ^ 1))
    with Opened(summed) as reader, pytest.raises(BadContent, match="block of the directory"):
        reader.lookup("/boot/kernel")


def test_a_wrong_extent_block_checksum_is_named(summed: str) -> None:
    lines = tool("debugfs", "-R", "ex /boot/pieces", summed).splitlines()
    node = int(next(line for line in lines if line.strip().startswith("0/ 1")).split("-")[1].split()[1])
    mutated(summed, lambda data: data.__setitem__(node * 1024 + 30, data[node * 1024 + 30] ^ 1))
    with Opened(summed) as reader, pytest.raises(BadContent, match="extent block"):
        reader.open("/boot/pieces", LIMIT)


def test_a_map_that_leads_to_itself_ends(image: str, tmp_path: Path) -> None:
    source = str(tmp_path / "source")
    write(f"{source}/file", noise(400 << 10, 1))
    make_ext(image, source, "-b1024", "-I128", "-O", BASE)
    offset = _inode_offset(image, "/file") + 40 + 4 * 13
    double = struct.unpack_from("<I", Path(image).read_bytes(), offset)[0]

    def loop(data: bytearray) -> None:
        struct.pack_into("<I", data, double * 1024, double)

    mutated(image, loop)
    with Opened(image) as reader, pytest.raises(BadContent, match="twice"):
        reader.open("/file", LIMIT)


def test_a_truncated_image_is_refused(summed: str) -> None:
    os.truncate(summed, 4 << 20)
    with pytest.raises(BadContent, match="the image only 4194304 bytes"), Opened(summed):
        pass


@pytest.mark.parametrize("content", [b"", b"\0" * 1024, b"\0" * 8192, b"hsqs" + bytes(8192)])
def test_other_content_is_no_file_system(content: bytes, image: str) -> None:
    Path(image).write_bytes(content)
    with pytest.raises(BadContent, match="no ext2/3/4 or erofs"), Opened(image):
        pass


def test_a_directory_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(BadContent, match="neither a regular file nor"), Opened(str(tmp_path)):
        pass
