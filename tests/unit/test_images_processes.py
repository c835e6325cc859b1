"""Several processes on one store, and processes that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from synthetic_images import Layout, one, tar_of, tree
from unikeel.errors import NotFound
from unikeel.images.store import ImageStore

LOAD = """
import sys
from unikeel.images.store import ImageStore
store = ImageStore(sys.argv[1] + "/images", sys.argv[1] + "/owners")
for name in sys.argv[3:]:
    store.load(sys.argv[2], name)
"""
REMOVE = """
import sys
from unikeel.images.store import ImageStore
ImageStore(sys.argv[1] + "/images", sys.argv[1] + "/owners").remove(sys.argv[2])
"""


def opened(root: Path) -> ImageStore:
    return ImageStore(str(root / "images"), str(root / "owners"))


def run(script: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", script, *arguments], env={**os.environ, **environment})


def killed_at(point: str, script: str, *arguments: str) -> None:
    """Run a script, wait until it has stopped itself at a point, and kill it there."""
    process = run(script, *arguments, UNIKEEL_FAILPOINT=point)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), f"the point {point} was not reached"
    process.kill()
    assert process.wait() == -signal.SIGKILL


def blobs(root: Path) -> set[str]:
    return set(os.listdir(root / "images" / "blobs" / "sha256"))


def test_two_processes_load_the_same_image(tmp_path: Path) -> None:
    source = one(layers=[os.urandom(2 << 20)]).write(str(tmp_path / "source"))
    names = [[f"{letter}:{number}" for number in range(5)] for letter in "ab"]
    processes = [run(LOAD, str(tmp_path), source, *some) for some in names]
    assert [process.wait() for process in processes] == [0, 0]
    images = opened(tmp_path).list()
    assert [image.name for image in images] == names[0] + names[1]
    assert len({image.digest for image in images}) == 1
    assert len(blobs(tmp_path)) == 3
    assert os.listdir(tmp_path / "images" / "tmp") == os.listdir(tmp_path / "owners") == []


def test_a_layer_that_is_removed_while_it_is_loaded_again(tmp_path: Path) -> None:
    """The loader found the layer in the store and does not copy it; its removal must not take it from the new image."""
    layer = tar_of({"a": b"x"})
    store = opened(tmp_path)
    store.load(one("old:1", layers=[layer]).write(str(tmp_path / "old")))
    source = one("new:1", layers=[layer], annotations={"x": "y"}).write(str(tmp_path / "new"))
    with store.layout.staging() as staging:
        [ref] = store.get("old:1").layers
        assert staging.adopt(ref.digest, ref.size)
        store.remove("old:1")
        assert blobs(tmp_path) == set()
        store.layout.commit(staging, [])
    assert blobs(tmp_path) == {ref.digest[7:]}
    [image] = store.load(source)
    assert Path(store.layer_blob(image.layers[0])).read_bytes() == layer


@pytest.mark.parametrize("point", ["images.layer", "images.commit", "images.blobs"])
def test_a_loader_that_is_killed(tmp_path: Path, point: str) -> None:
    source = one("new:1", layers=[tar_of({"a": b"new"})]).write(str(tmp_path / "source"))
    kept = one("kept:1").write(str(tmp_path / "kept"))
    opened(tmp_path / "clean").load(kept)
    opened(tmp_path).load(kept)
    killed_at(point, LOAD, str(tmp_path), source, "new:1")
    store = opened(tmp_path)
    assert [image.name for image in store.list()] == ["kept:1"]
    assert len(os.listdir(tmp_path / "images" / "tmp")) == 1
    with pytest.raises(NotFound):
        store.get("new:1")
    store.load(kept)
    assert tree(str(tmp_path / "images")) == tree(str(tmp_path / "clean" / "images"))
    assert [image.name for image in store.load(source)] == ["new:1"]


def test_a_remover_that_is_killed(tmp_path: Path) -> None:
    layout = Layout()
    layout.add(layout.image(), "kept:1").add(layout.image([tar_of({"a": b"gone"})]), "gone:1")
    store = opened(tmp_path)
    store.load(layout.write(str(tmp_path / "source")))
    killed_at("images.untagged", REMOVE, str(tmp_path), "gone:1")
    assert [image.name for image in store.list()] == ["kept:1"]
    assert len(blobs(tmp_path)) == 6
    with store.layout.staging():
        assert len(blobs(tmp_path)) == 3
    assert os.listdir(tmp_path / "images" / "tmp") == []


def test_what_a_living_loader_makes_is_left_alone(tmp_path: Path) -> None:
    source = one("new:1").write(str(tmp_path / "source"))
    store = opened(tmp_path)
    process = run(LOAD, str(tmp_path), source, "new:1", UNIKEEL_FAILPOINT="images.layer")
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    [token] = os.listdir(tmp_path / "images" / "tmp")
    store.load(one("other:1", annotations={"x": "y"}).write(str(tmp_path / "other")))
    assert os.listdir(tmp_path / "images" / "tmp") == [token]
    process.send_signal(signal.SIGCONT)
    assert process.wait() == 0
    assert [image.name for image in store.list()] == ["new:1", "other:1"]


def test_reading_while_names_move(tmp_path: Path) -> None:
    """A reader that looks between a name's move and the removal of what it meant finds one or the other, no damage."""
    one("web:1").write(str(tmp_path / "a"))
    one("web:1", annotations={"b": "1"}).write(str(tmp_path / "b"))
    store, other = opened(tmp_path), opened(tmp_path)
    [first] = store.load(str(tmp_path / "a"))
    real = other.layout.entries
    turns = iter(["before"])

    def entries() -> list[object]:
        found = real()
        if next(turns, ""):
            store.load(str(tmp_path / "b"))
            store.remove(first.digest)
        return list(found)

    other.layout.entries = entries  # type: ignore[assignment,method-assign]  # the one way to stand between two reads
    assert other.get("web:1").annotations == {"b": "1"}
