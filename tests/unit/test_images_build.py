"""Building images: what is in them, and the same bytes from the same input."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import socket
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from synthetic_images import digest, tree
from unikeel.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unavailable, UnikeelError
from unikeel.images import packing
from unikeel.images.build import build
from unikeel.images.description import Overrides
from unikeel.images.store import ImageStore
from unikeel.model.image_config import from_annotations, from_urunc_json

TOML = 'name = "hello"\nkernel = "/boot/hello"\ncmdline = "a b"\n[files]\n"/boot/hello" = "hello.elf"\n'


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(str(tmp_path / "images"), str(tmp_path / "owners"))


def context(directory: Path, toml: str = TOML, order: int = 1) -> str:
    """A directory to build from; its files are made in one order or the other."""
    steps: list[Callable[[], None]] = [
        lambda: write(directory / "image.toml", toml, 0o644),
        lambda: write(directory / "hello.elf", "\x7fELF" * 1000, 0o755),
        lambda: write(directory / "tree" / "etc" / "motd", "hello\n", 0o644),
        lambda: write(directory / "tree" / "bin" / "su", "su", 0o4755),
        lambda: write(directory / "tree" / "etc" / "shadow", "x", 0o600),
        lambda: (directory / "tree" / "bin" / "sh").symlink_to("su"),
        lambda: (directory / "tree" / "tmp").mkdir(parents=True, exist_ok=True),
    ]
    for step in steps[::order]:
        (directory / "tree" / "bin").mkdir(parents=True, exist_ok=True)
        step()
    os.link(directory / "tree" / "etc" / "motd", directory / "tree" / "etc" / "issue")
    for path, mode in (("tmp", 0o1777), ("bin", 0o755), ("etc", 0o755)):
        (directory / "tree" / path).chmod(mode)
    return str(directory)


def write(path: Path, content: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)


def members(store: ImageStore, name: str, layer: int = 0) -> dict[str, tarfile.TarInfo]:
    blob = store.layer_blob(store.get(name).layers[layer])
    with tarfile.open(blob) as tar:
        return {member.name: member for member in tar}


def content(store: ImageStore, name: str, path: str, layer: int = 0) -> bytes:
    with tarfile.open(store.layer_blob(store.get(name).layers[layer])) as tar:
        file = tar.extractfile(path)
        return file.read() if file is not None else b""


def test_what_is_in_an_image(store: ImageStore, tmp_path: Path) -> None:
    image = build(context(tmp_path / "a"), store=store)
    assert store.get("hello") == image
    assert (image.name, image.created, image.architecture, image.workdir) == (
        "hello:latest", "1970-01-01T00:00:00Z", "amd64", "/"
    )  # fmt: skip
    assert image.annotations == image.labels
    config = from_annotations(image.annotations, "test")
    assert config is not None
    assert (config.binary, config.cmdline, config.type, config.monitor) == ("/boot/hello", "a b", "linux", "qemu")
    assert from_urunc_json(content(store, "hello", "urunc.json"), "test") == config
    found = members(store, "hello")
    assert list(found) == sorted(found)
    assert {(info.uid, info.gid, info.uname, info.gname, info.mtime) for info in found.values()} == {(0, 0, "", "", 0)}
    modes = {name: oct(info.mode) for name, info in found.items() if not info.islnk()}
    assert modes == {
        "bin": "0o755", "bin/sh": "0o777", "bin/su": "0o4755", "boot": "0o755", "boot/hello": "0o755", "etc": "0o755",
        "etc/issue": "0o644", "etc/shadow": "0o600", "tmp": "0o1777", "urunc.json": "0o644",
    }  # fmt: skip
    assert found["bin/sh"].linkname == "su"
    assert (found["etc/motd"].islnk(), found["etc/motd"].linkname) == (True, "etc/issue")
    assert content(store, "hello", "boot/hello") == Path(tmp_path, "a", "hello.elf").read_bytes()
    [layer] = image.layers
    assert layer.digest == layer.diff_id == digest(Path(store.layer_blob(layer)).read_bytes())


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_the_same_input_gives_the_same_image(store: ImageStore, tmp_path: Path, compression: str) -> None:
    flags = Overrides(compression=compression)
    first = build(context(tmp_path / "a"), store=store, overrides=flags)
    old = os.umask(0o077)
    try:
        other = context(tmp_path / "b", order=-1)
        for number, (parent, directories, files) in enumerate(os.walk(other)):
            for name in directories + files:
                os.utime(os.path.join(parent, name), (number + 5, number + 5), follow_symlinks=False)
        second = build(other, store=store, name="other", overrides=flags)
    finally:
        os.umask(old)
    assert second.digest == first.digest


def test_another_input_gives_another_image(store: ImageStore, tmp_path: Path) -> None:
    source = context(tmp_path / "a")
    found = {build(source, store=store).digest}
    for step in (
        lambda: Path(source, "tree", "etc", "motd").chmod(0o640),
        lambda: Path(source, "tree", "empty").mkdir(),
        lambda: Path(source, "hello.elf").write_text("x"),
        lambda: Path(source, "image.toml").write_text(TOML.replace("a b", "a c")),
    ):
        step()
        found.add(build(source, store=store).digest)
    assert len(found) == 5


def test_source_date_epoch(store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = context(tmp_path / "a")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert build(source, store=store).created == "1970-01-02T00:00:00Z"
    assert {info.mtime for info in members(store, "hello").values()} == {86400}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(InvalidArgument, match="SOURCE_DATE_EPOCH is 'yesterday'"):
        build(source, store=store)


@pytest.mark.parametrize(("compression", "tool"), [("gzip", "gzip"), ("zstd", "zstd")])
def test_compressed_layers(store: ImageStore, tmp_path: Path, compression: str, tool: str) -> None:
    source = context(tmp_path / "a")
    plain = build(source, store=store, name="plain").layers[0]
    packed = build(source, store=store, name="packed", overrides=Overrides(compression=compression)).layers[0]
    assert packed.media_type == plain.media_type + "+" + compression
    assert packed.diff_id == plain.digest
    out = subprocess.run(
        [tool, "-dc"], input=Path(store.layer_blob(packed)).read_bytes(), capture_output=True, check=True
    )
    assert digest(out.stdout) == plain.digest


def test_a_gzip_layer_names_no_time(store: ImageStore, tmp_path: Path) -> None:
    [layer] = build(context(tmp_path / "a"), store=store, overrides=Overrides(compression="gzip")).layers
    data = Path(store.layer_blob(layer)).read_bytes()
    assert data[3:8] == bytes(5)
    assert digest(gzip.decompress(data)) == layer.diff_id


def test_no_zstd(store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = context(tmp_path / "a")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="zstd cannot be run"):
        build(source, store=store, overrides=Overrides(compression="zstd"))
    assert os.listdir(tmp_path / "images" / "tmp") == []


def test_outputs_hold_the_same_image(store: ImageStore, tmp_path: Path) -> None:
    source = context(tmp_path / "a")
    image = build(source, output=str(tmp_path / "out"), store=store)
    build(source, output=str(tmp_path / "out.tar"))
    assert store.load(str(tmp_path / "out"), "x")[0].digest == image.digest
    assert store.load(str(tmp_path / "out.tar"), "y")[0].digest == image.digest
    assert sorted(os.listdir(tmp_path / "out")) == ["blobs", "index.json", "oci-layout"]
    first = (tmp_path / "out.tar").read_bytes()
    build(source, output=str(tmp_path / "out.tar"))
    assert (tmp_path / "out.tar").read_bytes() == first
    assert sorted(os.listdir(tmp_path)) == ["a", "images", "out", "out.tar", "owners"]


def test_skopeo_takes_what_was_built(tmp_path: Path) -> None:
    image = build(context(tmp_path / "a"), output=str(tmp_path / "out"))
    argv = ["skopeo", "--insecure-policy", "copy", "-q", f"oci:{tmp_path}/out:hello:latest", f"dir:{tmp_path}/dir"]
    subprocess.run(argv, check=True, capture_output=True)
    assert digest((tmp_path / "dir" / "manifest.json").read_bytes()) == image.digest


def test_a_layout_takes_several_images(tmp_path: Path) -> None:
    source, output = context(tmp_path / "a"), str(tmp_path / "out")
    build(source, output=output)
    build(source, output=output, name="second", overrides=Overrides(cmdline="other"))
    assert [image.name for image in ImageStore(output, "").list()] == ["hello:latest", "second:latest"]


def test_outputs_that_are_something_else(tmp_path: Path) -> None:
    source = context(tmp_path / "a")
    before = tree(str(tmp_path))
    (tmp_path / "x.tar").mkdir()
    (tmp_path / "file").write_text("")
    for output in (source, str(tmp_path / "x.tar"), str(tmp_path / "file")):
        with pytest.raises(AlreadyExists):
            build(source, output=output)
    with pytest.raises(NotFound, match="no directory"):
        build(source, output=str(tmp_path / "nowhere" / "x.tar"))
    (tmp_path / "x.tar").rmdir()
    (tmp_path / "file").unlink()
    assert tree(str(tmp_path)) == before


LAYERS = """
kernel = "/boot/k"
[[layers]]
files = { "/boot/k" = "k" }
[[layers]]
tree = "one"
[[layers]]
tree = "two"
"""


def layered(tmp_path: Path, *, two: str) -> str:
    write(tmp_path / "a" / "image.toml", LAYERS, 0o644)
    write(tmp_path / "a" / "k", "kernel", 0o644)
    write(tmp_path / "a" / "one" / "data", "1", 0o644)
    write(tmp_path / "a" / "two" / two, "", 0o644)
    return str(tmp_path / "a")


def test_urunc_json_lies_beside_the_kernel(store: ImageStore, tmp_path: Path) -> None:
    build(layered(tmp_path, two=".wh.data"), store=store, name="x")
    assert [sorted(members(store, "x", layer)) for layer in range(3)] == [
        ["boot", "boot/k", "urunc.json"], ["data"], [".wh.data"]
    ]  # fmt: skip


@pytest.mark.parametrize("hides", ["boot/.wh.k", ".wh.boot", "boot/.wh..wh..opq", ".wh..wh..opq", "boot", "boot/k/x"])
def test_a_kernel_that_a_later_layer_hides(store: ImageStore, tmp_path: Path, hides: str) -> None:
    with pytest.raises(InvalidArgument, match="no file /boot/k, which is named as its kernel"):
        build(layered(tmp_path, two=hides), store=store, name="x")


@pytest.mark.parametrize(("target", "found"), [
    ("real", True), ("../lib/real", False), ("/boot/real", True), ("../../../boot/real", True), ("k", False), ("/boot", False),
])  # fmt: skip
def test_a_kernel_that_is_a_link(store: ImageStore, tmp_path: Path, target: str, *, found: bool) -> None:
    write(tmp_path / "a" / "image.toml", 'kernel = "/boot/k"', 0o644)
    write(tmp_path / "a" / "tree" / "boot" / "real", "kernel", 0o644)
    (tmp_path / "a" / "tree" / "boot" / "k").symlink_to(target)
    if found:
        assert build(str(tmp_path / "a"), store=store, name="x").name == "x:latest"
    else:
        with pytest.raises(InvalidArgument, match="no file /boot/k"):
            build(str(tmp_path / "a"), store=store, name="x")


def test_flags_instead_of_a_description(store: ImageStore, tmp_path: Path) -> None:
    write(tmp_path / "k", "kernel", 0o600)
    write(tmp_path / "disk", "disk", 0o600)
    image = build(store=store, name="x", overrides=Overrides(kernel=str(tmp_path / "k"), rootfs=str(tmp_path / "disk")))
    assert {name: oct(info.mode) for name, info in members(store, "x").items()} == {
        "boot": "0o755", "boot/kernel": "0o644", "disk.img": "0o644", "urunc.json": "0o644",
    }  # fmt: skip
    assert image.annotations["com.urunc.unikernel.block"] == "/disk.img"
    assert image.annotations["com.urunc.unikernel.blkMntPoint"] == "/"


def socket_in(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        old = os.getcwd()
        os.chdir(directory / "tree")
        try:
            made.bind("s")
        finally:
            os.chdir(old)


@pytest.mark.parametrize(("change", "kind", "match"), [
    (lambda d: (d / "hello.elf").unlink(), NotFound, "hello.elf, which is to become /boot/hello"),
    (lambda d: ((d / "hello.elf").unlink(), (d / "hello.elf").mkdir()), InvalidArgument, "not a regular file"),
    (lambda d: (d / "hello.elf").rename(d / "x"), NotFound, "hello.elf"),
    (lambda d: write(d / "image.toml", TOML + '"/etc/motd/x" = "hello.elf"', 0o644), InvalidArgument, "/etc/motd is not a dir"),
    (lambda d: write(d / "image.toml", TOML + '"/etc" = "hello.elf"', 0o644), InvalidArgument, "a directory is there"),
    (lambda d: write(d / "image.toml", TOML.replace("hello.elf", "leak"), 0o644), InvalidArgument, "not beneath"),
    (lambda d: (d / "image.toml").write_bytes(b"\xff"), InvalidArgument, "not valid UTF-8"),
    (lambda d: write(d / "tree" / "urunc.json", "{}", 0o644), InvalidArgument, "has a /urunc.json already"),
    (socket_in, InvalidArgument, "is a socket"),
    (shutil.rmtree, NotFound, "there is no"),
])  # fmt: skip
def test_what_cannot_be_built(
    store: ImageStore, tmp_path: Path, change: object, kind: type[UnikeelError], match: str
) -> None:
    source = context(tmp_path / "a")
    (tmp_path / "a" / "leak").symlink_to("/etc/passwd")
    assert callable(change)
    change(tmp_path / "a")
    with pytest.raises(kind, match=match):
        build(source, store=store)
    assert not os.path.exists(tmp_path / "images")


def test_nothing_is_left_where_packing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = context(tmp_path / "a")
    before = tree(str(tmp_path))
    real = packing.merge

    def shrinking(layers: list[packing.Items]) -> packing.Items:
        Path(source, "hello.elf").write_text("short")
        return real(layers)

    monkeypatch.setattr(packing, "merge", shrinking)
    for output in ("out", "out.tar"):
        with pytest.raises(FailedPrecondition, match=r"hello\.elf was changed while it was packed"):
            build(source, output=str(tmp_path / output))
        Path(source, "hello.elf").write_text("\x7fELF" * 1000)
    assert tree(str(tmp_path)) == before


def test_neither_store_nor_output(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="neither is given"):
        build(context(tmp_path / "a"))


def test_progress_tells_bytes(store: ImageStore, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    build(context(tmp_path / "a"), store=store, progress=lambda what, done, total: told.append((what, done, total)))
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert {what for what, _, _ in told} == {"building hello:latest"}
    assert 0 < told[-1][1] <= told[-1][2]


def test_names_that_ustar_has_no_room_for() -> None:
    items: packing.Items = {}
    long = "/" + "d" * 120 + "/" + "f" * 200
    packing.add_data(items, long, b"x")
    packing.add_data(items, "/b\udcffd", b"y")
    packing.add_data(items, "/ä", b"z")
    items["null"] = packing.Item("null", stat.S_IFCHR | 0o666, device=os.makedev(1, 3))
    out = io.BytesIO()
    packing.write_tar(items, out, 0, lambda _: None)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue()), errors="surrogateescape") as tar:
        found = {member.name: member for member in tar}
    assert set(found) == {"d" * 120, long[1:], "b\udcffd", "ä", "null"}
    assert (found["null"].type, found["null"].devmajor, found["null"].devminor) == (tarfile.CHRTYPE, 1, 3)


def test_the_index_names_the_image(tmp_path: Path) -> None:
    build(context(tmp_path / "a"), output=str(tmp_path / "out"))
    index = json.loads((tmp_path / "out" / "index.json").read_bytes())
    assert [entry["annotations"] for entry in index["manifests"]] == [
        {"org.opencontainers.image.ref.name": "hello:latest"}
    ]
