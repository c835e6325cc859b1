"""What is kept of made disks: who uses them, when they go, and what a dead process leaves. The images are written by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from unikeel.boot.contract import Parent
from unikeel.engine.made import CONSUMER, MadeDisks, labels_of, parent_of
from unikeel.records.database import Database
from unikeel.snapshots.contract import RAW_OR_QCOW2
from unikeel.snapshots.file_store import FileStore

PARENT = Parent("containerd:/run/c.sock:uuid", "k8s.io", "overlayfs", "sha256:abc", 7, "", True)


def opened(directory: Path, owner: str) -> MadeDisks:
    database = Database(os.path.join(directory, "records.db"))
    store = FileStore(os.path.join(directory, "snapshots"), database, consumer=CONSUMER, owner=owner)
    return MadeDisks(store)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[MadeDisks]:
    disks = opened(tmp_path, "one")
    yield disks
    disks.close()


def fill(fd: int) -> None:
    os.truncate(fd, 1 << 20)
    os.pwrite(fd, b"content", 4096)


def image(made: MadeDisks, *users: str) -> str:
    made.store.import_committed(PARENT.key, labels_of(PARENT), fill)
    for user in users:
        made.store.prepare(user, PARENT.key, formats=RAW_OR_QCOW2)
    return PARENT.key


def never(_parent: Parent) -> bool:
    return False


def images(tmp_path: Path) -> int:
    return sum(name.endswith(".img") for name in os.listdir(tmp_path / "snapshots"))


def test_an_image_knows_its_parent() -> None:
    assert parent_of(labels_of(PARENT)) == PARENT
    assert parent_of({}).created_ns == 0


def test_it_is_listed_with_its_users(made: MadeDisks) -> None:
    image(made, "t1", "t2")
    (holding,) = made.listing()
    assert (holding.kind, holding.name, holding.parents, holding.users) == (
        "disk",
        PARENT.key,
        ("sha256:abc",),
        ("t1", "t2"),
    )
    assert (holding.namespace, holding.snapshotter, holding.reclaimable) == ("k8s.io", "overlayfs", False)
    assert holding.size >= 4096


def test_it_goes_after_its_last_user(made: MadeDisks, tmp_path: Path) -> None:
    image(made, "t1", "t2")
    assert made.collect() == []
    made.release("t1")
    made.release("t1")
    made.release("nobody")
    assert made.collect() == []
    used = made.store.stat(PARENT.key).updated_ns
    made.release("t2")
    assert made.store.stat(PARENT.key).updated_ns > used
    assert parent_of(made.store.stat(PARENT.key).labels) == PARENT
    assert [freed.kind for freed in made.collect()] == ["disk"]
    assert (made.listing(), images(tmp_path)) == ([], 0)


def test_it_lingers(made: MadeDisks, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("unikeel.engine.made.time.monotonic", lambda: now[0])
    image(made, "t1")
    assert made.tick(10, never) == []
    made.release("t1")
    assert made.tick(10, never) == []
    now[0] += 9
    assert made.tick(10, never) == []
    made.store.prepare("t2", PARENT.key)
    assert made.tick(10, never) == []
    made.release("t2")
    now[0] += 9
    assert made.tick(10, never) == []
    now[0] += 10
    assert [freed.name for freed in made.tick(10, never)] == [PARENT.key]


def test_a_use_between_two_ticks_counts(made: MadeDisks, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("unikeel.engine.made.time.monotonic", lambda: now[0])
    image(made)
    assert made.tick(10, never) == []
    now[0] += 6
    made.store.prepare("t1", PARENT.key)
    made.release("t1")
    assert made.tick(10, never) == []
    now[0] += 6
    assert made.tick(10, never) == []
    now[0] += 10
    assert [freed.name for freed in made.tick(10, never)] == [PARENT.key]


def test_it_goes_with_its_parent_which_is_asked_for_now_and_then(
    made: MadeDisks, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("unikeel.engine.made.time.monotonic", lambda: now[0])
    asked: list[Parent] = []

    def gone(parent: Parent) -> bool:
        asked.append(parent)
        return len(asked) > 1

    image(made)
    assert made.tick(1000, gone) == []
    now[0] += 5
    assert made.tick(1000, gone) == []
    assert asked == [PARENT]
    now[0] += 60
    assert [freed.name for freed in made.tick(1000, gone)] == [PARENT.key]


def test_a_parent_that_is_gone_and_in_use_is_not_asked_for(made: MadeDisks) -> None:
    image(made, "t1")
    assert made.tick(0, lambda _parent: True) == []


def test_orphans_are_found(made: MadeDisks) -> None:
    image(made, "t1", "t2")
    freed = made.reconcile(lambda _owner: False, lambda task: task == "t2")
    assert [item.name for item in freed] == ["t1"]
    assert made.listing()[0].users == ("t2",)


def test_half_made_images_of_the_dead_go(made: MadeDisks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Died(BaseException):
        pass

    def dies(fd: int) -> None:
        fill(fd)
        raise Died

    with monkeypatch.context() as patch:  # what a kill leaves: the record and the file
        patch.setattr(made.store._tidier, "undo", lambda _record: None)
        with pytest.raises(Died):
            made.store.import_committed(PARENT.key, labels_of(PARENT), dies)
    assert images(tmp_path) == 1
    assert made.reconcile(lambda _owner: False, lambda _task: True) == []
    other = opened(tmp_path, "two")
    assert [item.name for item in other.reconcile(lambda owner: owner == "one", lambda _task: True)] == [PARENT.key]
    assert images(tmp_path) == 0
    other.close()
