"""What mkfs.erofs of Debian sid can make and that of Debian 12 cannot: read, or refused by name. See ``tests/data/README.md``."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from readers_images import Opened, expected, found, text, write
from unikeel.errors import BadContent

DATA = Path(__file__).parent.parent / "data"
#: The image and the options that it was made with.
READ = {
    "lzma": "-zlzma -C16384",
    "lzma-fragments": "-zlzma,9 -C65536 -Eall-fragments,dedupe",
    "deflate": "-zdeflate -C16384",
    "deflate-fragments": "-zdeflate,9 -C65536 -Eztailpacking,fragments",
    "directories": "--zD -zlz4 -C8192",
    "blocks-of-512": "-b512 -zlz4hc -C4096 -Eztailpacking,fragments,dedupe",
    "metadata-apart": "--MZ=id",
}
#: What the message says, and the options.
REFUSED = {
    "48bit": ("feature 48bit", "-E48bit"),
    "dot-omitted": ("feature 48bit", "-Edot-omitted"),
    "metabox": ("feature 48bit, metabox", "-m4096 -zlz4"),
}


@pytest.fixture
def image(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    path = tmp_path / "image"
    path.write_bytes(gzip.decompress((DATA / f"erofs-{request.node.callspec.params['name']}.gz").read_bytes()))
    return str(path)


@pytest.mark.parametrize("name", READ)
def test_reads_what_newer_tools_make(name: str, image: str, tmp_path: Path) -> None:
    tree = str(tmp_path / "tree")
    write(f"{tree}/boot/kernel", text(40_000))
    write(f"{tree}/boot/initrd", text(9_000)[13:])
    write(f"{tree}/urunc.json", b"{}")
    os.symlink("boot/kernel", f"{tree}/vmlinuz")
    with Opened(image) as reader:
        assert found(reader) == expected(tree), name


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_what_newer_tools_make_by_name(name: str, image: str) -> None:
    with pytest.raises(BadContent, match=REFUSED[name][0]), Opened(image):
        pass


@pytest.mark.parametrize("name", ["zstd"])
def test_refuses_files_in_zstd_by_name(name: str, image: str) -> None:
    """Made with ``-zzstd -C16384``; what is not compressed can be read."""
    with Opened(image) as reader:
        assert reader.open("urunc.json", 9).info.size == 2
        with pytest.raises(BadContent, match=f"compressed with {name}"):
            reader.open("boot/kernel", 1 << 20)
