"""containerd's checks of a snapshotter, in our own words: subclass :class:`ContainerdSuite` in a test module and say how one is opened.

They are what containerd asks of its own snapshotters (``core/snapshots/testsuite``, the same in role from 1.6 on), each a test of the same
number here. File systems are really mounted with the mounts that the snapshotter returns, so the tests need root, and mount(8).

1. *Basic*: prepare, write, commit, build on it, look through a view; Stat before and after; List tells what Stat tells; the order of removing.
2. *StatActive*: name, parent and kind of an active snapshot.
3. *StatCommitted*: those of a committed one.
4. *Transitivity*: parents of a chain.
5. *PrepareViewFailing*: a taken key is refused, to Prepare and View alike.
6. *Update*: labels as a whole, single ones, unknown fields; times.
7. *Remove*: keys and names can be used again at once.
8. *Walk*: ten filters.
9. *LayerFileUpdate*: a file is changed in upper layers, again and again.
10. *RemoveDirectoryInLowerLayer*: a directory that was removed and made again is empty.
11. *Chown*: changed owners stay, also those of whole trees.
12. *DirectoryPermissionOnCommit*: modes and owners of directories stay.
13. *RemoveIntermediate*: no parent goes before its children, whatever they are.
14. *DeletedFilesInChild*: what a child deleted is absent in its children.
15. *MoveFileFromLowerLayer*: files and hard links of lower layers can be renamed.
16. *ViewReadonly*: a view cannot be written to.
17. *StatInWalk*: Stat works while List goes on, and tells the same.
18. *CloseTwice*: closing a second time is no error.
19. *RootPermission*: the root directory of a new file system has the mode 0755, whatever the umask.
20. *Rename*: directories of lower layers can be renamed.
21. *128LayersMount*: 128 layers, each with exactly what was put into it; nothing else is there (no ``lost+found``).
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Protocol

import pytest

from unikeel.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, UnikeelError
from unikeel.snapshots.contract import Info, Kind, Mount, Usage
from unikeel.testing.mounted_snapshot_suite import Tree, mounted, tree

#: Keeps what is made through containerd from its collector.
KEPT: Final[Mapping[str, str]] = {"containerd.io/gc.root": "suite"}

Change = Callable[[Path], object]
Check = Callable[[Path], bool]


class Snapshotter(Protocol):
    """What the suite drives: of :class:`~unikeel.snapshots.contract.SnapshotStore` what containerd calls, with its meaning and errors."""

    def prepare(self, key: str, parent: str, labels: Mapping[str, str] | None = None) -> list[Mount]: ...
    def view(self, key: str, parent: str, labels: Mapping[str, str] | None = None) -> list[Mount]: ...
    def mounts(self, key: str) -> list[Mount]: ...
    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, *, parent: str = "") -> None: ...
    def remove(self, key: str) -> None: ...
    def stat(self, key: str) -> Info: ...
    def update(self, name: str, labels: Mapping[str, str], fieldpaths: Iterable[str] = ()) -> Info: ...
    def list(self, filters: Iterable[str] = ()) -> Iterator[Info]: ...
    def usage(self, key: str) -> Usage: ...
    def close(self) -> None: ...


class ContainerdSuite:
    """The 21 checks. Subclasses define :meth:`open_snapshotter`.

    :cvar layers: how many layers the last check stacks.
    """

    layers = 128

    def open_snapshotter(self, directory: str) -> Snapshotter:
        """An empty snapshotter of this test's own, or a namespace of one; ``directory`` exists and is empty."""
        raise NotImplementedError

    @pytest.fixture
    def snapshotter(self, tmp_path: Path) -> Iterator[Snapshotter]:
        """One for this test, which removes what it made."""
        directory = tmp_path / "store"
        directory.mkdir()
        opened = self.open_snapshotter(os.fspath(directory))
        yield opened
        _remove_all(opened)
        assert list(opened.list()) == []
        opened.close()

    @pytest.fixture
    def chain(self, snapshotter: Snapshotter, tmp_path: Path) -> Chain:
        """Layers, and a plain directory that gets the same changes."""
        return Chain(snapshotter, tmp_path)

    def test_01_basic(self, snapshotter: Snapshotter, chain: Chain, tmp_path: Path) -> None:
        def first(root: Path) -> None:
            (root / "foo").write_text("foo\n")
            (root / "a" / "b" / "c").mkdir(parents=True)
            (root / "a" / "b" / "gone").write_text("gone")

        def second(root: Path) -> None:
            (root / "bar").write_text("bar\n")
            (root / "foo").write_text("another foo\n")
            shutil.rmtree(root / "a")

        before = chain.begin("preparing", first)
        assert before == snapshotter.stat("preparing")
        assert (before.parent, before.kind) == ("", Kind.ACTIVE)
        chain.end("base", "preparing")
        _is_missing(snapshotter, "preparing")
        base = snapshotter.stat("base")
        assert (base.name, base.parent, base.kind) == ("base", "", Kind.COMMITTED)
        on_it = chain.begin("next", second)
        assert (on_it.parent, on_it.kind) == ("base", Kind.ACTIVE)
        chain.end("top", "next")
        _is_missing(snapshotter, "next")
        assert snapshotter.stat("top").parent == "base"
        assert {info.name: info for info in snapshotter.list()} == {
            name: snapshotter.stat(name) for name in ("base", "top")
        }
        with mounted(snapshotter.view("view", "top", KEPT), tmp_path / "view") as root:
            assert tree(root) == chain.expected["top"]
            assert snapshotter.stat("view").kind is Kind.VIEW
        for name in ("base", "top"):
            with pytest.raises(FailedPrecondition, match="remove"):
                snapshotter.remove(name)
        for name in ("view", "top", "base"):
            snapshotter.remove(name)
            _is_missing(snapshotter, name)

    def test_02_stat_active(self, snapshotter: Snapshotter, chain: Chain) -> None:
        chain.add(_nothing)
        snapshotter.prepare("active", chain.top, KEPT)
        info = snapshotter.stat("active")
        assert (info.name, info.parent, info.kind) == ("active", chain.top, Kind.ACTIVE)

    def test_03_stat_committed(self, snapshotter: Snapshotter, chain: Chain) -> None:
        chain.add(_nothing)
        base = chain.top
        chain.add(_nothing)
        info = snapshotter.stat(chain.top)
        assert (info.name, info.parent, info.kind) == (chain.top, base, Kind.COMMITTED)

    def test_04_transitivity(self, snapshotter: Snapshotter, chain: Chain) -> None:
        chain.add(_nothing)
        lower = chain.top
        chain.add(_nothing)
        upper = chain.top
        snapshotter.prepare("active", upper, KEPT)
        assert [snapshotter.stat(name).parent for name in ("active", upper, lower)] == [upper, lower, ""]
        assert snapshotter.stat(lower).kind is snapshotter.stat(upper).kind is Kind.COMMITTED

    def test_05_taken_keys(self, snapshotter: Snapshotter, chain: Chain) -> None:
        chain.add(_nothing)
        snapshotter.prepare("active", chain.top, KEPT)
        snapshotter.view("view", chain.top, KEPT)
        for key in ("active", "view"):
            for make in (snapshotter.prepare, snapshotter.view):
                with pytest.raises(AlreadyExists):
                    make(key, chain.top, KEPT)

    def test_06_update(self, snapshotter: Snapshotter, chain: Chain) -> None:
        began = time.time_ns()
        chain.add(_nothing)
        chain.add(_nothing)
        committed = [snapshotter.stat(name).name for name in chain.expected]
        snapshotter.prepare("a1", committed[1], {**KEPT, "l1": "old"})
        snapshotter.prepare("a2", committed[0], KEPT)
        snapshotter.view("v1", committed[1], KEPT)
        snapshotter.view("v2", "", KEPT)
        ended = time.time_ns()
        for info in list(snapshotter.list()):
            assert began <= info.created_ns == info.updated_ns <= ended, info
            self._updated(snapshotter, info)

    def _updated(self, snapshotter: Snapshotter, before: Info) -> None:
        """Every way of changing the labels of one snapshot."""

        def update(labels: dict[str, str], *paths: str) -> dict[str, str]:
            earlier = snapshotter.stat(before.name)
            info = snapshotter.update(
                before.name, {**KEPT, **labels} if not paths or "labels" in paths else labels, paths
            )
            assert info.updated_ns > earlier.updated_ns
            assert info == snapshotter.stat(before.name)
            unchanged = (info.name, info.parent, info.kind, info.created_ns)
            assert unchanged == (before.name, before.parent, before.kind, before.created_ns)
            return {name: value for name, value in info.labels.items() if name not in KEPT}

        assert update({"l1": "one"}) == {"l1": "one"}
        assert update({"l1": "changed", "l2": "two"}, "labels.l2") == {"l1": "one", "l2": "two"}
        assert update({"l1": "changed"}, "labels.l1") == {"l1": "changed", "l2": "two"}
        assert update({"l1": ""}, "labels.l1") == {"l2": "two"}
        assert update({}, "labels.l2") == {}
        assert update({"l3": "three"}, "labels") == {"l3": "three"}
        assert update({}) == {}
        for path in ("parent", "kind", "created_at"):
            with pytest.raises(InvalidArgument):
                snapshotter.update(before.name, dict(KEPT), [path])

    def test_07_remove(self, snapshotter: Snapshotter, chain: Chain) -> None:
        chain.add(_nothing)
        for make, parent in (
            (snapshotter.prepare, chain.top),
            (snapshotter.view, chain.top),
            (snapshotter.prepare, ""),
            (snapshotter.view, ""),
            (snapshotter.prepare, chain.top),
        ):
            make("key", parent, KEPT)
            snapshotter.remove("key")
        for _ in range(2):
            snapshotter.prepare("key", chain.top, KEPT)
            snapshotter.commit("name", "key", KEPT)
            snapshotter.remove("name")

    def test_08_walk(self, snapshotter: Snapshotter) -> None:
        snapshotter.prepare("c1-key", "", KEPT)
        snapshotter.commit("c1", "c1-key", {**KEPT, "containerd.io/snapshot/mark": "base"})
        snapshotter.prepare("a1", "c1", {**KEPT, "dotted.key/x": "1"})
        snapshotter.prepare("a2", "c1", {**KEPT, "plain": "yes"})
        snapshotter.view("v1", "c1", {**KEPT, "plain": "no"})
        snapshotter.prepare("rootless", "", KEPT)
        wanted = {
            "name==a1": "a1",
            "parent==c1": "a1 a2 v1",
            'parent!=""': "a1 a2 v1",
            "kind==active": "a1 a2 rootless",
            "kind==view": "v1",
            "kind==committed": "c1",
            "labels.plain": "a2 v1",
            "labels.plain==yes": "a2",
            'labels."dotted.key/x"==1': "a1",
            "kind==active,labels.plain==yes": "a2",
        }
        found = {text: " ".join(sorted(info.name for info in snapshotter.list([text]))) for text in wanted}
        assert found == wanted
        assert {info.name for info in snapshotter.list(["name==a1", "kind==view"])} == {"a1", "v1"}
        assert len(list(snapshotter.list())) == 5
        with pytest.raises(UnikeelError, match="filter"):  # containerd does not say that the argument is wrong
            list(snapshotter.list(["name=="]))

    def test_09_layer_file_update(self, chain: Chain) -> None:
        def make(root: Path) -> None:
            for name in ("foo", "bar"):
                (root / name).write_text("0000")
            (root / "dir").mkdir()
            (root / "dir" / "file").write_text("0000")

        def rewrite(root: Path, turn: int) -> None:
            """As long as before and with the same time: nothing but the content tells the difference."""
            for path in (root / "bar", root / "dir" / "file"):
                status = path.stat()
                path.write_text(f"{turn:04}")
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

        chain.add(make)
        for turn in range(1, 6):
            chain.add(lambda root, turn=turn: rewrite(root, turn))  # type: ignore[misc]  # a default in a lambda
        chain.check()

    def test_10_remove_directory_in_lower_layer(self, chain: Chain) -> None:
        def make(root: Path) -> None:
            (root / "dir").mkdir()
            (root / "dir" / "file").write_text("content")

        def again(root: Path) -> None:
            shutil.rmtree(root / "dir")
            (root / "dir").mkdir()

        chain.add(make)
        chain.add(again)
        chain.check()
        assert set(chain.seen(chain.top)) == {".", "dir"}

    def test_11_chown(self, chain: Chain) -> None:
        def make(root: Path) -> None:
            for name in ("opt", "opt/a", "opt/a/b", "opt/a/b/c"):
                (root / name).mkdir()
            (root / "opt" / "a" / "file").write_text("content")
            (root / "beginning").write_text("content")

        def recursively(root: Path) -> None:
            for path in (root / "opt", *(root / "opt").rglob("*")):
                os.chown(path, 1, 1)

        chain.add(make)
        chain.add(recursively)
        chain.add(lambda root: os.chown(root / "beginning", 1000, 2000))
        chain.add(lambda root: os.chown(root / "opt" / "a" / "file", 65534, 3))
        chain.check()

    def test_12_directory_permission_on_commit(self, chain: Chain) -> None:
        def make(root: Path) -> None:
            for number, mode in enumerate((0o700, 0o750, 0o777, 0o1777, 0o2755)):
                directory = root / f"dir{number}"
                directory.mkdir()
                directory.chmod(mode)
                os.chown(directory, number, number)

        chain.add(make)
        chain.add(lambda root: (root / "dir0" / "child").mkdir(mode=0o711))
        chain.add(lambda root: (root / "dir1").chmod(0o705))
        chain.check()

    def test_13_remove_intermediate(self, snapshotter: Snapshotter, chain: Chain) -> None:
        chain.add(lambda root: (root / "foo").write_text("foo"))
        base = chain.top
        chain.add(lambda root: (root / "bar").write_text("bar"))
        middle = chain.top
        snapshotter.prepare("top", middle, KEPT)
        snapshotter.view("view", middle, KEPT)
        for left in ("top", "view"):
            for name in (base, middle):
                with pytest.raises(FailedPrecondition, match="remove"):
                    snapshotter.remove(name)
            snapshotter.remove(left)
        snapshotter.remove(middle)
        snapshotter.remove(base)

    def test_14_deleted_files_in_child(self, chain: Chain) -> None:
        def make(root: Path) -> None:
            for name in ("foo", "bar", "foobar"):
                (root / name).write_text(name)

        chain.add(make)
        chain.add(lambda root: (root / "foobar").unlink())
        chain.add(lambda root: (root / "bar").unlink())
        chain.check()
        assert set(chain.seen(chain.top)) == {".", "foo"}

    def test_15_move_file_from_lower_layer(self, chain: Chain) -> None:
        def make(root: Path) -> None:
            (root / "dir1").mkdir()
            (root / "dir1" / "f1").write_text("f1")
            os.link(root / "dir1" / "f1", root / "dir1" / "f2")

        def move(root: Path) -> None:
            (root / "dir1" / "f1").rename(root / "f1")
            (root / "dir2").mkdir()
            (root / "dir1" / "f2").rename(root / "dir2" / "f2")

        chain.add(make)
        chain.add(move)
        chain.check()

    def test_16_view_readonly(self, snapshotter: Snapshotter, chain: Chain, tmp_path: Path) -> None:
        chain.add(lambda root: (root / "file").write_text("content"))
        with mounted(snapshotter.view("view", chain.top, KEPT), tmp_path / "view") as root:
            for write in ((root / "new").touch, lambda: (root / "file").write_text("x"), (root / "file").unlink):
                with pytest.raises(OSError, match="Read-only") as refused:
                    write()
                assert refused.value.errno == errno.EROFS
        assert chain.seen(chain.top) == chain.expected[chain.top]

    def test_17_stat_in_walk(self, snapshotter: Snapshotter, chain: Chain) -> None:
        chain.add(_nothing)
        snapshotter.prepare("active", chain.top, KEPT)
        snapshotter.view("view", chain.top, KEPT)
        seen = 0
        for info in snapshotter.list():
            assert snapshotter.stat(info.name) == info
            seen += 1
        assert seen == 3

    def test_18_close_twice(self, tmp_path: Path) -> None:
        opened = self.open_snapshotter(os.fspath(tmp_path))
        assert list(opened.list()) == []
        opened.close()
        opened.close()

    def test_19_root_permission(self, snapshotter: Snapshotter, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            with mounted(snapshotter.prepare("new", "", KEPT), tmp_path / "new") as root:
                assert tree(root) == {".": (stat.S_IFDIR | 0o755, 0, 0, "")}
        finally:
            os.umask(before)

    def test_20_rename(self, chain: Chain) -> None:
        def make(root: Path) -> None:
            (root / "dir1").mkdir()
            (root / "somefiles").mkdir()
            (root / "somefiles" / "f1").write_text("was here first")

        def rename(root: Path) -> None:
            (root / "dir1").rename(root / "dir2")
            (root / "somefiles").rename(root / "dir2" / "somefiles")
            (root / "dir2" / "f2").write_text("new")

        chain.add(make)
        chain.add(rename)
        chain.add(lambda root: (root / "dir2").rename(root / "dir3"))
        chain.check()

    def test_21_many_layers(self, chain: Chain) -> None:
        def change(root: Path, index: int) -> None:
            (root / "bottom").write_text(str(index))
            (root / f"{index}").mkdir()
            (root / f"{index}" / "file").write_text(f"in layer {index}")
            if index > 2:
                shutil.rmtree(root / f"{index - 3}")

        for index in range(self.layers):
            chain.add(lambda root, index=index: change(root, index))  # type: ignore[misc]  # as above
        chain.check()


class Chain:
    """A growing chain of committed snapshots. :attr:`expected` has what each must hold, by its name."""

    def __init__(self, snapshotter: Snapshotter, directory: Path) -> None:
        self.top = ""
        self.expected: dict[str, Tree] = {}
        self._snapshotter = snapshotter
        self._target = directory / "mounted"
        self._plain = directory / "plain"
        self._plain.mkdir(mode=0o755)

    def begin(self, key: str, change: Change) -> Info:
        """Prepare a snapshot on the top and change what is in it; what Stat tells of it."""
        change(self._plain)
        with mounted(self._snapshotter.prepare(key, self.top, KEPT), self._target) as root:
            change(root)
        return self._snapshotter.stat(key)

    def end(self, name: str, key: str) -> None:
        """Commit it."""
        self._snapshotter.commit(name, key, KEPT)
        self.top = name
        self.expected[name] = tree(self._plain)

    def add(self, change: Change) -> None:
        """Both, with a name of its own."""
        name = f"layer{len(self.expected)}"
        self.begin(f"{name}-key", change)
        self.end(name, f"{name}-key")

    def seen(self, name: str) -> Tree:
        """What a view shows."""
        with mounted(self._snapshotter.view("looking", name, KEPT), self._target) as root:
            found = tree(root)
        self._snapshotter.remove("looking")
        return found

    def check(self) -> None:
        """Every layer holds what it must."""
        for name, expected in self.expected.items():
            assert self.seen(name) == expected, name


def _nothing(_root: Path) -> None:
    """A layer without changes."""


def _is_missing(snapshotter: Snapshotter, name: str) -> None:
    with pytest.raises(NotFound):
        snapshotter.stat(name)


def _remove_all(snapshotter: Snapshotter) -> None:
    """In the only order that is possible: children first."""
    while infos := list(snapshotter.list()):
        parents = {info.parent for info in infos}
        for info in infos:
            if info.name not in parents:
                snapshotter.remove(info.name)
