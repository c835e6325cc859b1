"""The store of thin devices when something is wrong: a full pool, devices that are gone or in use, records that are lost, a reboot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lab_support.waiting import until
from thin_world import Pool, Process, made_pool
from unikeel.errors import FailedPrecondition, Internal, NotFound, ResourceExhausted, UnikeelError
from unikeel.kernel.devmapper import nodes, thin
from unikeel.snapshots.spares import SpareLimits
from unikeel.snapshots.thin.store import ThinStore
from unikeel.testing.snapshot_suite import committed, names, read_content, write_content


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    """A pool of 64 MiB."""
    with made_pool(tmp_path / "pool", data=1 << 26) as pool:
        yield pool


@pytest.fixture
def process(tmp_path: Path, pool: Pool) -> Iterator[Process]:
    """A store in it."""
    process = Process(tmp_path / "state", pool.ref)
    yield process
    process.close()


def _numbers(pool: Pool, store: ThinStore) -> set[int]:
    """The devices in the pool that are no base and no identity."""
    bases = {
        int(str(row[0])) for row in store._metadata._database.query("SELECT id FROM snapshots WHERE consumer = '@base'")
    }
    assert set(pool.devices()) <= store._devices.numbers()
    return store._devices.numbers() - bases - {0}


def test_data_runs_out(tmp_path: Path) -> None:
    """Writes fail, and with them the commit; what is there stays usable, and removing gives room back."""
    with made_pool(tmp_path / "pool", data=1 << 23) as pool:
        process = Process(tmp_path / "state", pool.ref)
        store = process.store
        committed(store, "base", "", "base")
        (mount,) = store.prepare("glutton", "base")
        with pytest.raises(OSError, match=r"space|Input/output"):
            _fill(mount.source)
        assert store._devices.status().mode == "out_of_data_space"
        with suppress(UnikeelError):
            store.commit("broken", "glutton")
        assert read_content(store.view("look", "base")[0].source) == "base"
        for name in names(store) - {"base", "look"}:
            store.remove(name)
        assert store.cleanup() == 1
        (mount,) = store.prepare("again", "base")
        write_content(mount, "fits")
        store.commit("small", "again")
        assert read_content(store.disk("small").path) == "fits"
        process.close()


def _fill(path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for offset in range(0, 1 << 24, 1 << 20):
            os.pwrite(fd, os.urandom(1 << 20), offset)
            os.fsync(fd)
    finally:
        with suppress(OSError):
            os.close(fd)


def test_refused_before_it_is_full(tmp_path: Path, pool: Pool) -> None:
    full = False

    def admit() -> None:
        if full:
            raise ResourceExhausted("the pool takes nothing new")

    process = Process(tmp_path / "state", pool.ref, admit=admit)
    store = process.store
    committed(store, "base")
    full = True
    for call in (lambda: store.prepare("new", "base"), lambda: store.import_committed("new", {}, lambda _fd: None)):
        with pytest.raises(ResourceExhausted):
            call()
    assert names(store) == {"base"}
    store.view("view", "base")
    process.close()


def test_devices_removed_underneath_come_back(pool: Pool, process: Process) -> None:
    store = process.store
    committed(store, "base", "", "base")
    write_content(store.prepare("active", "base")[0], "active")
    before = store.mounts("active"), store.view("view", "base")
    for number, name in pool.devices().items():
        nodes.remove(name)
        pool.control.remove(name)
        assert number not in pool.devices()
    assert (store.mounts("active"), store.mounts("view")) == before
    assert [read_content(store.disk(name).path) for name in ("active", "view", "base")] == ["active", "base", "base"]
    with pytest.raises(OSError, match="not permitted"):
        write_content(store.mounts("view")[0], "x")


def test_a_reboot(pool: Pool, process: Process) -> None:
    store = process.store
    committed(store, "base", "", "base")
    write_content(store.prepare("active", "base")[0], "active")
    store.view("view", "base")
    store.make_spares("base", 2)
    pool.deactivate()
    pool.activate()
    assert store.reconcile().faulty == ()
    assert store._spares.drop_resting() == 0
    assert len(_numbers(pool, store)) == 2  # base and active: the spares are gone
    assert [read_content(store.mounts(key)[0].source) for key in ("active", "view")] == ["active", "base"]
    store.commit("image", "active")
    assert read_content(store.view("new", "image")[0].source) == "active"


def test_a_device_in_use_is_taken_away_when_nobody_holds_it(pool: Pool, process: Process) -> None:
    store = process.store
    committed(store, "base")
    (mount,) = store.prepare("key", "base")
    fd = os.open(mount.source, os.O_RDONLY | os.O_CLOEXEC)
    store.remove("key")
    assert store.cleanup() == 0
    assert not os.path.lexists(mount.source)
    store.prepare("key", "base")
    os.close(fd)
    until(lambda: store.cleanup() == 1, "the device is gone with its last holder")
    assert len(_numbers(pool, store)) == 2
    assert store.reconcile().faulty == ()


def test_devices_that_nobody_wants_rest(pool: Pool, process: Process) -> None:
    """But for those of views, those that are open, and those that somebody was shown lately."""
    store = process.store
    for name in ("base", "viewed", "open"):
        committed(store, name, "", name)
    store.view("view", "viewed")
    holder = os.open(store.disk("open").path, os.O_RDONLY | os.O_CLOEXEC)
    assert store.rest(3600) == 0
    assert store.rest(0) == 1
    path = nodes.path(pool.ref.thin_name(store._metadata.find("base").id))
    assert not os.path.lexists(path)
    assert store._metadata.find("base").id not in pool.devices()
    os.close(holder)
    assert [read_content(store.disk(name).path) for name in ("base", "viewed", "open")] == ["base", "viewed", "open"]
    write_content(store.prepare("on it", "base")[0], "more")
    assert store.rest(0) == 2
    assert read_content(store.view("again", "base")[0].source) == "base"
    assert read_content(store.mounts("view")[0].source) == "viewed"


def test_a_commit_of_what_is_mounted_is_a_copy(process: Process) -> None:
    store = process.store
    (mount,) = store.prepare("key", "")
    write_content(mount, "then")
    holder = os.open(mount.source, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    store.commit("name", "key")
    os.pwrite(holder, b"later", 1 << 23)
    os.fsync(holder)
    os.close(holder)
    assert read_content(store.disk("name").path) == "then"
    assert store.cleanup() == 1
    assert names(store) == {"name"}


def test_lost_records(tmp_path: Path, pool: Pool, process: Process) -> None:
    """Without its records a pool is left alone, whatever it holds."""
    committed(process.store, "base")
    before = process.store._devices.numbers()
    with pytest.raises(FailedPrecondition, match=r"holds 2 devices that the record store knows nothing of: 1, 2"):
        Process(tmp_path / "another", pool.ref)
    with pytest.raises(UnikeelError, match="is not of the pool"):
        Process(tmp_path / "third", pool.ref._replace(uuid="0" * 32))
    assert process.store._devices.numbers() == before


def test_damaged_records(tmp_path: Path, pool: Pool, process: Process) -> None:
    committed(process.store, "base")
    before = process.store._devices.numbers()
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "records.db").write_bytes(os.urandom(8192))
    with pytest.raises(Internal, match="damaged"):
        Process(damaged, pool.ref)
    assert process.store._devices.numbers() == before


def test_records_of_another_pool(tmp_path: Path, process: Process) -> None:
    """A new pool of a known name is not the old one."""
    with made_pool(tmp_path / "other") as other:
        impostor = other.ref._replace(name=process.store._pool.name)
        with pytest.raises(UnikeelError, match="is not of the pool"):
            Process(tmp_path / "state", impostor)


def test_strays_go_and_what_is_missing_is_told(pool: Pool, process: Process) -> None:
    store = process.store
    committed(store, "base")
    committed(store, "lost", "base")
    pool.control.message(pool.ref.dm_name, thin.create_thin(5000))
    number = store._metadata.find("lost").id
    store._devices.hide(number)
    pool.control.message(pool.ref.dm_name, thin.delete(number))
    found = store.reconcile()
    assert (found.files, found.faulty) == (1, ("lost",))
    assert names(store) == {"base", "lost"}
    with pytest.raises(UnikeelError):
        store.view("view", "lost")
    assert names(store) == {"base", "lost"}
    store.remove("lost")
    store.cleanup()
    assert store.reconcile().faulty == ()


def test_a_foreign_device_of_our_name(pool: Pool, process: Process) -> None:
    store = process.store
    committed(store, "base")
    store._devices.hide(store._metadata.find("base").id)
    name = pool.ref.thin_name(store._metadata.find("base").id)
    pool.control.create(name, "SOMEBODY-else")
    with pytest.raises(FailedPrecondition, match="SOMEBODY"):
        store.view("view", "base")
    assert names(store) == {"base"}
    pool.control.remove(name)
    store.view("view", "base")


# --- spares -------------------------------------------------------------------------------------------------------------------


def test_a_spare_becomes_what_was_asked_for(process: Process) -> None:
    store = process.store
    committed(store, "base", "", "base")
    assert store.make_spares("base", 2) == 2
    assert names(store) == {"base"}
    paths = set()
    for key in ("one", "two", "three"):
        (mount,) = store.prepare(key, "base", {"l": key})
        assert read_content(mount.source) == "base"
        assert (store.stat(key).parent, dict(store.stat(key).labels)) == ("base", {"l": key})
        paths.add(mount.source)
    assert len(paths) == 3
    assert store._spares._records.all() == {}
    with pytest.raises(NotFound):
        store.make_spares("nobody", 1)


def test_a_spare_whose_device_is_gone(process: Process) -> None:
    store = process.store
    committed(store, "base", "", "base")
    store.make_spares("base", 1)
    (number,) = store._spares._records.all()
    assert store._devices.hide(number)
    assert store._devices.delete(number)
    with pytest.raises(UnikeelError):
        store.prepare("key", "base")
    assert names(store) == {"base"}
    (mount,) = store.prepare("key", "base")
    assert read_content(mount.source) == "base"


def test_a_spare_does_not_keep_its_parent(pool: Pool, process: Process) -> None:
    store = process.store
    committed(store, "base")
    store.make_spares("base", 3)
    store.remove("base")
    assert store.cleanup() == 4
    assert _numbers(pool, store) == set()


def test_spares_are_made_for_parents_in_demand_and_given_back(pool: Pool, process: Process) -> None:
    scarce = False
    store = ThinStore(
        pool.ref,
        process.database,
        consumer="test",
        owner=process.owner.token,
        empty_size=1 << 24,
        scarce=lambda: scarce,
        spares=SpareLimits(per_parent=2, total=3),
    )
    committed(store, "base", "", "base")
    committed(store, "other", "base")
    store.prepare("ns/1/extract-1 sha256:x", "other")
    for key in ("a", "b", "c"):
        store.prepare(key, "base")
    records = store._spares._records
    base = store._metadata.find("base").id
    until(lambda: list(records.all().values()).count(base) == 2, "spares for the base")
    scarce = True
    store.prepare("d", "base")
    until(lambda: not records.all(), "spares given back")
    store.close()


def test_the_consumers_of_a_store_are_not_ours(tmp_path: Path, pool: Pool) -> None:
    with pytest.raises(UnikeelError, match="@base"):
        Process(tmp_path / "state", pool.ref, "@base")
