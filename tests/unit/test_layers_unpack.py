"""Whole layers, from blobs to an image: compression, digests, limits, space, determinism."""

from __future__ import annotations

import gzip
import hashlib
import os
import resource
import subprocess
import tarfile
import zlib
from pathlib import Path

import pytest

from ext4_images import check, content, listing, stats
from layer_archives import Item, archive, directory, file, hard_link, layer_of, unpacked, whiteout
from unikeel.errors import BadContent, ResourceExhausted, Unavailable
from unikeel.images.digests import chain_id
from unikeel.images.layers import Layer, Limits

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
SIMPLE = archive(file("etc/name", "value"), file("large", "0123456789" * 300_000))


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, stdout=subprocess.PIPE, check=True).stdout


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path)


def test_plain_gzip_and_zstd_give_the_same_bytes(folder: str) -> None:
    forms = {
        "plain": layer_of(folder, SIMPLE),
        "gzip": layer_of(folder, SIMPLE, stored=gzip.compress(SIMPLE), media_type=GZIP),
        "members": layer_of(
            folder,
            SIMPLE,
            stored=b"".join(gzip.compress(SIMPLE[at : at + 999_999]) for at in range(0, len(SIMPLE), 999_999)),
        ),
        "large member": layer_of(folder, SIMPLE, stored=gzip.compress(SIMPLE[:-512]) + gzip.compress(SIMPLE[-512:])),
        "zstd": layer_of(folder, SIMPLE, stored=zstd(SIMPLE), media_type=ZSTD),
        "frames": layer_of(
            folder, SIMPLE, stored=b"\x50\x2a\x4d\x18\1\0\0\0x" + zstd(SIMPLE[:512]) + zstd(SIMPLE[512:])
        ),
        "docker": layer_of(
            folder,
            SIMPLE,
            stored=gzip.compress(SIMPLE, 1),
            media_type="application/vnd.docker.image.rootfs.diff.tar.gzip",
        ),
    }
    digests = set()
    for name, layer in forms.items():
        result = unpacked(folder, layer, name=name, free_bytes=0)
        data = Path(folder, name).read_bytes()
        assert (result.size, result.files) == (len(data), 4)
        digests.add(hashlib.sha256(data).hexdigest())
    assert len(digests) == 1
    image = os.path.join(folder, "gzip")
    check(image)
    assert content(image, "etc/name") == b"value"
    assert content(image, "large") == b"0123456789" * 300_000


def test_several_layers_with_everything_in_them(folder: str) -> None:
    lower = archive(
        directory("bin", 0o755, mtime=5),
        file("bin/tool", "old tool", mode=0o4755, uid=1000, gid=1001, mtime=7),
        file("bin/gone", "gone"),
        Item("dev/null", type=tarfile.CHRTYPE, mode=0o666, device=(1, 3)),
    )
    upper = archive(
        whiteout("bin/gone"), hard_link("bin/same", "bin/tool"), file("new", "new", pax={"SCHILY.xattr.user.k": "v"})
    )
    unpacked(folder, layer_of(folder, lower), layer_of(folder, upper))
    image = os.path.join(folder, "image")
    check(image)
    assert listing(image) == [".", "..", "bin", "dev", "new"]
    assert listing(image, "/bin") == [".", "..", "same", "tool"]
    found = stats(image, "/bin/tool", "/bin/same", "/dev/null", "/dev", "/new")
    tool = found["/bin/tool"]
    assert (tool.ino, tool.links, tool.mode) == (found["/bin/same"].ino, 2, 0o4755)
    assert (tool.uid, tool.gid, tool.mtime) == (1000, 1001, 7 * 10**9)
    assert found["/dev/null"].type == "character special"
    assert (found["/dev"].mode, found["/dev"].mtime) == (0o755, 0)
    assert content(image, "/bin/same") == b"old tool"


def test_holes_are_not_written(folder: str) -> None:
    data = archive(Item("zero", bytes(8 << 20)), file("end", "x"))
    for name, stored in (("plain", data), ("packed", gzip.compress(data))):
        result = unpacked(folder, layer_of(folder, data, stored=stored), name=name)
        assert result.blocks < 1 << 20
        assert content(os.path.join(folder, name), "zero") == bytes(8 << 20)


def test_seed_and_nothing_else_decides_the_uuid(folder: str) -> None:
    from unikeel.images.unpack import unpack

    layer = layer_of(folder, SIMPLE)
    found = []
    for seed in ("one", "one", "two"):
        fd = os.open(folder, os.O_TMPFILE | os.O_RDWR)
        unpack([layer], fd, scratch=folder, uuid_seed=seed)
        found.append(os.pread(fd, 16, 1024 + 104))
        os.close(fd)
    assert found[0] == found[1] != found[2]


def test_nothing_is_left_in_scratch(folder: str) -> None:
    scratch = os.path.join(folder, "scratch")
    os.mkdir(scratch)
    layer = layer_of(folder, SIMPLE, stored=gzip.compress(SIMPLE))
    unpacked(folder, layer)
    assert os.listdir(scratch) == []


