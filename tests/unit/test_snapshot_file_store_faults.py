"""What the file store does when the disk, the directory or a caller misbehaves."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from unikeel.errors import BadContent, FailedPrecondition, PermissionDenied, ResourceExhausted, Unavailable
from unikeel.records.database import Database
from unikeel.snapshots import file_store
from unikeel.snapshots.contract import RAW_OR_QCOW2, How
from unikeel.snapshots.file_store import FileStore
from unikeel.snapshots.image_files import ImageFiles
from unikeel.testing.snapshot_suite import names


def _open(root: Path, database: Database | None = None) -> FileStore:
    database = database or Database(str(root / "records.db"))
    return FileStore(str(root / "images"), database, consumer="test", owner="test", empty_size=1 << 24)


def _fill(fd: int) -> None:
    os.ftruncate(fd, 1 << 20)
    os.pwrite(fd, b"content", 4096)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FileStore]:
    store = _open(tmp_path)
    store.import_committed("base", {}, _fill)
    yield store
    store.close()


def _files(root: Path) -> set[str]:
    return {name for name in os.listdir(root / "images") if name != "store-id"}


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, ResourceExhausted),
        (errno.EFBIG, ResourceExhausted),
        (errno.EROFS, PermissionDenied),
        (errno.EIO, Unavailable),
    ],
)
def test_a_failed_prepare_leaves_nothing(
    tmp_path: Path, store: FileStore, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    def fail(_source: int, target: int, _formats: frozenset[str]) -> How:
        os.write(target, b"half")
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(file_store, "make_writable", fail)
        with pytest.raises(error, match="'new'"):
            store.prepare("new", "base")
    assert names(store) == {"base"}
    assert _files(tmp_path) == {"1.img"}
    store.prepare("new", "base")


def test_a_failed_commit_leaves_the_snapshot_active_and_writable(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.prepare("key", "base")

    def full(_files: object, fd: int) -> None:
        os.fchmod(fd, 0o400)
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(ImageFiles, "seal", full)
        with pytest.raises(ResourceExhausted):
            store.commit("name", "key")
    assert names(store) == {"base", "key"}
    assert stat.S_IMODE(os.stat(store.disk("key").path).st_mode) == 0o600
    store.commit("name", "key")
    assert stat.S_IMODE(os.stat(store.disk("name").path).st_mode) == 0o400


def test_committed_images_keep_their_inode_and_bytes(store: FileStore) -> None:
    before = os.stat(store.disk("base").path)
    store.prepare("raw", "base")
    store.prepare("overlay", "base", formats=RAW_OR_QCOW2)
    store.view("view", "base")
    store.commit("child", "raw")
    after = os.stat(store.disk("base").path)
    assert (before.st_ino, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_ino,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )


def test_an_overlay_names_its_backing_and_is_not_committed(store: FileStore) -> None:
    (mount,) = store.prepare("key", "base", formats=RAW_OR_QCOW2)
    disk = store.disk("key")
    assert (disk.format, disk.backing, disk.how) == ("qcow2", store.disk("base").path, How.QCOW2)
    assert (disk.size, disk.read_only) == (1 << 20, False)
    assert (mount.type, mount.source) == ("qcow2", disk.path)
    assert store.mounts("key") == [mount]
    assert store.usage("key").size <= 64 << 10
    with pytest.raises(FailedPrecondition, match="overlay"):
        store.commit("name", "key")
    assert names(store) == {"base", "key"}


def test_a_missing_image_is_reported_and_nothing_is_changed(tmp_path: Path, store: FileStore) -> None:
    store.prepare("key", "base")
    (tmp_path / "images" / "1.img").unlink()
    assert store.reconcile().faulty == ("base",)
    with pytest.raises(BadContent, match=r"1\.img"):
        store.prepare("new", "base")
    assert names(store) == {"base", "key"}


def test_files_without_a_record_are_taken_away_and_others_left(tmp_path: Path, store: FileStore) -> None:
    images = tmp_path / "images"
    for name in ("77.img", "077.img", "x.img", "77.img.bak", "notes", "٣.img"):
        (images / name).touch()
    assert store.reconcile().files == 1
    assert _files(tmp_path) == {"1.img", "077.img", "x.img", "77.img.bak", "notes", "٣.img"}


def test_images_of_a_lost_record_store_are_not_garbage(tmp_path: Path, store: FileStore) -> None:
    foreign = Database(str(tmp_path / "new.db"))
    with pytest.raises(FailedPrecondition, match="another record store"):
        _open(tmp_path, foreign)
    assert _files(tmp_path) == {"1.img"}
    assert names(store) == {"base"}


def test_a_record_store_without_its_images_is_refused(tmp_path: Path, store: FileStore) -> None:
    (tmp_path / "images").rename(tmp_path / "away")
    with pytest.raises(FailedPrecondition, match="does not belong"):
        _open(tmp_path)
    (tmp_path / "images").rmdir()
    (tmp_path / "away").rename(tmp_path / "images")
    again = _open(tmp_path)
    assert names(again) == names(store) == {"base"}
    again.close()


def test_an_empty_store_whose_directory_went_starts_anew(tmp_path: Path, store: FileStore) -> None:
    store.remove("base")
    store.cleanup()
    (tmp_path / "images").rename(tmp_path / "away")
    again = _open(tmp_path)
    again.prepare("key", "")
    assert _files(tmp_path) == {"2.img"}
    again.close()


def test_an_interrupted_first_opening_is_repeated(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "store-id").write_text("of a transaction that never came\n")
    store = _open(tmp_path)
    store.prepare("key", "")
    store.close()


def test_directory_and_files_are_private(tmp_path: Path, store: FileStore) -> None:
    store.prepare("key", "base")
    assert stat.S_IMODE((tmp_path / "images").stat().st_mode) == 0o700
    modes = {name: stat.S_IMODE((tmp_path / "images" / name).stat().st_mode) for name in _files(tmp_path)}
    assert modes == {"1.img": 0o400, "2.img": 0o600}
