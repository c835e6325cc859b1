"""The conformance checks of snapshot stores that need root: file systems are mounted with the mounts that the store returns.

Modelled on containerd's suite for snapshotters (``core/snapshots/testsuite``). Subclass :class:`MountedSnapshotSuite` in a test
module and define ``open_store`` as for :class:`~unikeel.testing.snapshot_suite.SnapshotSuite`. Needs mount(8) of util-linux.
"""

from __future__ import annotations

import errno
import functools
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from unikeel.errors import FailedPrecondition
from unikeel.kernel import libc
from unikeel.snapshots.contract import Mount, SnapshotStore

_LAYERS = 128
#: Of mount(2).
_READ_ONLY = 1
_REMOUNT = 32

Tree = dict[str, tuple[int, int, int, str]]


@contextmanager
def mounted(mounts: list[Mount], target: Path) -> Iterator[Path]:
    """Mount what a store returned, as a host would; unmounted at the end."""
    (mount,) = mounts
    target.mkdir(exist_ok=True)
    options = ",".join(mount.options)
    subprocess.run(["mount", "-t", mount.type, "-o", options, mount.source, os.fspath(target)], check=True)
    try:
        yield target
    finally:
        if "ro" not in mount.options:
            _write_out(target)
        subprocess.run(["umount", os.fspath(target)], check=True)


def _write_out(target: Path) -> None:
    """Have a mounted file system become read-only, and clean with that. To unmount it does the same only if no mount namespace that was made meanwhile has it
    mounted, too, as any process of the host may have made one.
    """
    place = os.fsencode(target)
    if libc.library().mount(None, place, None, _REMOUNT | _READ_ONLY, None) != 0:
        raise libc.fail(f"remount {target}")


def tree(root: Path) -> Tree:
    """All beneath a directory, and itself: mode, owner, group, content."""
    found: Tree = {}
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        content = ""
        if stat.S_ISREG(status.st_mode):
            content = path.read_text()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        found[str(path.relative_to(root))] = (status.st_mode, status.st_uid, status.st_gid, content)
    return found


