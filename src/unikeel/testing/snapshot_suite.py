"""The conformance suite of snapshot stores: subclass :class:`SnapshotSuite` in a test module and say how a store is opened.

The checks follow those of containerd's own suite for snapshotters (``core/snapshots/testsuite``), as far as they need no
mounted file system; those that do are in :mod:`unikeel.testing.mounted_snapshot_suite`. Contents are compared as raw bytes in
the middle of the image, so that any back end with raw images or devices can be driven, by anyone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from unikeel.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, UnikeelError
from unikeel.snapshots.contract import Info, Kind, Mount, SnapshotStore, Usage

_CONTENT = 4096

#: Filters, and what of the snapshots of ``test_walk`` they match.
_WALKS: dict[tuple[str, ...], str] = {
    (): "c1 c2 a1 a2 v1 v2",
    ("",): "c1 c2 a1 a2 v1 v2",
    ("name==c1",): "c1",
    ("parent==c1",): "c2 a1",
    ('parent!=""',): "c2 a1 a2 v1",
    ("parent",): "c2 a1 a2 v1",
    ("kind==active",): "a1 a2",
    ("kind==view",): "v1 v2",
    ("kind==committed",): "c1 c2",
    ("labels.mark",): "a1 v2",
    ("labels.mark==yes",): "a1",
    ("labels.mark!=yes",): "c1 c2 a2 v1 v2",
    ('labels."dotted.key/x"==1',): "v1",
    ("kind==active,parent==c1",): "a1",
    ("kind==view", "name==c2"): "c2 v1 v2",
    ('name~="^[ac]2$"',): "c2 a2",
    ("unknown",): "",
}


def write_content(mount: Mount, text: str) -> None:
    """Put a text into the middle of an active snapshot's image."""
    fd = os.open(mount.source, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.pwrite(fd, text.encode().ljust(_CONTENT, b"\0"), _middle(fd))
        os.fsync(fd)
    finally:
        os.close(fd)


def read_content(path: str) -> str:
    """The text in the middle of an image."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, _CONTENT, _middle(fd)).rstrip(b"\0").decode()
    finally:
        os.close(fd)


def _middle(fd: int) -> int:
    return os.lseek(fd, 0, os.SEEK_END) // 2 // _CONTENT * _CONTENT


def committed(store: SnapshotStore, name: str, parent: str = "", text: str = "") -> None:
    """Commit a snapshot that holds a text (or the parent's)."""
    (mount,) = store.prepare(f"making {name}", parent)
    if text:
        write_content(mount, text)
    store.commit(name, f"making {name}")


def names(store: SnapshotStore, *filters: str) -> set[str]:
    """The names that match any of some filters."""
    return {info.name for info in store.list(filters)}


class SnapshotSuite:
    """What every store must do. Subclasses define :meth:`open_store`."""

    def open_store(self, directory: str, consumer: str) -> SnapshotStore:
        """A store that keeps all it has in ``directory`` (which exists), small empty file systems; called more than once."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: os.PathLike[str]) -> Iterator[SnapshotStore]:
        """An empty store."""
        store = self.open_store(os.fspath(tmp_path), "suite")
        yield store
        store.close()

    # --- the life of snapshots --------------------------------------------------------------------------------------------

    def test_basic(self, store: SnapshotStore) -> None:
        (mount,) = store.prepare("first", "", {"a": "1"})
        write_content(mount, "one")
        info = store.stat("first")
        assert (info.name, info.parent, info.kind, dict(info.labels)) == ("first", "", Kind.ACTIVE, {"a": "1"})
        store.commit("layer1", "first", {"b": "2"})
        with pytest.raises(NotFound):
            store.stat("first")
        info = store.stat("layer1")
        assert (info.name, info.parent, info.kind, dict(info.labels)) == ("layer1", "", Kind.COMMITTED, {"b": "2"})
        (mount,) = store.prepare("second", "layer1")
        assert read_content(mount.source) == "one"
        write_content(mount, "two")
        store.commit("layer2", "second")
        for name, content in (("layer1", "one"), ("layer2", "two")):
            (mount,) = store.view(f"view of {name}", name)
            assert read_content(mount.source) == content
            assert "ro" in mount.options
        assert list(store.list()) == [
            store.stat(name) for name in ("layer1", "layer2", "view of layer1", "view of layer2")
        ]
        with pytest.raises(FailedPrecondition, match="remove"):
            store.remove("layer1")
        for name in ("view of layer2", "layer2", "view of layer1", "layer1"):
            store.remove(name)
        assert names(store) == set()

    def test_stat_active(self, store: SnapshotStore) -> None:
        committed(store, "base")
        store.prepare("active", "base")
        info = store.stat("active")
        assert (info.name, info.parent, info.kind) == ("active", "base", Kind.ACTIVE)

    def test_stat_committed(self, store: SnapshotStore) -> None:
        committed(store, "base")
        committed(store, "child", "base")
        info = store.stat("child")
        assert (info.name, info.parent, info.kind) == ("child", "base", Kind.COMMITTED)

    def test_transitivity(self, store: SnapshotStore) -> None:
        committed(store, "a", "", "from a")
        committed(store, "b", "a")
        committed(store, "c", "b", "from c")
        assert [store.stat(name).parent for name in "abc"] == ["", "a", "b"]
        assert [read_content(store.disk(name).path) for name in "abc"] == ["from a", "from a", "from c"]

    def test_siblings_do_not_see_each_other(self, store: SnapshotStore) -> None:
        committed(store, "base", "", "base")
        first, second = store.prepare("one", "base")[0], store.prepare("two", "base")[0]
        write_content(first, "one")
        assert read_content(second.source) == "base"
        assert read_content(store.disk("base").path) == "base"

    def test_prepare_and_view_of_a_taken_key_fail(self, store: SnapshotStore) -> None:
        committed(store, "base")
        store.prepare("active", "base")
        store.view("view", "base")
        for key in ("active", "view", "base"):
            for parent in ("", "base"):
                with pytest.raises(AlreadyExists):
                    store.prepare(key, parent)
                with pytest.raises(AlreadyExists):
                    store.view(key, parent)
        assert names(store) == {"base", "active", "view"}

    @pytest.mark.parametrize(
        ("parent", "error"), [("nobody", NotFound), ("active", InvalidArgument), ("view", InvalidArgument)]
    )
    def test_parents_must_be_committed(self, store: SnapshotStore, parent: str, error: type[UnikeelError]) -> None:
        store.prepare("active", "")
        store.view("view", "")
        with pytest.raises(error):
            store.prepare("new", parent)
        with pytest.raises(error):
            store.view("new", parent)
        assert names(store) == {"active", "view"}

    def test_what_is_missing_is_not_found(self, store: SnapshotStore) -> None:
        for call in (store.stat, store.mounts, store.remove, store.usage, store.disk):
            with pytest.raises(NotFound):
                call("nobody")
        with pytest.raises(NotFound):
            store.update("nobody", {})
        with pytest.raises(NotFound):
            store.commit("name", "nobody")

    def test_commit_refuses(self, store: SnapshotStore) -> None:
        committed(store, "base")
        store.view("view", "base")
        store.prepare("active", "base")
        store.prepare("rootless", "")
        with pytest.raises(AlreadyExists):
            store.commit("base", "active")
        with pytest.raises(AlreadyExists):
            store.commit("active", "active")
        with pytest.raises(FailedPrecondition):
            store.commit("new", "view")
        with pytest.raises(FailedPrecondition):
            store.commit("new", "base")
        for key in ("active", "rootless"):
            with pytest.raises(InvalidArgument):
                store.commit("new", key, parent="other")
        assert names(store) == {"base", "view", "active", "rootless"}
        (mount,) = store.mounts("active")
        write_content(mount, "still writable")
        store.commit("new", "active", parent="base")
        assert store.stat("new").parent == "base"

    def test_commit_replaces_labels_and_times(self, store: SnapshotStore) -> None:
        store.prepare("key", "", {"old": "1", "both": "1"})
        before = store.stat("key")
        store.commit("name", "key", {"both": "2"})
        after = store.stat("name")
        assert dict(after.labels) == {"both": "2"}
        assert after.created_ns == after.updated_ns > before.created_ns

    def test_mounts_are_those_of_the_beginning(self, store: SnapshotStore) -> None:
        committed(store, "base")
        active, view, empty = store.prepare("a", "base"), store.view("v", "base"), store.view("e", "")
        for _ in range(2):
            assert (store.mounts("a"), store.mounts("v"), store.mounts("e")) == (active, view, empty)
        assert all("ro" in mount.options for mount in (*view, *empty))
        assert not any("ro" in mount.options for mount in active)
        with pytest.raises(FailedPrecondition):
            store.mounts("base")

    def test_remove_makes_keys_and_names_reusable(self, store: SnapshotStore) -> None:
        committed(store, "name", "", "old")
        store.prepare("key", "name")
        store.remove("key")
        store.view("key", "name")
        store.remove("key")
        (mount,) = store.prepare("key", "")
        assert read_content(mount.source) == ""
        store.remove("key")
        store.remove("name")
        committed(store, "name", "", "new")
        assert read_content(store.disk("name").path) == "new"
        assert names(store) == {"name"}

    def test_remove_of_an_intermediate_fails_while_it_has_children(self, store: SnapshotStore) -> None:
        committed(store, "base")
        committed(store, "middle", "base")
        for make in (store.prepare, store.view):
            make("child", "middle")
            for name in ("middle", "base"):
                with pytest.raises(FailedPrecondition, match="remove"):
                    store.remove(name)
            store.remove("child")
        store.remove("middle")
        store.remove("base")

    # --- labels, times, listing -------------------------------------------------------------------------------------------

    def test_times(self, store: SnapshotStore) -> None:
        before = time.time_ns()
        committed(store, "base")
        store.prepare("a", "base")
        store.view("v", "base")
        store.view("e", "")
        after = time.time_ns()
        for info in store.list():
            assert before <= info.created_ns <= after
            assert info.created_ns == info.updated_ns

    @pytest.mark.parametrize("kind", list(Kind))
    def test_update(self, store: SnapshotStore, kind: Kind) -> None:
        first = self._one_of_each(store)[kind]

        def updated(labels: dict[str, str], *paths: str) -> dict[str, str]:
            before = store.stat(first)
            info = store.update(first, labels, paths)
            assert info == store.stat(first)
            assert info.updated_ns > before.updated_ns
            assert (info.created_ns, info.parent, info.kind) == (before.created_ns, before.parent, before.kind)
            return dict(info.labels)

        assert updated({"l1": "a", "l2": "b"}) == {"l1": "a", "l2": "b"}
        assert updated({"l1": "c", "l2": "ignored"}, "labels.l1") == {"l1": "c", "l2": "b"}
        assert updated({}, "labels.l2") == {"l1": "c"}
        assert updated({"l2": ""}, "labels.l1", "labels.l2") == {}
        assert updated({"x.y/z": "1"}, "labels.x.y/z") == {"x.y/z": "1"}
        assert updated({"l3": "d"}, "labels") == {"l3": "d"}
        assert updated({}) == {}

    def test_update_of_anything_but_labels_fails(self, store: SnapshotStore) -> None:
        store.prepare("key", "", {"l": "1"})
        before = store.stat("key")
        for path in ("parent", "kind", "name", "created_at", "labels.", "label", ""):
            with pytest.raises(InvalidArgument):
                store.update("key", {"l": "2"}, ["labels.l", path])
        assert store.stat("key") == before

    def _one_of_each(self, store: SnapshotStore) -> dict[Kind, str]:
        committed(store, "c")
        store.prepare("a", "c")
        store.view("v", "c")
        return {Kind.COMMITTED: "c", Kind.ACTIVE: "a", Kind.VIEW: "v"}

    def test_walk(self, store: SnapshotStore) -> None:
        committed(store, "c1")
        committed(store, "c2", "c1")
        store.prepare("a1", "c1", {"mark": "yes"})
        store.prepare("a2", "c2")
        store.view("v1", "c2", {"dotted.key/x": "1"})
        store.view("v2", "", {"mark": "no"})
        found = {filters: " ".join(info.name for info in store.list(filters)) for filters in _WALKS}
        assert found == _WALKS

    def test_a_bad_filter_is_refused_at_once(self, store: SnapshotStore) -> None:
        for text in ("name==", "==x", "name=x", 'name=="x', "name==x,", "name~=(", "a b"):
            with pytest.raises(InvalidArgument):
                store.list(["kind==view", text])

    def test_listed_in_the_order_of_preparing(self, store: SnapshotStore) -> None:
        store.prepare("first", "")
        store.prepare("second", "")
        store.commit("committed", "first")
        assert [info.name for info in store.list()] == ["committed", "second"]

    def test_stat_while_listing(self, store: SnapshotStore) -> None:
        self._one_of_each(store)
        seen: list[Info] = []
        for info in store.list():
            assert store.stat(info.name) == info
            seen.append(info)
        assert len(seen) == 3

    def test_changes_while_listing(self, store: SnapshotStore) -> None:
        self._one_of_each(store)
        for info in store.list(["kind!=committed"]):
            store.remove(info.name)
        assert names(store) == {"c"}

    @pytest.mark.parametrize("name", ["", "a\0b", "x" * 4097, "\udc80"])
    def test_malformed_names_are_refused(self, store: SnapshotStore, name: str) -> None:
        for call in (store.prepare, store.view):
            with pytest.raises(InvalidArgument):
                call(name, "")
        store.prepare("key", "")
        with pytest.raises(InvalidArgument):
            store.commit(name, "key")
        with pytest.raises(InvalidArgument):
            store.import_committed(name, {}, _fill_nothing)
        assert names(store) == {"key"}

    def test_long_and_odd_names_are_names(self, store: SnapshotStore) -> None:
        odd = ["x" * 4096, "/abs/../path", "k8s.io/1/sha256:ab'\"; --", "späße \n\t%", "."]
        for name in odd:
            store.prepare(name, "", {name[:32]: name[:1000]})
        assert names(store) == set(odd)

    @pytest.mark.parametrize("labels", [{"": "x"}, {"k": "v" * 4096}, {"k\udc80": ""}])
    def test_malformed_labels_are_refused(self, store: SnapshotStore, labels: dict[str, str]) -> None:
        with pytest.raises(InvalidArgument):
            store.prepare("key", "", labels)
        with pytest.raises(InvalidArgument):
            store.view("key", "", labels)
        store.prepare("other", "")
        for call in (lambda: store.commit("key", "other", labels), lambda: store.update("other", labels)):
            with pytest.raises(InvalidArgument):
                call()
        store.commit("key", "other", {"k": "v" * 4095})
        assert names(store) == {"key"}

    # --- what a monitor gets, imports, space -------------------------------------------------------------------------------

    def test_disks(self, store: SnapshotStore) -> None:
        committed(store, "base", "", "base")
        store.prepare("a", "base")
        store.view("v", "base")
        disks = {name: store.disk(name) for name in ("base", "a", "v")}
        assert {name: disk.read_only for name, disk in disks.items()} == {"base": True, "a": False, "v": True}
        assert len({disk.size for disk in disks.values()}) == 1
        assert all(disk.format == "raw" and disk.backing is None for disk in disks.values())
        assert all(read_content(disk.path) == "base" for disk in disks.values())

    def test_import(self, store: SnapshotStore) -> None:
        def fill(fd: int) -> None:
            os.ftruncate(fd, 1 << 20)
            os.pwrite(fd, b"imported", 1 << 19)

        info = store.import_committed("image", {"a": "1"}, fill)
        assert info == store.stat("image")
        assert (info.parent, info.kind, dict(info.labels)) == ("", Kind.COMMITTED, {"a": "1"})
        assert store.disk("image").size == 1 << 20
        (mount,) = store.prepare("key", "image")
        assert read_content(mount.source) == "imported"
        with pytest.raises(AlreadyExists):
            store.import_committed("image", {}, _must_not_run)

    def test_a_failed_import_leaves_nothing(self, store: SnapshotStore) -> None:
        def fill(fd: int) -> None:
            os.write(fd, b"half")
            raise InvalidArgument("this image is refused")

        with pytest.raises(InvalidArgument, match="this image is refused"):
            store.import_committed("image", {}, fill)
        assert names(store) == set()
        store.import_committed("image", {}, _fill_nothing)
        assert names(store) == {"image"}

    def test_usage(self, store: SnapshotStore) -> None:
        committed(store, "base")
        store.view("v", "base")
        assert store.usage("v") == Usage(0, 0)
        (mount,) = store.prepare("a", "base")
        before = store.usage("a")
        fd = os.open(mount.source, os.O_WRONLY)
        os.pwrite(fd, os.urandom(1 << 20), _middle(fd))
        os.fsync(fd)
        os.close(fd)
        assert store.usage("a").size >= before.size + (1 << 20)
        store.commit("c", "a")
        assert store.usage("c").size >= 1 << 20
        assert store.usage("c") == store.usage("c")

    def test_cleanup_gives_space_back(self, store: SnapshotStore) -> None:
        committed(store, "base")
        store.prepare("a", "base")
        assert store.cleanup() == 0
        store.remove("a")
        assert store.cleanup() == 1
        assert store.cleanup() == 0

    def test_reconciling_leaves_the_living_alone(self, store: SnapshotStore) -> None:
        self._one_of_each(store)
        before = list(store.list())
        found = store.reconcile(lambda _token: False)
        assert (found.undone, found.files, found.faulty) == ((), 0, ())
        assert list(store.list()) == before

    def test_close_twice(self, tmp_path: os.PathLike[str]) -> None:
        store = self.open_store(os.fspath(tmp_path), "suite")
        store.prepare("key", "")
        store.close()
        store.close()


class PersistentSnapshotSuite(SnapshotSuite):
    """What stores must do whose contents outlive them, and that several consumers share."""

    def test_reopened(self, tmp_path: os.PathLike[str], store: SnapshotStore) -> None:
        committed(store, "base", "", "content")
        store.prepare("a", "base", {"l": "1"})
        store.view("v", "base")
        before, mounts = list(store.list()), store.mounts("a")
        store.close()
        again = self.open_store(os.fspath(tmp_path), "suite")
        assert list(again.list()) == before
        assert again.mounts("a") == mounts
        assert read_content(again.disk("a").path) == "content"
        again.close()

    def test_consumers_do_not_see_each_other(self, tmp_path: os.PathLike[str], store: SnapshotStore) -> None:
        other = self.open_store(os.fspath(tmp_path), "other")
        committed(store, "same", "", "mine")
        store.prepare("mine", "same")
        assert names(other) == set()
        for call in (other.stat, other.mounts, other.remove, other.usage, other.disk):
            with pytest.raises(NotFound):
                call("same")
        with pytest.raises(NotFound):
            other.prepare("key", "same")
        committed(other, "same", "", "others")
        other.prepare("mine", "same")
        other.remove("mine")
        other.remove("same")
        other.cleanup()
        assert names(store) == {"same", "mine"}
        assert read_content(store.disk("mine").path) == "mine"
        other.close()


def _fill_nothing(fd: int) -> None:
    os.ftruncate(fd, 1 << 20)


def _must_not_run(_fd: int) -> None:
    raise RuntimeError("the name was taken")
