"""In which layer files get to be what they are, and how views and leases are named."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unikeel.containerd import leasing
from unikeel.containerd.layers import Origins
from unikeel.containerd.records import Descriptor
from unikeel.errors import BadContent
from unikeel.images import digests

Entry = tuple[str, str, str]  # name, kind (f, d, l, h), content or target


def packed(entries: list[Entry]) -> bytes:
    out = io.BytesIO()
    kinds = {"f": tarfile.REGTYPE, "d": tarfile.DIRTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE}
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type = kinds[kind]
            if kind == "f":
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content.encode()))
            else:
                info.linkname = content
                archive.addfile(info)
    return out.getvalue()


def origins(tmp_path: os.PathLike[str], *layers: list[Entry]) -> Origins:
    blobs: dict[str, bytes] = {}
    found = []
    for layer in layers:
        tar = packed(layer)
        blob = gzip.compress(tar)
        blobs[digests.of(blob)] = blob
        kind = "application/vnd.oci.image.layer.v1.tar+gzip"
        found.append((Descriptor(kind, digests.of(blob), len(blob)), digests.of(tar)))

    def fetch(blob: Descriptor, fd: int) -> None:
        os.write(fd, blobs[blob.digest])

    return Origins(found, fetch, os.fspath(tmp_path))


BASE: list[Entry] = [
    ("boot", "d", ""),
    ("boot/kernel", "f", "one"),
    ("boot/initrd", "f", "one"),
    ("link", "l", "/boot/kernel"),
    ("to", "l", "boot"),
]
CASES: list[tuple[str, list[list[Entry]], int]] = [
    ("/boot/kernel", [[("data", "f", "x")]], 0),
    ("/boot/kernel", [[("boot/kernel", "f", "two")], [("data", "f", "x")]], 1),
    ("/boot/kernel", [[("boot/initrd", "f", "two")]], 0),
    ("/boot/kernel", [[("boot", "d", "")]], 0),
    ("/link", [[("boot/kernel", "f", "two")]], 1),
    ("/link", [[("link", "l", "boot/initrd")]], 1),
    ("/to/kernel", [[("data", "f", "x")]], 0),
    ("/to/../link", [[("data", "f", "x")]], 0),
    ("/boot/kernel", [[(".wh.boot", "f", "")], [("boot/kernel", "f", "one")]], 2),
    ("/boot/kernel", [[("boot/.wh..wh..opq", "f", ""), ("boot/kernel", "f", "one")]], 1),
    ("/again", [[("again", "h", "boot/kernel")]], 1),
    ("/boot/kernel", [[("boot/kernel", "h", "boot/initrd")]], 1),
    ("/boot/kernel", [[("boot", "l", "other"), ("other/kernel", "f", "two")]], 1),
]


@pytest.mark.parametrize(("path", "above", "expected"), CASES)
def test_final_layer(tmp_path: os.PathLike[str], path: str, above: list[list[Entry]], expected: int) -> None:
    assert origins(tmp_path, BASE, *above).final_layer([path]) == expected


def test_the_highest_of_several(tmp_path: os.PathLike[str]) -> None:
    found = origins(tmp_path, BASE, [("a", "f", "")], [("b", "f", "")], [("c", "f", "")])
    assert found.final_layer(["/boot/kernel", "/b", "/a"]) == 2


@pytest.mark.parametrize("path", ["/none", "/boot/kernel/x", "/loop", "/dangling"])
def test_paths_that_lead_nowhere(tmp_path: os.PathLike[str], path: str) -> None:
    found = origins(tmp_path, BASE, [("loop", "l", "loop"), ("dangling", "l", "none")])
    with pytest.raises(BadContent):
        found.final_layer([path])


def test_keys_are_stable_and_apart() -> None:
    key = leasing.view_key("0123456789abcdef", "parent", "shared", "")
    assert key == leasing.view_key("0123456789abcdef", "parent", "shared", "")
    assert key.startswith("unikeel-0123456789abcdef-shared-")
    assert len({leasing.view_key("i", *parts) for parts in (("a", "b", "c"), ("a", "c", "b"), ("b", "a", "c"))}) == 3


@given(st.text(), st.text(), st.sampled_from(["fill", "shared", "view"]), st.integers(0, 10**6))
def test_names_are_short_and_plain(parent: str, container: str, purpose: str, generation: int) -> None:
    lease = leasing.lease_id(leasing.view_key("0" * 16, parent, purpose, container), generation)
    assert len(lease) <= 76
    assert lease.replace("-", "").isalnum()
    assert lease.isascii()
    assert leasing.generation_of(lease) == generation


def test_leases_end_after_a_day() -> None:
    labels = leasing.lease_labels({"a": "b"}, 1_700_000_000 * 10**9)
    assert labels == {"a": "b", leasing.EXPIRE: "2023-11-15T22:13:20Z"}


@given(st.integers(0, 2**62))
def test_half_time(begun: int) -> None:
    half = 12 * 3600 * 10**9
    assert not leasing.is_half_over(begun, begun + half - 1)
    assert leasing.is_half_over(begun, begun + half)
    assert leasing.is_half_over(begun + 1, begun)
    assert not leasing.is_half_over(time.time_ns(), time.time_ns() + 1)


def test_the_filter() -> None:
    assert leasing.instance_filter("abc") == 'labels."org.unikeel/instance"==abc'
