"""Pulling through skopeo, from places that need no network."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest

from synthetic_images import CONTENT, digest, one, tar_of, tree
from unikeel.errors import BadContent, InvalidArgument, ResourceExhausted, Unavailable
from unikeel.images import pulling
from unikeel.images.store import ImageStore


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    found = ImageStore(str(tmp_path / "state" / "images"), str(tmp_path / "state" / "owners"))
    found.load(one("kept:1", annotations={"kept": "1"}).write(str(tmp_path / "kept")))
    return found


def fake_skopeo(directory: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A skopeo that does what the test wants; its arguments are in ``$@``."""
    directory.mkdir()
    path = directory / "skopeo"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


def test_from_an_oci_layout_with_the_digest_kept(store: ImageStore, tmp_path: Path) -> None:
    layout = one("web:1")
    source = layout.write(str(tmp_path / "layout"))
    told: list[tuple[str, int, int]] = []
    image = store.pull(f"oci:{source}:web:1", progress=lambda what, done, total: told.append((what, done, total)))
    assert (image.name, image.digest) == ("web:1", layout.entries[0]["digest"])
    assert store.get("web:1") == image
    assert told[0][0] == f"pulling oci:{source}:web:1"
    assert told[-1][1] > 0
    assert store.pull(f"oci:{source}:web:1", "other").name == "other:latest"
    assert os.listdir(tmp_path / "state" / "images" / "tmp") == []


@pytest.mark.parametrize("transport", ["dir", "oci-archive", "docker-archive"])
def test_from_what_skopeo_wrote(store: ImageStore, tmp_path: Path, transport: str) -> None:
    source = one("web:1").write(str(tmp_path / "layout"))
    place = f"{transport}:{tmp_path}/made" + (":web:2" if transport == "docker-archive" else "")
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "-q", f"oci:{source}:web:1", place], check=True, capture_output=True
    )
    image = store.pull(place, "pulled")
    assert image.labels == {"label": "1"}
    assert image.layers[0].diff_id == digest(tar_of(CONTENT))
    assert store.get("pulled").digest == image.digest


def test_an_image_that_is_not_there(store: ImageStore, tmp_path: Path) -> None:
    before = tree(str(tmp_path / "state"))
    with pytest.raises(Unavailable) as caught:
        store.pull(f"dir:{tmp_path}/nothing")
    message = caught.value.message
    assert message.startswith(f"dir:{tmp_path}/nothing cannot be pulled: ")
    assert message.endswith("no such file or directory")
    assert "\n" not in message
    assert "level=" not in message
    assert tree(str(tmp_path / "state")) == before


def test_what_skopeo_says_when_the_disk_is_full(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f"""echo noise; echo 'time="x" level=fatal msg="write \\"a\\": {os.strerror(errno.ENOSPC).lower()}"' >&2; exit 1"""
    fake_skopeo(tmp_path / "bin", script, monkeypatch)
    with pytest.raises(ResourceExhausted, match=r'pulled: write "a": no space left on device \('):
        store.pull("web")


def test_a_skopeo_that_says_nothing(store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_skopeo(tmp_path / "bin", "exit 3", monkeypatch)
    with pytest.raises(Unavailable, match="docker://web cannot be pulled: skopeo ended with status 3"):
        store.pull("web")


def test_no_skopeo(store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="skopeo cannot be run"):
        store.pull("web")


def test_the_arguments(store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference is one argument behind ``--`` whatever it holds; a policy of the host binds."""
    fake_skopeo(tmp_path / "bin", 'printf "%s|" "$@"; exit 1', monkeypatch)
    for policy, option in ((tmp_path / "none", "--insecure-policy|"), (tmp_path / "bin", "")):
        monkeypatch.setattr(pulling, "_POLICIES", (str(policy),))
        with pytest.raises(Unavailable) as caught:
            store.pull("docker://web:$(id); x", "web")
        assert f"cannot be pulled: {option}copy|--|docker://web:$(id); x|dir:{tmp_path}/state/images/tmp/" in str(
            caught.value
        )


def test_giving_up_ends_skopeo_and_leaves_nothing(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid_file = tmp_path / "pid"
    # The reader stays at the fifo until it is killed.
    os.mkfifo(tmp_path / "never")
    fake_skopeo(tmp_path / "bin", f"echo $$ > {pid_file}; echo Copying; exec cat {tmp_path}/never", monkeypatch)
    before = tree(str(tmp_path / "state"))

    def interrupted(what: str, done: int, total: int) -> None:
        del what, done, total
        if pid_file.exists() and pid_file.read_text().strip():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.pull("web", progress=interrupted)
    assert tree(str(tmp_path / "state")) == before
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_what_skopeo_brings_is_checked_like_anything_else(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        'for last; do :; done; d=${last#dir:}; mkdir "$d"; echo 1 > "$d/version"; ln -s /etc/passwd "$d/manifest.json"'
    )
    fake_skopeo(tmp_path / "bin", script, monkeypatch)
    before = tree(str(tmp_path / "state"))
    with pytest.raises(BadContent, match="holds no image"):
        store.pull("web")
    assert tree(str(tmp_path / "state")) == before


@pytest.mark.parametrize(
    ("reference", "passed_on", "name"),
    [
        ("nginx", "docker://nginx", "nginx"),
        ("host:5000/app:1", "docker://host:5000/app:1", "host:5000/app:1"),
        ("docker://nginx:1", "docker://nginx:1", "nginx:1"),
        ("oci:/a/layout:web:1", "oci:/a/layout:web:1", "web:1"),
        ("oci:/a/layout", "oci:/a/layout", "layout"),
        ("oci-archive:/a/web.tar", "oci-archive:/a/web.tar", "web"),
        ("docker-archive:/a/web.tar:b:2", "docker-archive:/a/web.tar:b:2", "b:2"),
        ("dir:/a/web/", "dir:/a/web/", "web"),
        ("containers-storage:[overlay@/x]web:3", "containers-storage:[overlay@/x]web:3", "web:3"),
        ("docker-daemon:web:4", "docker-daemon:web:4", "web:4"),
        ("dir:/a/ä", "dir:/a/ä", ""),
    ],
)
def test_references(reference: str, passed_on: str, name: str) -> None:
    assert pulling.parse(reference) == pulling.Source(passed_on, name)


@pytest.mark.parametrize("reference", ["", "-x", "--help", "a\nb", "docker://", "oci:", "a b", "x" * 5000])
def test_what_is_no_reference(store: ImageStore, reference: str) -> None:
    with pytest.raises(InvalidArgument):
        store.pull(reference)


def test_a_reference_without_a_name_needs_one(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="has no name to take"):
        store.pull(f"dir:{tmp_path}/ä")


def test_what_is_staged_is_nobody_elses(store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_skopeo(tmp_path / "bin", f'echo "$TMPDIR" > {tmp_path}/where; stat -c %a "$TMPDIR"; exit 1', monkeypatch)
    with pytest.raises(Unavailable, match="pulled: 700 "):
        store.pull("web")
    assert (tmp_path / "where").read_text().startswith(str(tmp_path / "state" / "images" / "tmp"))
    assert stat.S_IMODE(os.stat(tmp_path / "state" / "images").st_mode) == 0o700