def test_progress_grows_to_the_end(folder: str) -> None:
    layer = layer_of(folder, SIMPLE, stored=gzip.compress(SIMPLE))
    told: list[tuple[int, int]] = []
    unpacked(folder, layer, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (2 * os.path.getsize(layer.blob),) * 2
    assert len({total for _, total in told}) == 1


def test_progress_that_raises_ends_the_work(folder: str) -> None:
    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpacked(folder, layer_of(folder, SIMPLE, stored=zstd(SIMPLE)), progress=stop)


def damaged(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 0x55 for byte in data[middle : middle + 20]) + data[middle + 20 :]


@pytest.mark.parametrize(
    ("stored", "media_type", "part"),
    [
        (gzip.compress(SIMPLE)[:-9], GZIP, "truncated"),
        (gzip.compress(SIMPLE)[:2], GZIP, "truncated"),
        (damaged(gzip.compress(SIMPLE)), GZIP, "damaged"),
        (gzip.compress(SIMPLE) + b"garbage", GZIP, "damaged"),
        (gzip.compress(SIMPLE) + gzip.compress(SIMPLE)[:20], GZIP, "truncated"),
        (zstd(SIMPLE)[:-5], ZSTD, "damaged"),
        (damaged(zstd(SIMPLE)), ZSTD, "damaged"),
        (b"BZh91AY", GZIP, "bzip2"),
        (b"\xfd7zXZ\0", GZIP, "xz"),
        (SIMPLE, "application/vnd.oci.image.config.v1+json", "media type"),
        (SIMPLE, "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "media type"),
        (SIMPLE + b"x", GZIP, "expected sha256:"),
        (gzip.compress(SIMPLE[:-1]), GZIP, "expected sha256:"),
        (b"", GZIP, "expected sha256:"),
    ],
)
def test_bad_blobs_are_refused_by_name(folder: str, stored: bytes, media_type: str, part: str) -> None:
    layer = layer_of(folder, SIMPLE, stored=stored, media_type=media_type)
    with pytest.raises(BadContent, match=part) as caught:
        unpacked(folder, layer)
    assert layer.digest in caught.value.message
    assert os.path.getsize(os.path.join(folder, "image")) == 0


def test_layers_are_checked_before_the_image_is_begun(folder: str) -> None:
    good, bad = layer_of(folder, SIMPLE), layer_of(folder, archive(file("../x")))
    with pytest.raises(BadContent, match=bad.digest):
        unpacked(folder, good, bad)
    assert os.path.getsize(os.path.join(folder, "image")) == 0


def test_malformed_archive_names_the_layer(folder: str) -> None:
    layer = layer_of(folder, SIMPLE[:1300])
    with pytest.raises(BadContent, match=f"{layer.digest}.*truncated"):
        unpacked(folder, layer)


def test_missing_blob_and_odd_diff_id(folder: str) -> None:
    missing = os.path.join(folder, "missing")
    with pytest.raises(BadContent, match="missing"):
        unpacked(folder, Layer("sha256:0", "sha256:1", GZIP, missing))
    with pytest.raises(BadContent, match="md5"):
        unpacked(folder, Layer("md5:0", "sha256:1", GZIP, layer_of(folder, SIMPLE).blob), name="other")


@pytest.mark.parametrize("stored", [SIMPLE, gzip.compress(SIMPLE), zstd(SIMPLE)])
def test_all_archives_together_are_bounded(folder: str, stored: bytes) -> None:
    layer = layer_of(folder, SIMPLE, stored=stored)
    unpacked(folder, layer, layer, name="fits", limits=Limits(archive_bytes=2 * len(SIMPLE)))
    with pytest.raises(BadContent, match=f"{layer.digest}.*limit"):
        unpacked(folder, layer, layer, limits=Limits(archive_bytes=2 * len(SIMPLE) - 1))


def test_bomb_is_stopped_early(folder: str) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    with pytest.raises(BadContent, match="limit"):
        unpacked(folder, layer_of(folder, b"", stored=bomb), limits=Limits(archive_bytes=1 << 20))


def test_missing_zstd_is_a_missing_means(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_of(folder, SIMPLE, stored=zstd(SIMPLE))
    monkeypatch.setenv("PATH", folder)
    with pytest.raises(Unavailable, match=layer.digest):
        unpacked(folder, layer)


def test_scratch_that_is_not_there(folder: str) -> None:
    from unikeel.images.unpack import unpack

    layer = layer_of(folder, SIMPLE, stored=gzip.compress(SIMPLE))
    with pytest.raises(Unavailable, match="nowhere"):
        unpack([layer], -1, scratch=os.path.join(folder, "nowhere"), uuid_seed="")


def test_no_space_in_scratch_names_it(folder: str) -> None:
    layer = layer_of(folder, SIMPLE, stored=gzip.compress(SIMPLE))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(ResourceExhausted, match=folder):
            unpacked(folder, layer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_chain_ids() -> None:
    one, two, three = ("sha256:" + digit * 64 for digit in "abc")
    assert chain_id([one]) == one
    expected = "sha256:" + hashlib.sha256(f"{one} {two}".encode()).hexdigest()
    assert chain_id([one, two]) == expected
    assert chain_id([one, two, three]) == chain_id([expected, three])
    with pytest.raises(BadContent, match="without layers"):
        chain_id([])
