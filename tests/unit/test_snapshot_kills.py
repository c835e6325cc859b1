"""A store killed at any recorded step, and many stores at once on the same directory."""

from __future__ import annotations

import hashlib
import importlib
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import unikeel.records.failpoint
from file_store_process import FileStoreProcess
from unikeel.errors import AlreadyExists, FailedPrecondition, NotFound
from unikeel.snapshots.contract import RAW_OR_QCOW2, Kind
from unikeel.snapshots.file_store import FileStore
from unikeel.testing.snapshot_suite import names, read_content, write_content

Call = Callable[[FileStore], object]


def _child(root: Path, call: Call, **environment: str) -> int:
    """Run a call in a process of its own, with fail points set; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.environ.update(environment)
        importlib.reload(unikeel.records.failpoint)
        call(FileStoreProcess(root).store)
        status = 0
    except Exception:  # noqa: BLE001 (a child must not return into the test)
        traceback.print_exc()
    finally:
        os._exit(status)


def _points(root: Path, call: Call) -> list[str]:
    """The fail points that a call passes."""
    trace = root / "trace"
    _, status = os.waitpid(_child(root, call, UNIKEEL_FAILPOINT_TRACE=str(trace)), 0)
    assert status == 0
    return trace.read_text().split()


@contextmanager
def _stopped_at(root: Path, call: Call, point: str) -> Iterator[int]:
    """A process that runs a call and stopped at a fail point; at the end it is killed, if it was not waited for."""
    pid = _child(root, call, UNIKEEL_FAILPOINT=point)
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), f"{point} was not reached"
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _kill_at(root: Path, call: Call, point: str) -> None:
    """Run a call in a process that is killed when it reaches a fail point."""
    with _stopped_at(root, call, point):
        pass


def _set_up(root: Path) -> str:
    """A base, an active snapshot on it and a removed one; returns the digest of the base."""
    root.mkdir()
    process = FileStoreProcess(root)
    store = process.store
    store.import_committed("base", {}, lambda fd: os.pwrite(fd, os.urandom(1 << 16), 0))
    (mount,) = store.prepare("active", "base")
    write_content(mount, "by the guest")
    store.prepare("removed", "base")
    store.remove("removed")
    process.close()
    return _digest(root / "images" / "1.img")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _check_consistent(root: Path, process: FileStoreProcess, digest: str) -> None:
    """What must hold after reconciling, whatever happened before."""
    found = process.store.reconcile()
    assert found.faulty == ()
    again = process.store.reconcile()
    assert (again.undone, again.files, again.faulty) == ((), 0, ())
    own = {int(str(row[0])) for row in process.database.query("SELECT id FROM snapshots WHERE how != 'parent'")}
    files = {path.name for path in (root / "images").iterdir()}
    assert files == {f"{number}.img" for number in own} | {"store-id"}
    assert process.database.query("SELECT id FROM snapshots WHERE state != 'ready'") == []
    assert process.database.query("SELECT id FROM snapshot_trash") == []
    assert _digest(root / "images" / "1.img") == digest
    for info in process.store.list():
        disk = process.store.disk(info.name)
        mode = os.stat(disk.path).st_mode & 0o777
        assert mode == (0o600 if info.kind is Kind.ACTIVE else 0o400)


def _import(store: FileStore) -> None:
    store.import_committed("image", {"l": "1"}, lambda fd: os.ftruncate(fd, 1 << 20))


#: Each call, and the name that it makes or takes away.
_CALLS: dict[str, tuple[Call, str]] = {
    "prepare-copy": (lambda store: store.prepare("new", "base", {"l": "1"}), "new"),
    "prepare-overlay": (lambda store: store.prepare("new", "base", formats=RAW_OR_QCOW2), "new"),
    "prepare-empty": (lambda store: store.prepare("new", ""), "new"),
    "view": (lambda store: store.view("new", "base"), "new"),
    "view-empty": (lambda store: store.view("new", ""), "new"),
    "import": (_import, "image"),
    "commit": (lambda store: store.commit("new", "active"), "new"),
    "remove": (lambda store: store.remove("active"), "active"),
    "cleanup": (lambda store: store.cleanup(), ""),
}


@pytest.mark.parametrize("title", list(_CALLS))
def test_killed_at_every_step(tmp_path: Path, title: str) -> None:
    call, name = _CALLS[title]
    _set_up(tmp_path / "trace")
    points = _points(tmp_path / "trace", call)
    assert points
    for point in points:
        root = tmp_path / point
        digest = _set_up(root)
        _kill_at(root, call, point)
        process = FileStoreProcess(root)
        _check_consistent(root, process, digest)
        present = names(process.store)
        if title == "commit":
            assert len(present & {"active", "new"}) == 1
            assert read_content(process.store.disk((present & {"active", "new"}).pop()).path) == "by the guest"
        if point.endswith(".done"):
            assert (name in present) == (title != "remove")
        elif name and name not in present and title != "remove":
            call(process.store)
            assert name in names(process.store)
        _check_consistent(root, process, digest)
        process.close()


@pytest.mark.parametrize("look", [FileStore.mounts, FileStore.disk])
def test_a_commit_killed_after_sealing_leaves_the_snapshot_writable(
    tmp_path: Path, look: Callable[[FileStore, str], object]
) -> None:
    root = tmp_path / "root"
    _set_up(root)
    _kill_at(root, _CALLS["commit"][0], "snapshots.commit.sealed")
    image = root / "images" / "2.img"
    assert image.stat().st_mode & 0o777 == 0o400
    process = FileStoreProcess(root)
    look(process.store, "active")
    assert image.stat().st_mode & 0o777 == 0o600
    process.close()


def test_killed_while_undoing(tmp_path: Path) -> None:
    """The reconciliation itself is killed; the next one finishes."""
    root = tmp_path / "root"
    digest = _set_up(root)
    _kill_at(root, _CALLS["prepare-copy"][0], "snapshots.prepare.made")
    _kill_at(root, lambda store: store.reconcile(), "snapshots.undo.unlinked")
    process = FileStoreProcess(root)
    assert process.store.reconcile().undone == ("new",)
    _check_consistent(root, process, digest)
    process.close()


def test_a_wanted_name_is_taken_over_from_the_dead_but_not_from_the_living(tmp_path: Path) -> None:
    root = tmp_path / "root"
    _set_up(root)
    call = _CALLS["import"][0]
    process = FileStoreProcess(root)
    with _stopped_at(root, call, "snapshots.import.made"):
        with pytest.raises(AlreadyExists, match="being made"):
            call(process.store)
        with pytest.raises(NotFound):
            process.store.stat("image")
        assert process.store.reconcile().undone == ()
    call(process.store)
    assert process.store.stat("image").kind is Kind.COMMITTED
    process.close()


def test_a_parent_is_kept_while_a_child_is_being_made(tmp_path: Path) -> None:
    root = tmp_path / "root"
    digest = _set_up(root)
    process = FileStoreProcess(root)
    with _stopped_at(root, _CALLS["prepare-copy"][0], "snapshots.prepare.recorded") as pid:
        process.store.remove("active")
        with pytest.raises(FailedPrecondition, match="remove"):
            process.store.remove("base")
        os.kill(pid, signal.SIGCONT)
        _, status = os.waitpid(pid, 0)
        assert status == 0
    assert names(process.store) == {"base", "new"}
    _check_consistent(root, process, digest)
    process.close()


def test_eight_processes_at_once(tmp_path: Path) -> None:
    """All get their own snapshots; of one key that all want, exactly one gets it."""
    root = tmp_path / "root"
    digest = _set_up(root)
    gate, opener = os.pipe()

    def work(number: int) -> Call:
        def call(store: FileStore) -> None:
            os.close(opener)
            os.read(gate, 1)
            for index in range(4):
                store.prepare(f"{number}-{index}", "base", formats=RAW_OR_QCOW2)
            try:
                store.prepare("wanted", "base", {"by": str(number)})
            except AlreadyExists:
                store.prepare(f"{number}-lost", "base")
            store.remove(f"{number}-0")
            store.cleanup()
            store.reconcile()

        return call

    children = [_child(root, work(number)) for number in range(8)]
    os.close(opener)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 8
    process = FileStoreProcess(root)
    winner = process.store.stat("wanted").labels["by"]
    expected = {f"{number}-{index}" for number in range(8) for index in (1, 2, 3)}
    expected |= {f"{number}-lost" for number in range(8) if str(number) != winner}
    assert names(process.store) == expected | {"base", "active", "wanted"}
    _check_consistent(root, process, digest)
    os.close(gate)
    process.close()
