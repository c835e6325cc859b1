"""The erofs reader against images that mkfs.erofs makes, and what it must refuse."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from readers_images import (
    LIMIT,
    Mutation,
    Opened,
    expected,
    found,
    make_erofs,
    mutated,
    noise,
    sample_tree,
    text,
    write,
)
from unikeel.boot.readers import lz4
from unikeel.boot.readers.contract import PathError, PathReason
from unikeel.boot.readers.crc import crc32c
from unikeel.boot.readers.erofs import ErofsReader
from unikeel.boot.readers.erofs_compressed import compressed_file
from unikeel.boot.readers.erofs_index import pieces_of
from unikeel.boot.readers.erofs_inode import ErofsInode
from unikeel.boot.readers.erofs_super import ErofsSuper
from unikeel.boot.readers.image import Image
from unikeel.errors import BadContent


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> str:
    return sample_tree(str(tmp_path_factory.mktemp("tree")))


@pytest.fixture
def image(tmp_path: Path) -> str:
    return str(tmp_path / "image")


LAYOUTS = [
    "",
    "-Eforce-inode-extended",
    "-Eforce-inode-compact,noinline_data",
    "-Enosbcrc",
    "--chunksize=4096",
    "--chunksize=65536 -Eforce-inode-extended",
    "--chunksize=4096 -Eforce-chunk-indexes,dedupe",
    "--chunksize=8192 -Eforce-inode-blockmap",
    "-zlz4",
    "-zlz4hc,12 -C16384",
    "-zlz4hc -C65536 -Eztailpacking",
    "-zlz4 -Elegacy-compress",
    "-zlz4 -Elegacy-compress,ztailpacking",
    "-zlz4 -Efragments -C65536",
    "-zlz4 -Eall-fragments",
    "-zlz4 -Ededupe,fragments,ztailpacking",
    "-zlz4 --max-extent-bytes=8192",
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reads_what_mkfs_wrote(layout: str, tree: str, image: str) -> None:
    make_erofs(image, tree, *layout.split())
    with Opened(image) as reader:
        assert reader.fstype == "erofs"
        assert found(reader) == expected(tree)


def test_reads_owners_and_follows_links(tree: str, image: str) -> None:
    make_erofs(image, tree, "--force-uid=70000", "--force-gid=5")
    with Opened(image) as reader:
        info = reader.lookup("/absolute")
        assert (info.uid, info.gid, info.size) == (70000, 5, 100_001)
        with pytest.raises(PathError) as error:
            reader.open("/loop", LIMIT)
        assert error.value.reason is PathReason.LINK_LOOP


def _features(bits: int) -> Mutation:
    def change(data: bytearray) -> None:
        struct.pack_into("<I", data, 1104, struct.unpack_from("<I", data, 1104)[0] | bits)
        _sum_super(data)

    return change


def _field(offset: int, form: str, value: int) -> Mutation:
    def change(data: bytearray) -> None:
        struct.pack_into(form, data, 1024 + offset, value)
        _sum_super(data)

    return change


def _sum_super(data: bytearray) -> None:
    struct.pack_into("<I", data, 1028, 0)
    struct.pack_into("<I", data, 1028, crc32c(0xFFFFFFFF, bytes(data[1024:4096])))


def _both(*changes: Mutation) -> Mutation:
    def change(data: bytearray) -> None:
        for one in changes:
            one(data)

    return change


REFUSED = {
    "feature 48bit": _features(0x80),
    "feature metabox": _features(0x100),
    "features 0x200": _features(0x200),
    "0x80000000": _features(0x80000000),
    "feature device_table": _both(_features(0x8), _field(86, "<H", 1)),
    "block sizes": _field(12, "<B", 8),
    "block sizes are": _field(90, "<B", 1),
    "the image only": _field(36, "<I", 1 << 30),
    "checksum is wrong": lambda data: data.__setitem__(1024 + 64, data[1024 + 64] ^ 1),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refuses_by_name(message: str, tree: str, image: str) -> None:
    make_erofs(image, tree)
    mutated(image, REFUSED[message])
    with pytest.raises(BadContent, match=message), Opened(image):
        pass


def _inode(image: str, path: str) -> int:
    with Opened(image) as reader:
        nid = reader.lookup(path).inode
    meta = int.from_bytes(Path(image).read_bytes()[1064:1068], "little")
    return meta * 4096 + nid * 32


@pytest.mark.parametrize(
    ("options", "offset", "form", "value", "message"),
    [
        ("", 0, "<H", 0x15, "unknown format bits"),
        ("", 0, "<H", 0xB, "unknown data layout 5"),
        ("", 4, "<H", 0, "mode"),
        ("-Enoinline_data", 16, "<I", 1 << 24, "outside the file system"),
        ("--chunksize=4096", 16, "<H", 0x40, "48bit"),
    ],
)
def test_a_damaged_inode_is_named(
    options: str, offset: int, form: str, value: int, message: str, tree: str, image: str
) -> None:
    make_erofs(image, tree, *options.split(), "-Eforce-inode-compact,nosbcrc")
    where = _inode(image, "/boot/kernel") + offset
    mutated(image, lambda data: struct.pack_into(form, data, where, value))
    with Opened(image) as reader, pytest.raises(BadContent, match=message):
        reader.open("/boot/kernel", LIMIT)


@pytest.mark.parametrize(("algorithm", "message"), [(3, "zstd"), (9, "algorithm 9"), (1, "not announced")])
def test_a_compression_that_is_not_read_is_named(algorithm: int, message: str, tree: str, image: str) -> None:
    make_erofs(image, tree, "-zlz4", "-Eforce-inode-compact,nosbcrc", "-x-1")
    where = _inode(image, "/boot/config.txt") + 32 + 6
    mutated(image, lambda data: data.__setitem__(where, algorithm))
    with Opened(image) as reader, pytest.raises(BadContent, match=message):
        reader.open("/boot/config.txt", LIMIT)


def test_damaged_compressed_data_is_not_read(tree: str, image: str) -> None:
    make_erofs(image, tree, "-zlz4")
    content = Path(f"{tree}/boot/config.txt").read_bytes()
    first = Path(image).read_bytes().find(content[:20])
    mutated(image, lambda data: data.__setitem__(slice(first - 2, first + 200), b"\xff" * 202))
    with Opened(image) as reader, pytest.raises(BadContent, match="lz4 data is damaged"):
        list(reader.open("/boot/config.txt", LIMIT).chunks())


@pytest.mark.parametrize(
    ("source", "made"),
    [
        (b"\x50hello", b"hello"),
        (b"\x1fa\x01\x00\x06\x50world", b"a" * 26 + b"world"),
        (b"\x22ab\x02\x00\x30cde", b"ab" + b"ababab" + b"cde"),
        (b"\xf0\x03" + b"x" * 18, b"x" * 18),
    ],
)
def test_lz4_blocks(source: bytes, made: bytes) -> None:
    assert lz4.decompress(source, len(made)) == made
    assert lz4.decompress(source, len(made) - 1) == made[:-1]
    with pytest.raises(BadContent):
        lz4.decompress(source, len(made) + 1)


@pytest.mark.parametrize("source", [b"", b"\xf0", b"\x10", b"\x10a\x00\x00", b"\x10a\x02\x00", b"\xf0" + b"\xff" * 50])
def test_damaged_lz4_blocks(source: bytes) -> None:
    with pytest.raises(BadContent):
        lz4.decompress(source, 100)


def test_reads_a_large_directory(image: str, tmp_path: Path) -> None:
    source = str(tmp_path / "source")
    for number in range(700):
        write(f"{source}/directory/{number:05d}" + "x" * (number % 50), b"")
    os.chmod(source, 0o755)
    make_erofs(image, source)
    with Opened(image) as reader:
        assert found(reader) == expected(source)
        with pytest.raises(PathError) as error:
            reader.lookup("/directory/00700")
        assert error.value.reason is PathReason.MISSING


@pytest.mark.parametrize(
    "layout",
    [
        "-zlz4",
        "-zlz4hc -C16384 -Eztailpacking",
        "-zlz4 -Efragments",
        "-zlz4hc -C65536 -Ededupe",
        "-zlz4 -Elegacy-compress",
    ],
)
def test_reads_compressed_files_of_every_length(layout: str, image: str, tmp_path: Path) -> None:
    """Indexes of one to some fifty entries, beginning anywhere in their 32 bytes: every shape of the packs."""
    source = str(tmp_path / "source")
    os.mkdir(source, 0o755)
    for number in range(40):
        size = 3000 + 2731 * number
        write(f"{source}/text-{number:02d}", text(size))
        write(f"{source}/mixed-{number:02d}" + "x" * (number % 13), noise(size // 3, number) + text(size))
    make_erofs(image, source, *layout.split())
    with Opened(image) as reader:
        assert found(reader) == expected(source)


def test_reads_large_extents(image: str, tmp_path: Path) -> None:
    """Data that compresses well makes extents of many clusters; mixed data makes stored ones between."""
    source = str(tmp_path / "source")
    os.mkdir(source, 0o755)
    write(f"{source}/zeroes", bytes(1_000_000))
    write(f"{source}/mixed", b"".join(text(9000 + n) + noise(7000, n) + bytes(5000) for n in range(12)))
    for options in ("-zlz4", "-zlz4hc -C65536", "-zlz4 -Elegacy-compress"):
        make_erofs(image, source, *options.split())
        with Opened(image) as reader:
            assert found(reader) == expected(source)


class _Counting(Image):
    """Counts the bytes of data that are read."""

    read = 0

    def data(self, offset: int, length: int, what: str) -> bytes:
        self.read += length
        return super().data(offset, length, what)


def test_the_work_for_a_file_follows_its_size(tree: str, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index may say of every few bytes that they begin a megabyte of compressed data, as deduplication does."""
    make_erofs(image, tree, "-zlz4hc", "-C1048576")
    with open(image, "rb") as file:
        counting = _Counting(file.fileno())
        fs = ErofsSuper(counting)
        inode = ErofsInode(counting, fs, ErofsReader(counting).lookup("/boot/config.txt").inode)
        (first, *_) = pieces_of(counting, fs, inode)
        many = [replace(first, logical=100 * n, length=100, stored=fs.length - first.physical) for n in range(600)]
        monkeypatch.setattr("unikeel.boot.readers.erofs_compressed.pieces_of", lambda *_: many)
        before = counting.read
        assert b"".join(compressed_file(counting, fs, inode).chunks()) == text(100) * 600
        assert counting.read - before <= 600 * (fs.block_size + (1 << 14) + 200)


def test_a_block_of_zeroes_is_no_compressed_data(image: str, tmp_path: Path) -> None:
    write(f"{tmp_path}/source/file", text(60_000))
    make_erofs(image, f"{tmp_path}/source", "-zlz4hc", "-C65536", "-Enosbcrc")
    with open(image, "rb") as file:
        opened = Image(file.fileno())
        fs = ErofsSuper(opened)
        (first, *_) = pieces_of(opened, fs, ErofsInode(opened, fs, ErofsReader(opened).lookup("/file").inode))
    mutated(
        image,
        lambda data: data.__setitem__(slice(first.physical, first.physical + fs.block_size), bytes(fs.block_size)),
    )
    with Opened(image) as reader, pytest.raises(BadContent, match="block of zeroes"):
        list(reader.open("/file", LIMIT).chunks())
