"""The image store: loading what is whole, names, removal."""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from synthetic_images import (
    CONFIG,
    CONTENT,
    INDEX,
    LAYER,
    REF_NAME,
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
from unikeel.errors import BadContent, InvalidArgument, NotFound
from unikeel.images.store import ImageStore

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(str(tmp_path / "images"), str(tmp_path / "owners"))


def blobs(store: ImageStore) -> set[str]:
    return set(os.listdir(os.path.join(store.layout.directory, "blobs", "sha256")))


def test_an_empty_store(store: ImageStore, tmp_path: Path) -> None:
    assert store.list() == []
    with pytest.raises(NotFound, match="there is no image web"):
        store.get("web")
    assert os.listdir(tmp_path) == []


def test_everything_about_an_image(store: ImageStore, tmp_path: Path) -> None:
    layout = one(annotations={"com.urunc.unikernel.binary": "/boot/kernel"})
    [loaded] = store.load(layout.write(str(tmp_path / "layout")))
    image = store.get("web:1")
    assert image == loaded
    layer = tar_of(CONTENT)
    assert (image.name, image.digest) == ("web:1", layout.entries[0]["digest"])
    assert (image.architecture, image.os, image.created) == ("amd64", "linux", "2024-01-01T00:00:00Z")
    assert (image.annotations, image.labels) == ({"com.urunc.unikernel.binary": "/boot/kernel"}, {"label": "1"})
    assert (image.entrypoint, image.cmd, image.env) == ((), ("run",), ("A=b",))
    assert (image.workdir, image.user) == ("/srv", "0:0")
    assert image.size == sum(len(data) for path, data in layout.files.items() if path.startswith("blobs/"))
    [ref] = image.layers
    assert (ref.digest, ref.diff_id, ref.size, ref.media_type) == (digest(layer), digest(layer), len(layer), LAYER)
    assert Path(store.layer_blob(ref)).read_bytes() == layer
    assert digest(store.read_blob(image.config_digest)) == image.config_digest


def test_modes_on_disk(store: ImageStore, tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        store.load(one().write(str(tmp_path / "layout")))
    finally:
        os.umask(old)
    found = tree(store.layout.directory)
    assert {stat.S_IMODE(mode) for mode, _ in found.values() if stat.S_ISDIR(mode)} == {0o700}
    assert {stat.S_IMODE(mode) for mode, _ in found.values() if stat.S_ISREG(mode)} == {0o644}
    assert os.listdir(os.path.join(store.layout.directory, "tmp")) == []
    assert os.listdir(tmp_path / "owners") == []


def test_an_archive_gives_the_same_image(store: ImageStore, tmp_path: Path) -> None:
    layout = one()
    [plain] = store.load(layout.archive(str(tmp_path / "a.tar")), "plain")
    data = (tmp_path / "a.tar").read_bytes()
    [packed] = store.load(
        save(str(tmp_path / "a.bin"), gzip.compress(data[:3000]) + gzip.compress(data[3000:])), "packed"
    )
    [directory] = store.load(layout.write(str(tmp_path / "layout")), "directory")
    assert plain.digest == packed.digest == directory.digest
    assert [image.name for image in store.list()] == ["directory:latest", "packed:latest", "plain:latest"]


def test_the_store_can_be_read_by_skopeo_and_loaded_again(store: ImageStore, tmp_path: Path) -> None:
    [image] = store.load(one().write(str(tmp_path / "layout")))
    out = subprocess.run(
        ["skopeo", "--insecure-policy", "inspect", f"oci:{store.layout.directory}:web:1"],
        capture_output=True,
        text=True,
    )
    assert image.digest in out.stdout, out.stderr
    other = ImageStore(str(tmp_path / "other"), str(tmp_path / "owners"))
    assert other.load(store.layout.directory) == [image]


def test_docker_media_types_are_kept(store: ImageStore, tmp_path: Path) -> None:
    layout = one(media_type=DOCKER, layer_type=DOCKER_LAYER)
    store.load(layout.write(str(tmp_path / "layout")))
    image = store.get("web:1")
    assert (image.digest, image.layers[0].media_type) == (layout.entries[0]["digest"], DOCKER_LAYER)


def test_two_images_of_one_source_share_a_layer(store: ImageStore, tmp_path: Path) -> None:
    layout = Layout()
    layout.add(layout.image(), "a:1").add(layout.image(annotations={"x": "y"}), "b:1").add(layout.image(), "c:1")
    names = [image.name for image in store.load(layout.write(str(tmp_path / "layout")))]
    assert names == ["a:1", "b:1", "c:1"]
    assert store.get("a:1").digest == store.get("c:1").digest
    assert len(blobs(store)) == 4
    store.remove("b:1")
    assert len(blobs(store)) == 3
    store.remove("a:1")
    assert len(blobs(store)) == 3
    assert store.remove("c:1").name == "c:1"
    assert blobs(store) == set()


def test_an_image_without_a_name(store: ImageStore, tmp_path: Path) -> None:
    [image] = store.load(one("").write(str(tmp_path / "layout")))
    assert image.name == ""
    assert store.get(image.digest[7:15]) == image
    named = store.load(str(tmp_path / "layout"), "now")
    assert [found.name for found in store.list()] == ["now:latest"]
    assert store.get(image.digest).name == "now:latest"
    assert named[0].digest == image.digest


def test_a_name_moves_and_the_old_image_stays_without_one(store: ImageStore, tmp_path: Path) -> None:
    [old] = store.load(one().write(str(tmp_path / "old")))
    [new] = store.load(one(annotations={"x": "y"}).write(str(tmp_path / "new")))
    assert store.get("web:1").digest == new.digest
    assert store.get(old.digest).name == ""
    assert [(image.name, image.digest) for image in store.list()] == [("web:1", new.digest), ("", old.digest)]
    store.remove(old.digest)
    assert [image.name for image in store.list()] == ["web:1"]


def test_removal_by_digest_takes_all_names(store: ImageStore, tmp_path: Path) -> None:
    source = one().write(str(tmp_path / "layout"))
    store.load(source, "a")
    store.load(source, "b")
    store.remove(store.get("a").digest)
    assert (store.list(), blobs(store)) == ([], set())
    with pytest.raises(NotFound):
        store.remove("a")


def test_several_images_cannot_get_one_name(store: ImageStore, tmp_path: Path) -> None:
    layout = Layout()
    layout.add(layout.image(), "a:1").add(layout.image(annotations={"x": "y"}), "b:1")
    with pytest.raises(InvalidArgument, match="several images"):
        store.load(layout.write(str(tmp_path / "layout")), "both")
    assert blobs(store) == set()


def test_the_name_that_containerd_gives_wins(store: ImageStore, tmp_path: Path) -> None:
    layout = Layout()
    layout.add(layout.image())
    layout.entries[0]["annotations"] = {REF_NAME: "1", "io.containerd.image.name": "docker.io/library/web:1"}
    [image] = store.load(layout.write(str(tmp_path / "layout")))
    assert image.name == "web:1"


def platform(architecture: str, system: str = "linux") -> dict[str, str]:
    return {"os": system, "architecture": architecture}


def host() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


def multi_platform(layout: Layout, architecture: str) -> bytes:
    entries = [
        {**layout.image(annotations={"for": name}), "platform": platform(name)} for name in ("s390x", architecture)
    ]
    return dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})


