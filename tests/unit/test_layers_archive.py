"""The archive's own format: what is read, and what is refused."""

from __future__ import annotations

import base64
import tarfile

import pytest

from layer_archives import (
    END,
    Item,
    archive,
    directory,
    extended,
    file,
    hard_link,
    header,
    merged,
    padded,
    record,
    symlink,
)
from unikeel.errors import BadContent


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_kinds_in_all_formats(form: int) -> None:
    data = archive(
        directory("d", 0o1777, uid=12, gid=34),
        file("d/f", "content", mode=0o4755),
        symlink("d/s", "f"),
        hard_link("d/h", "d/f"),
        Item("d/c", type=tarfile.CHRTYPE, device=(1, 3)),
        Item("d/b", type=tarfile.BLKTYPE, device=(8, 17)),
        Item("d/p", type=tarfile.FIFOTYPE),
        file("d/" + "n" * 90 + "/f"),
        form=form,
    )
    tree = merged(data)
    assert (tree["d"].mode, tree["d"].uid, tree["d"].gid) == (0o41777, 12, 34)
    assert (tree["d/f"].mode, tree["d/f"].size, tree["d/f"].mtime) == (0o104755, 7, 1000 * 10**9)
    assert (tree["d/c"].mode, tree["d/c"].device) == (0o20644, (1, 3))
    assert (tree["d/b"].mode, tree["d/b"].device) == (0o60644, (8, 17))
    assert tree["d/p"].mode == 0o10644
    assert tree["d/s"].target == b"f"
    assert tree["d/h"] is tree["d/f"]
    assert "d/" + "n" * 90 + "/f" in tree
    position = tree["d/f"].data
    assert position is not None
    assert data[position.offset :][: position.size] == b"content"


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_targets_and_large_numbers(form: int) -> None:
    long, target = "d/" * 60 + "x" * 200, "t" * 3000
    tree = merged(archive(file(long, uid=4_000_000_000, mtime=2**33), symlink("s", target), form=form))
    assert (tree[long].uid, tree[long].mtime) == (4_000_000_000, 2**33 * 10**9)
    assert tree["s"].target == target.encode()


def test_pax_records_win_over_the_header() -> None:
    content = record(b"path", b"right") + record(b"mtime", b"12.5") + record(b"uid", b"77") + record(b"size", b"3")
    tree = merged(extended(b"x", content) + header(b"wrong") + padded(b"abc") + header(b"next") + END)
    assert (tree["right"].mtime, tree["right"].uid, tree["right"].size) == (12_500_000_000, 77, 3)
    assert (tree["next"].uid, tree["next"].mtime) == (0, 0)


def test_negative_time_and_base_256_time() -> None:
    assert merged(extended(b"x", record(b"mtime", b"-1.25")) + header() + END)["file"].mtime == -1_250_000_000
    assert merged(header(mtime=b"\xff" * 12) + END)["file"].mtime == -(10**9)


def test_extended_attributes_in_both_forms() -> None:
    value = base64.b64encode(b"\0\xff").rstrip(b"=")
    content = record(b"SCHILY.xattr.user.a", b"b\0\nc") + record(b"LIBARCHIVE.xattr.user.%64", value)
    tree = merged(extended(b"x", content) + header() + END)
    assert tree["file"].xattrs == {b"user.a": b"b\0\nc", b"user.d": b"\0\xff"}


def test_global_headers_are_passed_over() -> None:
    tree = merged(extended(b"g", record(b"path", b"x") + record(b"comment", b"y")) + header() + END)
    assert sorted(tree) == ["", "file"]


def test_old_forms() -> None:
    old_directory = header(b"dir/", flag=b"\0", magic=b"")
    star = header(b"f", prefix=b"p")
    signed = bytearray(header(b"\xff\xff\xff"))
    signed[148:156] = b"%06o\0 " % (sum(signed) - sum(signed[148:156]) + 256 - 3 * 256)
    tree = merged(old_directory + star + bytes(signed) + END)
    assert tree["dir"].children is not None
    assert "p/f" in tree
    assert b"\xff\xff\xff" in (tree[""].children or {})


def test_archive_may_end_without_a_trailer() -> None:
    assert sorted(merged(header(size=b"00000000003\0") + padded(b"abc"))) == ["", "file"]
    assert sorted(merged(b"")) == [""]


HEADER = header(size=b"00000001000\0")


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (HEADER, "truncated"),
        (HEADER + bytes(511), "truncated"),
        (header()[:300], "truncated"),
        (HEADER + b"x" * 512 + header()[:1], "truncated"),
        (extended(b"x", record(b"path", b"a")), "truncated"),
        (extended(b"x", record(b"path", b"a")) + END, "without its entry"),
        (extended(b"L", b"name\0")[:-100], "truncated"),
        (header()[:-1] + b"x" + END, "checksum"),
        (b"x" * 512, "number"),
        (bytes(512) + header() + END, "lone block"),
        (header(size=b"0000000000x\0") + END, "number"),
        (header(size=b"-0000000001\0") + END, "number"),
        (header(size=b"0_000000001\0") + END, "number"),
        (header(size=b"\xff" * 12) + END, "size of -1"),
        (header(size=b"\x80" + b"\xff" * 11) + END, "64 bits"),
        (header(size=b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7) + END, "truncated"),
        (header(size=b"77777777777\0") + END, "truncated"),
        (header(uid=b"\x80\0\0\1\0\0\0\0") + END, "uid"),
        (header(gid=b"\xff" * 8) + END, "gid"),
        (extended(b"x", record(b"uid", b"4294967295")) + header() + END, "uid"),
        (extended(b"x", record(b"size", b"-1")) + header() + END, "size"),
        (extended(b"x", record(b"size", b"9" * 19)) + header() + END, "size"),
        (extended(b"x", record(b"size", b"9" * 5000)) + header() + END, "size"),
        (extended(b"x", record(b"mtime", b"1e9")) + header() + END, "mtime"),
        (extended(b"x", b"999 path=a\n") + header() + END, "PAX"),
        (extended(b"x", b"9 path=a") + header() + END, "PAX"),
        (extended(b"x", b"0 a=b\n") + header() + END, "PAX"),
        (extended(b"x", b"-5 a=b\n") + header() + END, "PAX"),
        (extended(b"x", b"no record") + header() + END, "PAX"),
        (extended(b"x", record(b"path", b"a\0b")) + header() + END, "zero byte"),
        (extended(b"x", record(b"LIBARCHIVE.xattr.user.a", b"?")) + header() + END, "base64"),
        (extended(b"x", record(b"GNU.sparse.major", b"1")) + header() + END, "sparse"),
        (header(flag=b"S") + END, "sparse"),
        (extended(b"x", record(b"a", b"b") + b"without-a-blank") + header() + END, "malformed PAX record"),
        (extended(b"x", record(b"a", b"b") + b"0 c=d\n") + header() + END, "malformed PAX record"),
        (extended(b"g", record(b"comment", b"x")) * 33 + header() + END, "32 extended headers in a row"),
        (header(flag=b"V") + END, "unknown type"),
        (header(b"") + END, "without a name"),
        (header(flag=b"x", size=b"00010000000\0") + END, "extended header of"),
        (header(flag=b"3", major=b"abc") + END, "number"),
    ],
)
def test_malformed_archives_are_refused(data: bytes, part: str) -> None:
    with pytest.raises(BadContent, match=part):
        merged(data)