class MountedSnapshotSuite:
    """What must be seen in mounted snapshots. Subclasses define :meth:`open_store`."""

    def open_store(self, directory: str, consumer: str) -> SnapshotStore:
        """A store that keeps all it has in ``directory``, which exists."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SnapshotStore]:
        """An empty store."""
        directory = tmp_path / "store"
        directory.mkdir()
        store = self.open_store(os.fspath(directory), "suite")
        yield store
        store.close()

    @pytest.fixture
    def layers(self, store: SnapshotStore, tmp_path: Path) -> _Layers:
        """Applies changes to snapshots and to a plain directory alike."""
        return _Layers(store, tmp_path)

    def test_basic(self, layers: _Layers) -> None:
        def first(root: Path) -> None:
            (root / "foo").write_text("foo\n")
            (root / "a" / "b").mkdir(parents=True)
            (root / "gone").mkdir()
            (root / "gone" / "file").touch()

        def second(root: Path) -> None:
            (root / "foo").write_text("changed")
            (root / "bar").write_text("bar\n")
            shutil.rmtree(root / "gone")

        layers.add(first)
        layers.add(second)
        layers.check()

    def test_file_updates_in_upper_layers(self, layers: _Layers) -> None:
        def write(root: Path) -> None:
            before = (root / "foo").read_text() if (root / "foo").exists() else ""
            (root / "foo").write_text(f"{before}again\n")

        for _ in range(6):
            layers.add(write)
            layers.check()

    def test_a_directory_removed_and_made_again_is_empty(self, layers: _Layers) -> None:
        def make(root: Path) -> None:
            (root / "dir").mkdir()
            (root / "dir" / "old").touch()

        def again(root: Path) -> None:
            shutil.rmtree(root / "dir")
            (root / "dir").mkdir()
            (root / "dir" / "new").touch()

        layers.add(make)
        layers.add(again)
        layers.check()

    def test_owners(self, layers: _Layers) -> None:
        def make(root: Path) -> None:
            (root / "opt" / "a" / "b").mkdir(parents=True)
            (root / "opt" / "a" / "b" / "file").touch()
            (root / "etc").touch()

        def give(root: Path) -> None:
            os.chown(root / "etc", 1, 2)
            for path in [root / "opt", *(root / "opt").rglob("*")]:
                os.chown(path, 1001, 1002)

        layers.add(make)
        layers.add(give)
        layers.add(lambda root: (root / "opt" / "after").touch())
        layers.check()

    def test_modes_of_directories(self, layers: _Layers) -> None:
        def make(root: Path) -> None:
            for index, mode in enumerate((0o700, 0o755, 0o1777, 0o2750)):
                directory = root / f"dir{index}"
                directory.mkdir()
                directory.chmod(mode)
                os.chown(directory, index, index + 1)

        layers.add(make)
        layers.add(lambda root: (root / "dir0" / "sub").mkdir(mode=0o711))
        layers.add(lambda root: (root / "dir0").chmod(0o777))
        layers.check()

    def test_deleted_files_stay_deleted(self, layers: _Layers) -> None:
        layers.add(lambda root: [(root / name).write_text(name) for name in ("foo", "bar", "baz")])
        layers.add(lambda root: (root / "foo").unlink())
        layers.add(lambda root: (root / "bar").unlink())
        layers.check()

    def test_files_moved_from_lower_layers(self, layers: _Layers) -> None:
        def make(root: Path) -> None:
            (root / "dir1").mkdir()
            (root / "dir1" / "f1").write_text("f1")
            os.link(root / "dir1" / "f1", root / "dir1" / "f2")

        def move(root: Path) -> None:
            (root / "dir1" / "f1").rename(root / "moved")
            (root / "dir2").mkdir()

        layers.add(make)
        layers.add(move)
        layers.add(lambda root: (root / "dir1" / "f2").rename(root / "dir2" / "f2"))
        layers.check()

    def test_directories_renamed_over_lower_content(self, layers: _Layers) -> None:
        def make(root: Path) -> None:
            (root / "dir1").mkdir()
            (root / "somefiles").mkdir()
            (root / "somefiles" / "f1").write_text("was here first")

        layers.add(make)
        layers.add(lambda root: (root / "somefiles").rename(root / "dir1" / "somefiles"))
        layers.add(lambda root: (root / "dir1").rename(root / "dir2"))
        layers.check()

    def test_views_are_read_only(self, layers: _Layers, store: SnapshotStore, tmp_path: Path) -> None:
        layers.add(lambda root: (root / "file").write_text("content"))
        with mounted(store.view("view", layers.top), tmp_path / "view") as root:
            for write in (lambda: (root / "file").write_text("x"), (root / "new").touch):
                with pytest.raises(OSError, match="Read-only") as caught:
                    write()
                assert caught.value.errno == errno.EROFS
            assert (root / "file").read_text() == "content"

    def test_two_views_of_a_parent_at_once(self, layers: _Layers, store: SnapshotStore, tmp_path: Path) -> None:
        layers.add(lambda root: (root / "file").write_text("content"))
        first, second = store.view("one", layers.top), store.view("two", layers.top)
        with mounted(first, tmp_path / "one") as one, mounted(second, tmp_path / "two") as two:
            assert tree(one) == tree(two)

    def test_the_root_of_empty_file_systems(self, store: SnapshotStore, tmp_path: Path) -> None:
        old = os.umask(0)
        try:
            for mounts in (store.prepare("active", ""), store.view("view", "")):
                with mounted(mounts, tmp_path / "root") as root:
                    assert tree(root) == {".": (stat.S_IFDIR | 0o755, 0, 0, "")}
        finally:
            os.umask(old)

    def test_remove_of_an_intermediate(self, layers: _Layers, store: SnapshotStore, tmp_path: Path) -> None:
        layers.add(lambda root: (root / "file").touch())
        base = layers.top
        with mounted(store.prepare("child", base), tmp_path / "child") as root:
            (root / "more").touch()
            with pytest.raises(FailedPrecondition, match="remove"):
                store.remove(base)
        with pytest.raises(FailedPrecondition, match="remove"):
            store.remove(base)
        store.remove("child")
        store.remove(base)

    def test_many_layers(self, layers: _Layers) -> None:
        """128 layers, each compared with a plain directory that got the same changes."""

        def change(root: Path, index: int) -> None:
            (root / "bottom").write_text(str(index))
            (root / f"layer{index}").mkdir()
            (root / f"layer{index}" / "file").write_text(f"content of {index}")
            if index > 1:
                shutil.rmtree(root / f"layer{index - 2}")

        for index in range(_LAYERS):
            layers.add(functools.partial(change, index=index))
        layers.check()


class _Layers:
    """A growing chain of committed snapshots, and what must be in each of them."""

    def __init__(self, store: SnapshotStore, directory: Path) -> None:
        self.top = ""
        self._store = store
        self._directory = directory
        self._plain = directory / "plain"
        self._plain.mkdir(mode=0o755)
        self._expected: dict[str, Tree] = {}

    def add(self, change: Callable[[Path], object]) -> None:
        """Apply a change on top of the last snapshot and commit the result."""
        change(self._plain)
        name = f"layer {len(self._expected)}"
        with mounted(self._store.prepare("making", self.top), self._directory / "mounted") as root:
            change(root)
        self._store.commit(name, "making")
        self.top, self._expected[name] = name, tree(self._plain)

    def check(self) -> None:
        """Every layer still holds what it did."""
        for name, expected in self._expected.items():
            with mounted(self._store.view("looking", name), self._directory / "mounted") as root:
                assert tree(root) == expected, name
            self._store.remove("looking")