def test_an_index_is_followed_to_this_host(store: ImageStore, tmp_path: Path) -> None:
    layout = Layout()
    layout.add(layout.descriptor(multi_platform(layout, host()), INDEX), "web:1")
    layout.add(layout.image(annotations={"of": "top"}), "flat:1", platform=platform("s390x"))
    layout.add(layout.image(annotations={"of": "here"}), "flat:1", platform=platform(host()))
    store.load(layout.write(str(tmp_path / "layout")))
    assert store.get("web:1").annotations == {"for": host()}
    assert store.get("flat:1").annotations == {"of": "here"}


def test_an_index_without_this_host_names_what_it_has(store: ImageStore, tmp_path: Path) -> None:
    layout = Layout()
    layout.add(layout.descriptor(multi_platform(layout, "ppc64le"), INDEX), "web:1")
    with pytest.raises(BadContent, match=r"only for linux/ppc64le, linux/s390x"):
        store.load(layout.write(str(tmp_path / "layout")))


def test_progress_tells_bytes(store: ImageStore, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    layer = os.urandom(3 << 20)
    source = one(layers=[layer]).write(str(tmp_path / "layout"))
    store.load(source, progress=lambda what, done, total: told.append((what, done, total)))
    assert told[-1][0] == f"loading {source}"
    assert told[-1][1] == len(layer)
    assert {total - len(layer) for _, _, total in told} == {len(layout_config(source))}


def layout_config(source: str) -> bytes:
    [found] = [
        data
        for _, data in tree(os.path.join(source, "blobs")).values()
        if b'"rootfs"' in data and CONFIG.encode() not in data
    ]
    return found


def test_docker_archive(store: ImageStore, tmp_path: Path) -> None:
    base, top = tar_of(CONTENT), tar_of({"more": b"x"})
    members = docker_archive([base, top], ["docker.io/library/web:1", "other/name:2"])
    path = save(str(tmp_path / "d.tar"), tar_of(members))
    images = store.load(path)
    assert [image.name for image in images] == ["web:1", "other/name:2"]
    assert [layer.digest for layer in store.get("web:1").layers] == [digest(base), digest(top)]
    assert store.get("web:1").layers[0].diff_id == digest(base)
    assert store.load(save(str(tmp_path / "d.tgz"), gzip.compress(tar_of(members))))[0].digest == images[0].digest


def test_docker_archive_with_equal_layers_as_links(store: ImageStore, tmp_path: Path) -> None:
    layer = tar_of(CONTENT)
    members = docker_archive([layer, layer])
    for kind, target in ((tarfile.SYMTYPE, "../0/layer.tar"), (tarfile.LNKTYPE, "0/layer.tar")):
        members["1/layer.tar"] = link("1/layer.tar", target, kind)
        [image] = store.load(save(str(tmp_path / "d.tar"), tar_of(members)))
        assert [found.digest for found in image.layers] == [digest(layer)] * 2


def test_docker_archive_with_compressed_layers(store: ImageStore, tmp_path: Path) -> None:
    plain = tar_of(CONTENT)
    members = docker_archive([plain])
    members["0/layer.tar"] = gzip.compress(plain)
    [image] = store.load(save(str(tmp_path / "d.tar"), tar_of(members)))
    [layer] = image.layers
    assert (layer.media_type, layer.diff_id) == (LAYER + "+gzip", digest(plain))
    assert Path(store.layer_blob(layer)).read_bytes() == members["0/layer.tar"]


def test_a_hybrid_docker_archive_is_read_as_a_layout(store: ImageStore, tmp_path: Path) -> None:
    layout = one()
    members = {**layout.all_files(), **docker_archive()}
    assert store.load(save(str(tmp_path / "d.tar"), tar_of(members)))[0].digest == layout.entries[0]["digest"]


def test_archives_that_skopeo_wrote(store: ImageStore, tmp_path: Path) -> None:
    source = one().write(str(tmp_path / "layout"))
    for transport in ("docker-archive", "oci-archive"):
        out = str(tmp_path / f"{transport}.tar")
        argv = ["skopeo", "--insecure-policy", "copy", "-q", f"oci:{source}:web:1", f"{transport}:{out}:made/by:skopeo"]
        subprocess.run(argv, check=True, capture_output=True)
        [image] = store.load(out)
        assert image.name == "made/by:skopeo"
        assert (image.labels, image.layers[0].diff_id) == ({"label": "1"}, digest(tar_of(CONTENT)))


def test_a_damaged_store_says_so_and_can_be_mended(store: ImageStore, tmp_path: Path) -> None:
    source = one().write(str(tmp_path / "layout"))
    [image] = store.load(source)
    path = store.layout.blob_path(image.digest)
    data = Path(path).read_bytes()
    save(path, data.replace(b"amd64", b"arm64").replace(b'"schemaVersion": 2', b'"schemaVersion": 1'))
    with pytest.raises(BadContent, match=f"blob {image.digest} is damaged"):
        store.get("web:1")
    removed = store.remove("web:1")
    assert (removed.name, removed.digest, removed.layers) == ("web:1", image.digest, ())
    assert blobs(store) == set()
    assert store.load(source) == [image]
    os.unlink(path)
    with pytest.raises(BadContent, match="No such file"):
        store.list()
