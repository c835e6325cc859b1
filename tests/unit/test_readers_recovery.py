"""File systems that are not at rest although their superblock does not say so: journals, multiple mount protection."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from readers_images import Mutation, Opened, make_ext, mutated, tool, write
from unikeel.errors import BadContent

JOURNAL = "none,filetype,sparse_super,large_file,extent,dir_index,has_journal"
BLOCK = 4096


@pytest.fixture
def image(tmp_path: Path) -> str:
    return str(tmp_path / "image")


def _journal(image: str) -> int:
    """Where the journal's superblock lies."""
    return int(tool("debugfs", "-R", "bmap <8> 0", image).split()[0]) * BLOCK


def _big(offset: int, value: int) -> Mutation:
    return lambda data: struct.pack_into(">I", data, offset, value)


@pytest.mark.parametrize(
    "features", [JOURNAL, f"{JOURNAL},metadata_csum,64bit", f"{JOURNAL},^extent", f"{JOURNAL},fast_commit"]
)
def test_an_empty_journal_is_fine(features: str, image: str) -> None:
    make_ext(image, None, "-b4096", "-O", features, size="16M")
    with Opened(image) as reader:
        assert reader.lookup("/lost+found").inode == 11


@pytest.mark.parametrize(("offset", "message"), [(0x1C, "its journal is not empty"), (0x20, "an error is recorded")])
@pytest.mark.parametrize("features", [JOURNAL, f"{JOURNAL},^extent"])
def test_a_dirty_journal_is_stale_without_the_flag(features: str, offset: int, message: str, image: str) -> None:
    make_ext(image, None, "-b4096", "-O", features, size="16M")
    mutated(image, _big(_journal(image) + offset, 1))
    with pytest.raises(BadContent, match=f"needs recovery: {message}"), Opened(image):
        pass


@pytest.mark.parametrize("offset", [0, 4, 12])
def test_a_damaged_journal_is_named(offset: int, image: str) -> None:
    make_ext(image, None, "-b4096", "-O", JOURNAL, size="16M")
    mutated(image, _big(_journal(image) + offset, 0x12345678))
    with pytest.raises(BadContent, match="journal is damaged"), Opened(image):
        pass


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (2, "out of range"),
        (1 << 31, "out of range"),
        (11, "not a regular file"),
        (12, "not in use"),
        (13, "first block"),
    ],
)
def test_a_journal_that_is_none_is_named(number: int, message: str, image: str, tmp_path: Path) -> None:
    write(f"{tmp_path}/source/empty", b"")
    make_ext(image, f"{tmp_path}/source", "-b4096", "-O", JOURNAL, size="16M")
    if number == 13:
        number = 12
    elif number == 12:
        number = 20
    mutated(image, lambda data: struct.pack_into("<I", data, 1024 + 224, number))
    with pytest.raises(BadContent, match=message), Opened(image):
        pass


def test_a_clean_file_system_with_its_journal_elsewhere_is_read(image: str) -> None:
    make_ext(image, None, "-b4096", "-O", JOURNAL, size="16M")
    mutated(image, lambda data: struct.pack_into("<I", data, 1024 + 224, 0))
    with Opened(image) as reader:
        assert reader.fstype == "ext4"


@pytest.mark.parametrize(
    ("sequence", "message"), [(0xE24D4D50, "a check of it was not finished"), (17, "it is in use"), (0, "it is in use")]
)
def test_multiple_mount_protection_tells_of_use(sequence: int, message: str, image: str) -> None:
    make_ext(image, None, "-b4096", "-O", f"{JOURNAL},mmp", size="16M")
    with Opened(image) as reader:
        assert reader.lookup("/").inode == 2
    block = struct.unpack_from("<Q", Path(image).read_bytes(), 1024 + 360)[0]
    mutated(image, lambda data: struct.pack_into("<I", data, block * BLOCK + 4, sequence))
    with pytest.raises(BadContent, match=f"needs recovery: {message}"), Opened(image):
        pass


@pytest.mark.parametrize(("block", "message"), [(1 << 40, "outside the file system"), (1, "mmp. is damaged")])
def test_a_damaged_block_for_multiple_mount_protection_is_named(block: int, message: str, image: str) -> None:
    make_ext(image, None, "-b4096", "-O", f"{JOURNAL},mmp", size="16M")
    mutated(image, lambda data: struct.pack_into("<Q", data, 1024 + 360, block))
    with pytest.raises(BadContent, match=message), Opened(image):
        pass
