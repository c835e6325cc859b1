"""Damaged and hostile sources: each is refused by name, and nothing of it is left."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from readers_images import write_sparse
from synthetic_images import (
    CONFIG,
    CONTENT,
    INDEX,
    LAYER,
    Layout,
    digest,
    docker_archive,
    dumps,
    link,
    one,
    save,
    tar_of,
    tree,
)
from unikeel.errors import BadContent, InvalidArgument, NotFound, ResourceExhausted, UnikeelError
from unikeel.images import staging
from unikeel.images.store import ImageStore

LIMIT = 8 << 20


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    """A store that holds an image already."""
    found = ImageStore(str(tmp_path / "state" / "images"), str(tmp_path / "state" / "owners"), LIMIT)
    found.load(one("kept:1", annotations={"kept": "1"}).write(str(tmp_path / "kept")))
    return found


def refused(
    store: ImageStore, tmp_path: Path, source: str, match: str, error: type[UnikeelError] = BadContent
) -> UnikeelError:
    """Load a source, which must fail and leave the whole state root as it was; the message names the source."""
    before = tree(str(tmp_path / "state"))
    with pytest.raises(error, match=match) as caught:
        store.load(source)
    assert tree(str(tmp_path / "state")) == before
    assert source in caught.value.message
    assert not caught.value.message.endswith(".")
    return caught.value


def changed(layout: Layout, change: Callable[[dict[str, Any]], None]) -> Layout:
    """The layout with its first manifest changed, and the index pointing at the new one."""
    entry = layout.entries[0]
    manifest = json.loads(layout.files["blobs/sha256/" + entry["digest"][7:]])
    change(manifest)
    layout.entries[0] = {**entry, **layout.descriptor(dumps(manifest), entry["mediaType"])}
    return layout


def blob_path(found: str) -> str:
    return "blobs/sha256/" + found.removeprefix("sha256:")


LAYER_TAR = tar_of(CONTENT)

MANIFEST_CHANGES: list[tuple[str, Callable[[dict[str, Any]], None]]] = [
    ("Docker schema 1", lambda m: m.update(schemaVersion=1)),
    ("no image manifest", lambda m: m.update(schemaVersion="2")),
    ("both a manifest and an index", lambda m: m.update(manifests=[])),
    ("its descriptor says", lambda m: m.update(mediaType=INDEX)),
    ("'layers' is not a list", lambda m: m.update(layers={})),
    (r"'layers' \[0\] is not a JSON object", lambda m: m.update(layers=["x"])),
    ("'digest' is missing", lambda m: m["layers"][0].pop("digest")),
    ("'size' is not a size", lambda m: m["layers"][0].update(size=-1)),
    ("'size' is not a size", lambda m: m["layers"][0].update(size=True)),
    ("'size' is not a size", lambda m: m["layers"][0].update(size=1 << 70)),
    (f"more than {LIMIT}", lambda m: m["layers"][0].update(size=1 << 62)),
    ("bytes, not", lambda m: m["layers"][0].update(size=len(LAYER_TAR) + 1)),
    ("is missing", lambda m: m["layers"][0].update(digest=digest(b"never seen"))),
    ("algorithm sha512", lambda m: m["layers"][0].update(digest="sha512:" + "a" * 128)),
    ("is not a digest", lambda m: m["layers"][0].update(digest="sha256:" + "A" * 64)),
    ("is not a digest", lambda m: m["layers"][0].update(digest="sha256:../../../../etc/passwd")),
    (
        "is foreign",
        lambda m: m["layers"][0].update(mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
    ),
    (
        "is foreign",
        lambda m: m["layers"][0].update(mediaType="application/vnd.oci.image.layer.nondistributable.v1.tar"),
    ),
    ("is encrypted", lambda m: m["layers"][0].update(mediaType=LAYER + "+gzip+encrypted")),
    ("unknown type 'application/wasm'", lambda m: m["layers"][0].update(mediaType="application/wasm")),
    ("501 layers, more than 500", lambda m: m.update(layers=m["layers"] * 501)),
    ("the image has no layers", lambda m: m.update(layers=[])),
    ("1 diff ids, but the manifest has 2", lambda m: m.update(layers=m["layers"] * 2)),
    (
        "artifact of type 'application/vnd.cncf.helm",
        lambda m: m["config"].update(mediaType="application/vnd.cncf.helm"),
    ),
    ("'config': 'digest' is missing", lambda m: m.pop("config")),
    ("'annotations' 'a' is not a text", lambda m: m.update(annotations={"a": 1})),
    ("not valid Unicode", lambda m: m.update(annotations={"a": "\ud800"})),
    ("NUL", lambda m: m.update(annotations={"a": "x\0"})),
]


@pytest.mark.parametrize(("match", "change"), MANIFEST_CHANGES, ids=[match for match, _ in MANIFEST_CHANGES])
def test_manifests(store: ImageStore, tmp_path: Path, match: str, change: Callable[[dict[str, Any]], None]) -> None:
    layout = changed(one(), change)
    refused(store, tmp_path, layout.write(str(tmp_path / "source")), match)
    refused(store, tmp_path, layout.archive(str(tmp_path / "source.tar")), match)


RAW_CONFIGS = [
    ("is not valid JSON", b"{"),
    ("is not valid JSON", b"\xff\xfe"),
    ("is not valid JSON", b"[" * 200_000),
    ("is not valid JSON: key 'os' occurs twice", b'{"os":"linux","os":"plan9"}'),
    ("is not a JSON object", b"[]"),
    ("is not a JSON object", b"null"),
    ("0 diff ids", b"{}"),
    ("'Labels' is not a JSON object", dumps({"rootfs": {"diff_ids": [digest(LAYER_TAR)]}, "config": {"Labels": "x"}})),
    ("'Env' is not a list", dumps({"rootfs": {"diff_ids": [digest(LAYER_TAR)]}, "config": {"Env": {"A": "b"}}})),
    ("is not a digest", dumps({"rootfs": {"diff_ids": ["x"]}})),
    ("too many for a manifest or configuration", b" " * ((4 << 20) + 1)),
]


@pytest.mark.parametrize(("match", "config"), RAW_CONFIGS, ids=[match for match, _ in RAW_CONFIGS])
def test_configurations(store: ImageStore, tmp_path: Path, match: str, config: bytes) -> None:
    layout = one()
    changed(layout, lambda m: m.update(config=layout.descriptor(config, CONFIG)))
    refused(store, tmp_path, layout.write(str(tmp_path / "source")), match)


FILE_CHANGES: list[tuple[str, str, bytes | None]] = [
    ("oci-layout is missing", "oci-layout", None),
    ("unknown version '2.0.0'", "oci-layout", b'{"imageLayoutVersion":"2.0.0"}'),
    ("index.json is not valid JSON", "index.json", b"nope"),
    ("'schemaVersion' is not 2", "index.json", b"{}"),
    ("its list of images is empty", "index.json", b'{"schemaVersion":2,"manifests":[]}'),
    ("too many for a manifest", "index.json", b" " * ((4 << 20) + 1)),
    ("has another content", blob_path(digest(LAYER_TAR)), LAYER_TAR.replace(b"hello", b"jello")),
    ("bytes, not", blob_path(digest(LAYER_TAR)), LAYER_TAR[:-1]),
    ("is missing", blob_path(digest(LAYER_TAR)), None),
]


@pytest.mark.parametrize(("match", "path", "content"), FILE_CHANGES, ids=[match for match, _, _ in FILE_CHANGES])
def test_files_of_a_layout(tmp_path: Path, match: str, path: str, content: bytes | None) -> None:
    files: dict[str, bytes | tarfile.TarInfo] = {
        **one(annotations={"x": "y"}, layers=[LAYER_TAR]).all_files(),
        path: content or b"",
    }
    if content is None:
        del files[path]
    # A store that holds the layer already would not look at it again.
    empty = ImageStore(str(tmp_path / "state" / "empty"), str(tmp_path / "state" / "owners"), LIMIT)
    with empty.layout.staging():
        pass
    source = tmp_path / "source"
    for name, data in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, bytes):
            (source / name).write_bytes(data)
    refused(empty, tmp_path, str(source), match)
    refused(empty, tmp_path, save(str(tmp_path / "source.tar"), tar_of(files)), match)


@pytest.mark.parametrize("where", ["index.json", "oci-layout", "blobs", "blobs/sha256", blob_path(digest(LAYER_TAR))])
def test_symbolic_links_are_not_followed(tmp_path: Path, where: str) -> None:
    (tmp_path / "state").mkdir()
    store = ImageStore(str(tmp_path / "state" / "images"), str(tmp_path / "state" / "owners"))
    with store.layout.staging():
        pass
    source = tmp_path / "source"
    one().write(str(source))
    (source / where).rename(tmp_path / "elsewhere")
    (source / where).symlink_to(tmp_path / "elsewhere")
    refused(store, tmp_path, str(source), "symbolic link" if where != "index.json" else "holds no image")


def test_what_is_no_regular_file(store: ImageStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    one().write(str(source))
    (source / "oci-layout").unlink()
    os.mkfifo(source / "oci-layout")
    refused(store, tmp_path, str(source), "not a regular file")
    (source / "oci-layout").unlink()
    (source / "oci-layout").mkdir()
    refused(store, tmp_path, str(source), "not a regular file")
    os.mkfifo(tmp_path / "fifo")
    refused(store, tmp_path, str(tmp_path / "fifo"), "neither a directory nor a regular file")


def test_what_is_not_there(store: ImageStore, tmp_path: Path) -> None:
    refused(store, tmp_path, str(tmp_path / "nothing"), "no file or directory", NotFound)
    os.mkdir(tmp_path / "empty")
    refused(store, tmp_path, str(tmp_path / "empty"), "holds no image")
    refused(store, tmp_path, save(str(tmp_path / "text"), b"hello" * 1000), "neither an OCI layout nor an archive")
    refused(store, tmp_path, save(str(tmp_path / "nil"), b""), "neither an OCI layout nor an archive")
    refused(store, tmp_path, save(str(tmp_path / "other.tar"), LAYER_TAR), "holds no image")


def test_a_third_index(store: ImageStore, tmp_path: Path) -> None:
    layout = Layout()
    entry = layout.image(annotations={"x": "y"})
    for _ in range(3):
        entry = layout.descriptor(dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}), INDEX)
    layout.add(entry, "deep:1")
    refused(store, tmp_path, layout.write(str(tmp_path / "source")), "third index")


def test_names(store: ImageStore, tmp_path: Path) -> None:
    layout = Layout()
    layout.add(layout.image(annotations={"n": "1"}), "a").add(layout.image(annotations={"n": "2"}), "a")
    refused(store, tmp_path, layout.write(str(tmp_path / "twins")), "two different images of the name a:latest")
    refused(store, tmp_path, one("-x; rm").write(str(tmp_path / "bad")), "cannot name an image")
    with pytest.raises(InvalidArgument, match="cannot name an image"):
        store.load(str(tmp_path / "kept"), "no name")


def cut(data: bytes, size: int) -> bytes:
    return data[:size]


def test_truncated_archives(store: ImageStore, tmp_path: Path) -> None:
    whole = tar_of(one(layers=[tar_of({"ballast": os.urandom(60_000)})]).all_files())
    packed = gzip.compress(whole)
    for size in (513, 3000, len(whole) // 2, len(whole) // 3):
        refused(store, tmp_path, save(str(tmp_path / "cut.tar"), cut(whole, size)), "truncated|cut off|missing")
    for size in (20, len(packed) // 2, len(packed) - 1):
        refused(store, tmp_path, save(str(tmp_path / "cut.tgz"), cut(packed, size)), "cut off")
    broken = packed[:5000] + bytes(16) + packed[5016:]
    refused(store, tmp_path, save(str(tmp_path / "broken.tgz"), broken), "damaged")


def test_a_gzip_bomb(store: ImageStore, tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(LIMIT + 1))
    refused(store, tmp_path, save(str(tmp_path / "bomb"), bomb), f"unpacks to more than {LIMIT} bytes")


def lying(name: str, size: int) -> bytes:
    """A header that promises more than there is."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


