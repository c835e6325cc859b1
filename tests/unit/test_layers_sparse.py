"""Files that GNU tar stores without their holes, in all four forms, and maps that lie."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from layer_archives import END, archive, extended, file, header, layer_of, padded, record, unpacked
from readers_images import Opened, content_digest, noise, tool, write_sparse
from unikeel.errors import BadContent
from unikeel.images.layers import Limits
from unikeel.images.tarball import Entry, entries

FORMS = {
    "gnu": ("--format=gnu",),
    "pax 0.0": ("--format=pax", "--sparse-version=0.0"),
    "pax 0.1": ("--format=pax", "--sparse-version=0.1"),
    "pax 1.0": ("--format=pax", "--sparse-version=1.0"),
}


@pytest.fixture
def folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as path:
        yield path


def _read(data: bytes) -> list[Entry]:
    with tempfile.TemporaryFile() as out:
        out.write(data)
        out.flush()
        return list(entries(out.fileno(), len(data)))


@pytest.mark.parametrize("form", FORMS)
def test_sparse_files_are_unpacked_as_they_were(form: str, folder: str) -> None:
    """One with many pieces, one with a hole at its end, one that is all hole, and a plain one behind them."""
    os.mkdir(f"{folder}/tree")
    pieces = {65536 * n + 7 * n: noise(900, n) for n in range(60)}
    write_sparse(f"{folder}/tree/many", pieces, 65536 * 60)
    write_sparse(f"{folder}/tree/tail", {1 << 20: b"in the middle"}, 9 << 20)
    write_sparse(f"{folder}/tree/hole", {}, 3 << 20)
    Path(f"{folder}/tree/zz-plain").write_bytes(b"plain")
    tool("tar", "-cSf", f"{folder}/layer.tar", *FORMS[form], "--sort=name", "-C", f"{folder}/tree", ".")
    data = Path(f"{folder}/layer.tar").read_bytes()
    assert len(data) < 1 << 20
    unpacked(folder, layer_of(folder, data), layer_of(folder, archive(file("upper", "x"))), free_bytes=0)
    image = f"{folder}/image"
    assert subprocess.run(["e2fsck", "-fn", image], capture_output=True).returncode == 0
    with Opened(image) as reader:
        for name in os.listdir(f"{folder}/tree"):
            whole = Path(f"{folder}/tree/{name}").read_bytes()
            assert reader.lookup(name).size == len(whole)
            assert content_digest(reader, name) == hashlib.sha256(whole).hexdigest()
    assert os.stat(image).st_blocks * 512 < 8 << 20


def test_a_link_to_a_sparse_file_of_a_lower_layer(folder: str) -> None:
    os.mkdir(f"{folder}/tree")
    write_sparse(f"{folder}/tree/a", {1 << 20: b"here"}, 2 << 20)
    tool("tar", "-cSf", f"{folder}/layer.tar", "-C", f"{folder}/tree", "a")
    lower = layer_of(folder, Path(f"{folder}/layer.tar").read_bytes())
    links = header(b"b", flag=b"1", link=b"a") + header(b".wh.a") + END
    unpacked(folder, lower, layer_of(folder, links))
    with Opened(f"{folder}/image") as reader:
        assert content_digest(reader, "b") == hashlib.sha256(Path(f"{folder}/tree/a").read_bytes()).hexdigest()


def test_sparse_files_count_with_their_holes(folder: str) -> None:
    os.mkdir(f"{folder}/tree")
    write_sparse(f"{folder}/tree/a", {}, 2 << 20)
    tool("tar", "-cSf", f"{folder}/layer.tar", "-C", f"{folder}/tree", "a")
    layer = layer_of(folder, Path(f"{folder}/layer.tar").read_bytes())
    with pytest.raises(BadContent, match=rf"{layer.digest}: sparse files make the image larger"):
        unpacked(folder, layer, limits=Limits(archive_bytes=1 << 20))


def _old(
    pieces: list[tuple[int, int]], size: int, data: bytes, *, more: bool = False, stored: int | None = None
) -> bytes:
    block = bytearray(
        header(b"s", flag=b"S", magic=b"ustar  \0", size=b"%011o\0" % (len(data) if stored is None else stored))
    )
    for number, (offset, length) in enumerate(pieces):
        block[386 + 24 * number : 410 + 24 * number] = b"%011o\0%011o\0" % (offset, length)
    block[482] = more
    block[483:495] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + padded(data)


def _pax(records: Mapping[str, object], data: bytes = b"") -> bytes:
    content = b"".join(record(b"GNU.sparse." + key.encode(), str(value).encode()) for key, value in records.items())
    return extended(b"x", content) + header(b"s", size=b"%011o\0" % len(data)) + padded(data)


def test_the_map_says_where_the_bytes_are() -> None:
    (found,) = _read(_old([(512, 3), (1024, 2)], 5000, b"abcde") + END)
    assert (found.size, found.sparse) == (5000, (5000, 512, ((512, 3), (1024, 2))))
    (found,) = _read(_pax({"name": "real", "size": 9, "map": "4,2"}, b"ab") + END)
    assert (found.name, found.size, found.sparse) == (b"real", 9, (9, 1536, ((4, 2),)))


ONE = {"major": 1, "minor": 0, "realsize": 100}
BAD = {
    "overlap": _old([(512, 3), (514, 2)], 5000, b"abcde"),
    "outside": _old([(4998, 5)], 5000, b"abcde"),
    "5 bytes of data, with 4": _old([(0, 5)], 5000, b"abcd"),
    "3 bytes of data, with 4": _old([(0, 3)], 5000, b"abcd"),
    "without pieces": _old([(0, 4)], 5000, bytes(4), more=True),
    "truncated": _old([(0, 1 << 30)], 1 << 31, b"", stored=1 << 30),
    "another": header(b"s", flag=b"S"),
    "unknown version": _pax({"major": 2, "minor": 0, "realsize": 1}),
    "size is b''": _pax({"map": "0,0"}),
    "size is b'9999": _pax({"map": "0,0", "size": "9" * 30}),
    "out of order": _pax({"numbytes": 0, "offset": 0, "size": 1}),
    "map of 3 numbers": _pax({"map": "0,0,1", "size": 1}),
    "map is b'x'": _pax({"map": "0,x", "size": 1}),
    "does not end": _pax(ONE, b"2\n0\n".ljust(512, b"1")),
    "without line ends": _pax(ONE, b"1" * 512 + b"\n" * 512),
    "pieces is b'-1'": _pax(ONE, b"-1\n".ljust(512, b"\0")),
    "lie outside": _pax(ONE, b"1\n99\n5\n".ljust(512, b"\0") + b"abcde"),
}


@pytest.mark.parametrize("part", BAD)
def test_maps_that_lie_are_refused(part: str) -> None:
    with pytest.raises(BadContent, match=part):
        _read(BAD[part] + END)


@pytest.mark.parametrize("flag", [b"L", b"K", b"x", b"g"])
@pytest.mark.parametrize("blocks", [1, 2, 1 << 40])
def test_an_extension_of_negative_size_does_not_go_round_for_ever(flag: bytes, blocks: int) -> None:
    size = (1 << 95 | (1 << 95) - 512 * blocks).to_bytes(12, "big")
    with pytest.raises(BadContent, match="extended header of -"):
        _read(header(b"a") + header(flag=flag, size=size) + END)
