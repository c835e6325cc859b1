"""Path resolution against the kernel's own: random trees on disk, asked by openat2 and by the resolver."""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from readers_images import by_kernel
from unikeel.boot.readers import walk
from unikeel.boot.readers.contract import PathError, PathReason


class OnDisk:
    """A directory of the host as a tree to resolve paths in, one name at a time."""

    def __init__(self, root: str) -> None:
        self._root = root

    def root(self) -> str:
        return self._root

    def mode(self, node: str) -> int:
        return os.lstat(node).st_mode

    def child(self, node: str, name: bytes) -> str | None:
        path = f"{node}/{os.fsdecode(name)}"
        return path if os.path.lexists(path) else None

    def target(self, node: str) -> bytes:
        return os.fsencode(os.readlink(node))


def resolved(root: str, path: str) -> PathReason | int:
    try:
        return os.lstat(walk.resolve(OnDisk(root), path)).st_ino
    except PathError as error:
        return error.reason


NAMES = ["a", "b", "c", "d"]
PARTS = st.sampled_from([*NAMES, *NAMES, ".", "..", "", "missing", "n" * 255, "n" * 256])
PATHS = st.builds(
    lambda parts, lead, trail: (lead + "/".join(parts) + trail) or ".",
    st.lists(PARTS, max_size=6),
    st.sampled_from(["", "/", "//"]),
    st.sampled_from(["", "/", "/."]),
)
TREES = st.recursive(
    st.one_of(st.just("file"), PATHS.map(lambda target: ("link", target))),
    lambda inner: st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=10,
)


def build(above: str, tree: object) -> None:
    for name, node in tree.items() if isinstance(tree, dict) else ():
        path = f"{above}/{name}"
        if isinstance(node, dict):
            os.mkdir(path)
            build(path, node)
        elif isinstance(node, tuple):
            os.symlink(node[1], path)
        else:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=st.dictionaries(st.sampled_from(NAMES), TREES, max_size=4), paths=st.lists(PATHS, min_size=5, max_size=20))
def test_resolves_as_the_kernel_does(tree: dict[str, object], paths: list[str]) -> None:
    with tempfile.TemporaryDirectory() as root:
        build(root, tree)
        fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
        try:
            for path in paths:
                assert resolved(root, path) == by_kernel(fd, path), path
        finally:
            os.close(fd)


@pytest.mark.parametrize(
    ("links", "path"), [(40, "l40"), (41, "l41"), (20, "l20/../l20"), (21, "l21/../l20"), (40, "l40/"), (40, "l40/x")]
)
def test_counts_links_as_the_kernel_does(links: int, path: str, tmp_path: os.PathLike[str]) -> None:
    root = os.fspath(tmp_path)
    os.mkdir(f"{root}/l0")
    for number in range(1, links + 1):
        os.symlink(f"/l{number - 1}" if number % 2 else f"l{number - 1}", f"{root}/l{number}")
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        assert resolved(root, path) == by_kernel(fd, path)
    finally:
        os.close(fd)


@pytest.mark.parametrize("length", [4094, 4095, 4096, 5000])
def test_bounds_a_path_as_the_kernel_does(length: int, tmp_path: os.PathLike[str]) -> None:
    root = os.fspath(tmp_path)
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        path = "./" * (length // 2) + "/" * (length % 2)
        assert resolved(root, path) == by_kernel(fd, path)
    finally:
        os.close(fd)


@pytest.mark.parametrize("path", ["", "\0", "a\0b", "\ud800"])
def test_refuses_names_that_no_call_can_ask_about(path: str, tmp_path: os.PathLike[str]) -> None:
    assert resolved(os.fspath(tmp_path), path) is PathReason.BAD_NAME


@dataclass
class Loose:
    """A node of a tree that no file system would hold."""

    mode: int
    target: bytes = b""
    children: dict[bytes, Loose] = field(default_factory=dict)


class InMemory:
    """Such a tree."""

    def __init__(self, root: Loose) -> None:
        self._root = root

    def root(self) -> Loose:
        return self._root

    def mode(self, node: Loose) -> int:
        return node.mode

    def child(self, node: Loose, name: bytes) -> Loose | None:
        return node.children.get(name)

    def target(self, node: Loose) -> bytes:
        return node.target


def test_an_empty_link_stays_where_it_is_and_a_nul_ends_one() -> None:
    file = Loose(stat.S_IFREG)
    links = {b"empty": Loose(stat.S_IFLNK), b"nul": Loose(stat.S_IFLNK, b"file\0junk"), b"file": file}
    root = Loose(stat.S_IFDIR, children=links)
    assert walk.resolve(InMemory(root), "empty") is root
    assert walk.resolve(InMemory(root), "empty/file") is file
    assert walk.resolve(InMemory(root), "nul") is file


def test_a_message_is_printable_and_short() -> None:
    with pytest.raises(PathError) as error:
        walk.resolve(InMemory(Loose(stat.S_IFDIR)), "/x\n\x1b[31m\udcff" + "y" * 200)
    assert str(error.value).isascii() or "…" in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 200