MEMBERS: list[tuple[str, bytes]] = [
    ("outside of itself", tar_of({"../index.json": b"{}"})),
    ("outside of itself", tar_of({"/etc/passwd": b"x"})),
    ("outside of itself", tar_of({"blobs/../../x": b"x"})),
    ("'index.json' twice", tar_of({"index.json": b"{}", "./index.json": b"{}"})),
    ("truncated", lying("index.json", 1 << 40)),
    ("size of -1 bytes", lying("index.json", -1)),
    ("checksum is wrong", LAYER_TAR[:100] + b"\xff" + LAYER_TAR[101:]),
    ("is a link", tar_of({"index.json": link("index.json", "/etc/passwd"), **one().files})),
    ("is a link", tar_of({"index.json": link("index.json", "oci-layout", tarfile.LNKTYPE), **one().files})),
]


@pytest.mark.parametrize(("match", "data"), MEMBERS, ids=[f"{n}" for n in range(len(MEMBERS))])
def test_members_of_archives(store: ImageStore, tmp_path: Path, match: str, data: bytes) -> None:
    refused(store, tmp_path, save(str(tmp_path / "a.tar"), data), match)


def test_members_that_are_stored_without_their_holes(store: ImageStore, tmp_path: Path) -> None:
    write_sparse(str(tmp_path / "manifest.json"), {1 << 20: b"[]"}, 2 << 20)
    subprocess.run(["tar", "-cSf", str(tmp_path / "archive"), "-C", str(tmp_path), "manifest.json"], check=True)
    refused(store, tmp_path, str(tmp_path / "archive"), "stored without its holes")


