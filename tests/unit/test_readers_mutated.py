"""Damaged images: a reader refuses them with an error of ours or reads on, quickly and in little memory."""

from __future__ import annotations

import os
import random
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from readers_images import LIMIT, Opened, expected, found, make_erofs, make_ext, noise, text, write
from unikeel.boot.readers import open_reader
from unikeel.boot.readers.contract import Reader
from unikeel.boot.readers.files import MappedFile
from unikeel.errors import BadContent, UnikeelError

SMALL = 1 << 22
MEMORY = 48 << 10  # ru_maxrss counts KiB
SUMMED = "none,filetype,sparse_super,large_file,extent,64bit,flex_bg,metadata_csum,dir_index,extra_isize"
IMAGES = {
    "ext2": ("-b1024", "-I128", "-O", "none,filetype,sparse_super"),
    "ext4": ("-b1024", "-I256", "-O", "none,filetype,sparse_super,extent,inline_data,ext_attr"),
    "summed": ("-b1024", "-I256", "-O", SUMMED),
    "erofs": (),
    "erofs-chunks": ("--chunksize=4096",),
    "erofs-compact": ("-zlz4hc", "-C16384", "-Eztailpacking,fragments"),
    "erofs-full": ("-zlz4", "-Elegacy-compress"),
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp("tree"))
    os.chmod(root, 0o755)
    write(f"{root}/boot/kernel", noise(30_000, 1))
    write(f"{root}/boot/config", text(60_000))
    write(f"{root}/boot/comb", b"")
    with open(f"{root}/boot/comb", "wb") as file:
        for number in range(8):
            file.seek(8192 * number)
            file.write(noise(1000, number))
    write(f"{root}/urunc.json", b"{}")
    for number in range(20):
        write(f"{root}/many/{number:03d}", b"x" * number * 9)
    os.symlink("boot/kernel", f"{root}/link")
    return root


def _make(kind: str, tree: str, path: str) -> bytes:
    if kind.startswith("erofs"):
        make_erofs(path, tree, "-Enosbcrc", *IMAGES[kind])
    else:
        make_ext(path, tree, *IMAGES[kind], size="640K")
    return Path(path).read_bytes()


def _metadata_first(data: bytes, chance: random.Random) -> Iterator[tuple[int, int]]:
    """Where to damage, and what to write: mostly where something else than file data is."""
    dense = [start for start in range(0, len(data), 512) if any(data[start : start + 512])]
    for _ in range(chance.randint(1, 8)):
        at = chance.choice(dense[:60] if chance.random() < 0.8 else dense) + chance.randrange(512)
        yield min(at, len(data) - 1), chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])


def _read_all(reader: Reader) -> int:
    """Read what can be read; how many paths were refused."""
    refused = 0
    for path, info in reader.tree():
        try:
            if stat.S_ISREG(info.mode):
                for _ in reader.open(path, SMALL).chunks():
                    pass
            elif stat.S_ISLNK(info.mode):
                reader.lookup(path)
        except BadContent:
            refused += 1
    return refused


@pytest.mark.parametrize("kind", IMAGES)
def test_a_damaged_image_gives_only_our_errors(kind: str, tree: str, tmp_path: Path) -> None:
    data = _make(kind, tree, str(tmp_path / "image"))
    chance = random.Random(kind)
    refused = 0
    memory = os.memfd_create("image", os.MFD_CLOEXEC)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        for _ in range(40):
            os.pwrite(memory, data, 0)
            for at, value in _metadata_first(data, chance):
                os.pwrite(memory, bytes([value]), at)
            try:
                with open_reader(memory) as reader:
                    refused += _read_all(reader)
            except UnikeelError:
                refused += 1
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY
    finally:
        os.close(memory)
    assert refused


def test_with_checksums_damage_is_found_or_does_not_matter(tree: str, tmp_path: Path) -> None:
    """Every byte outside the files' data: what is read is right, or is refused."""
    image = str(tmp_path / "image")
    data = _make("summed", tree, image)
    wanted = expected(tree)
    content: set[int] = set()
    with Opened(image) as reader:
        for path, entry in wanted.items():
            if stat.S_ISREG(entry.mode):
                file = reader.open(path, LIMIT)
                assert isinstance(file, MappedFile)
                for e in file.extents:
                    first = (e.physical or 0) // 1024
                    content.update(range(first, first + -(-e.length // 1024)) if e.physical is not None else ())
    blocks = [n for n in range(len(data) // 1024) if n not in content and any(data[n * 1024 : n * 1024 + 1024])]
    chance = random.Random(7)
    refused = 0
    for _ in range(40):
        at = chance.choice(blocks) * 1024 + chance.randrange(1024)
        changed = bytearray(data)
        changed[at] ^= 1 << chance.randrange(8)
        Path(image).write_bytes(changed)
        try:
            with Opened(image) as reader:
                assert found(reader) == wanted, at
        except UnikeelError:
            refused += 1
    assert refused


@pytest.mark.parametrize("kind", IMAGES)
def test_a_cut_image_gives_only_our_errors(kind: str, tree: str, tmp_path: Path) -> None:
    data = _make(kind, tree, str(tmp_path / "image"))
    for length in (0, 1, 1023, 1024, 1100, 2047, 2048, 4096, len(data) // 2, len(data) - 1):
        Path(tmp_path / "cut").write_bytes(data[:length])
        with pytest.raises(BadContent), Opened(str(tmp_path / "cut")):
            pass