def test_too_many_members(store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unikeel.images.archives.MAX_MEMBERS", 3)
    refused(store, tmp_path, one().archive(str(tmp_path / "a.tar")), "more than 3 members")


DOCKER: list[tuple[str, dict[str, object]]] = [
    ("'Config' is missing", {"Config": None}),
    ("nothing.json is missing", {"Config": "nothing.json"}),
    (r"\.\./x is missing", {"Config": "a/../../x"}),
    ("'Layers' is not a list", {"Layers": "x"}),
    ("1 diff ids, but the manifest has 2", {"Layers": ["0/layer.tar", "0/layer.tar"]}),
    ("/etc/passwd is missing", {"Layers": ["/etc/passwd"]}),
    ("manifest.json.*another content", {"Layers": ["manifest.json"]}),
    ("'RepoTags' is not a text", {"RepoTags": [1]}),
    ("cannot name an image", {"RepoTags": ["a b"]}),
]


@pytest.mark.parametrize(("match", "changes"), DOCKER, ids=[match for match, _ in DOCKER])
def test_docker_archives(store: ImageStore, tmp_path: Path, match: str, changes: dict[str, object]) -> None:
    members = docker_archive(changes=changes)
    refused(store, tmp_path, save(str(tmp_path / "d.tar"), tar_of(members)), match)


def test_docker_archives_without_layers(store: ImageStore, tmp_path: Path) -> None:
    config = dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})
    members = {"c.json": config, "manifest.json": dumps([{"Config": "c.json", "RepoTags": ["a:1"], "Layers": []}])}
    refused(store, tmp_path, save(str(tmp_path / "archive"), tar_of(members)), "has no layers")


def test_docker_archives_with_hostile_links(store: ImageStore, tmp_path: Path) -> None:
    for target in ("/etc/passwd", "../../../etc/passwd", "layer.tar", "../nowhere", "../1/layer.tar"):
        members = docker_archive()
        members["0/layer.tar"] = link("0/layer.tar", target)
        members["1/layer.tar"] = link("1/layer.tar", "../0/layer.tar")
        refused(store, tmp_path, save(str(tmp_path / "d.tar"), tar_of(members)), "is missing|is a link")


def test_docker_archives_that_are_no_list(store: ImageStore, tmp_path: Path) -> None:
    for content, match in ((b"{}", "is not a list"), (b"[1]", "is not a JSON object"), (b"[]", "is empty")):
        refused(store, tmp_path, save(str(tmp_path / "d.tar"), tar_of({"manifest.json": content})), match)


def test_no_space(store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = one(layers=[tar_of({"new": b"x"})]).write(str(tmp_path / "source"))
    real = staging.write_all
    left = [2000]

    def full(fd: int, data: bytes | bytearray | memoryview) -> None:
        left[0] -= len(data)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "full")
        real(fd, data)

    monkeypatch.setattr(staging, "write_all", full)
    before = tree(str(tmp_path / "state"))
    with pytest.raises(ResourceExhausted, match="No space left on device") as caught:
        store.load(source)
    assert caught.value.hint == "free space on its disk"
    assert tree(str(tmp_path / "state")) == before


def test_a_caller_that_gives_up(store: ImageStore, tmp_path: Path) -> None:
    source = one(layers=[tar_of({"new": b"x"})]).write(str(tmp_path / "source"))

    def stop(what: str, done: int, total: int) -> None:
        del what, done, total
        raise KeyboardInterrupt

    before = tree(str(tmp_path / "state"))
    with pytest.raises(KeyboardInterrupt):
        store.load(source, progress=stop)
    assert tree(str(tmp_path / "state")) == before


def test_any_damage_of_an_archive_is_an_error_of_ours_or_harmless(store: ImageStore, tmp_path: Path) -> None:
    """Bytes all over headers, padding and contents are damaged, one at a time; no other kind of error comes out."""
    data = bytearray(tar_of(one(annotations={"new": "1"}).all_files()))
    path = str(tmp_path / "damaged.tar")
    loaded = 0
    errors: list[str] = []
    for position in range(0, len(data), 151):
        damaged = bytearray(data)
        damaged[position] ^= 0x41
        save(path, bytes(damaged))
        try:
            store.load(path, "damaged:1")
            loaded += 1
        except BadContent as error:
            errors.append(error.message)
    assert loaded > 0
    assert errors
    assert all(path in message for message in errors)


def test_open_descriptors_are_closed(store: ImageStore, tmp_path: Path) -> None:
    sources = [
        one().write(str(tmp_path / "good")),
        save(str(tmp_path / "bad.tgz"), gzip.compress(b"no tar")),
        save(str(tmp_path / "bad.tar"), MEMBERS[0][1]),
        save(str(tmp_path / "d.tar"), tar_of(docker_archive(changes={"Layers": ["x"]}))),
        str(tmp_path / "kept"),
    ]
    before = os.listdir("/proc/self/fd")
    for source in sources:
        try:
            store.load(source)
        except BadContent:
            continue
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_pax_headers_of_an_archive(store: ImageStore, tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in one("pax:1").all_files().items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.pax_headers = {"comment": "x" * 2000}
            tar.addfile(info, io.BytesIO(content))
    [image] = store.load(save(str(tmp_path / "pax.tar"), out.getvalue()))
    assert image.name == "pax:1"
