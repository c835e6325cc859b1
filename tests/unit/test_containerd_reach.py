"""Views through containerd: one for each parent and purpose, under a lease, recorded before it is made; whatever fails, nothing is left for ever."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from containerd_stages import CHAIN, CONSUMER, SNAPSHOTTER, ContainerdWorld
from unikeel.boot.contract import FILL, OWN, SHARED, HostMount, Parent
from unikeel.boot.reaching import reach
from unikeel.containerd import leasing
from unikeel.containerd.identify import Identifier, consumer_of
from unikeel.containerd.records import LeaseResource, Mount
from unikeel.errors import InvalidArgument, NotFound, ResourceExhausted, Unavailable
from unikeel.kernel.fd import OwnedFd

MOUNTS = (Mount("ext4", "/images/one", "", ("ro", "loop")),)
HOST = (HostMount("ext4", "/images/one", ("ro", "loop")),)


def plain(path: str) -> OwnedFd:
    return OwnedFd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


Opener = Callable[[], ContainerdWorld]


@pytest.fixture
def opened(tmp_path: os.PathLike[str]) -> Iterator[Opener]:
    worlds: list[ContainerdWorld] = []

    def make() -> ContainerdWorld:
        worlds.append(ContainerdWorld(os.path.join(tmp_path, "root"), MOUNTS, door=plain))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def world(opened: Opener) -> ContainerdWorld:
    return opened()


@pytest.fixture
def parent(world: ContainerdWorld) -> Parent:
    return world.source().parent


def settle(world: ContainerdWorld) -> None:
    """Wait until what was read is given back."""
    deadline = time.monotonic() + 30
    while any(row.purpose == FILL for row in world.rows.all()):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_view_has_a_lease_and_says_whose_it_is(world: ContainerdWorld, parent: Parent) -> None:
    reached = world.reach.reach(parent, SHARED)
    assert (reached.mounts, world.views()) == (HOST, [reached.view])
    (row,) = world.rows.all()
    (lease,) = world.containerd.leases.names()
    assert (row.view, row.lease, row.parent_key) == (reached.view, lease, parent.key)
    assert reached.view.startswith(f"unikeel-{world.reach.instance}-")
    labels = world.snapshots._info(reached.view).labels
    assert labels == {leasing.INSTANCE: world.reach.instance, leasing.PARENT: CHAIN, leasing.PURPOSE: SHARED}
    world.containerd.collect(SNAPSHOTTER)
    assert world.views() == [reached.view]


def test_again_is_the_same_view(world: ContainerdWorld, parent: Parent) -> None:
    first = world.reach.reach(parent, SHARED)
    again = world.reach.reach(parent, SHARED)
    assert first == again
    assert world.containerd.state.calls.count("view") == 1


def test_a_view_is_never_there_before_its_lease(world: ContainerdWorld, parent: Parent) -> None:
    """Both are asked for at once; a snapshotter that is faster than the lease has its view taken back, and is asked again."""
    world.containerd.state.slow_view = 0
    reached = world.reach.reach(parent, SHARED)
    assert (reached.mounts, world.views()) == (HOST, [reached.view])
    assert world.containerd.state.calls == ["view", "lease", "view"]
    world.containerd.collect(SNAPSHOTTER)
    assert world.views() == [reached.view]


def test_a_parent_that_is_gone_leaves_no_lease(world: ContainerdWorld, parent: Parent) -> None:
    with pytest.raises(NotFound):
        world.reach.reach(parent._replace(name="sha256:gone"), SHARED)
    assert world.leftovers() == []
    assert world.containerd.leases.names() == []


def test_purposes_and_containers_have_views_of_their_own(world: ContainerdWorld, parent: Parent) -> None:
    views = {
        world.reach.reach(parent, SHARED).view,
        world.reach.reach(parent, OWN, "a").view,
        world.reach.reach(parent, OWN, "b").view,
        world.reach.reach(parent._replace(created_ns=2), SHARED).view,
    }
    assert len(views) == 4
    world.reach.give_back(parent.key, OWN, "a")
    world.reach.give_back(parent.key, OWN, "a")
    assert len(world.views()) == len(world.containerd.leases.names()) == len(world.rows.all()) == 3


def test_what_was_read_is_given_back(world: ContainerdWorld, parent: Parent) -> None:
    with world.reach.reach(parent, FILL) as reached:
        assert world.views() == [reached.view]
        world.reach.tend()
        assert world.views() == [reached.view]
    reached.close()
    settle(world)
    assert world.leftovers() == []


def test_32_at_once_make_one(world: ContainerdWorld, parent: Parent) -> None:
    with ThreadPoolExecutor(32) as pool:
        answers = set(pool.map(lambda _n: world.reach.reach(parent, SHARED), range(32)))
    assert len(answers) == 1
    assert world.containerd.state.calls.count("view") == 1


@pytest.mark.parametrize("call", ["lease", "view"])
@pytest.mark.parametrize("late", [False, True])
def test_what_fails_leaves_nothing(world: ContainerdWorld, parent: Parent, call: str, *, late: bool) -> None:
    faults = world.containerd.state.late if late else world.containerd.state.faults
    faults[call] = [ResourceExhausted("no space left in the pool")]
    with pytest.raises(Unavailable, match="no space left in the pool"):
        reach(world.reach, parent, SHARED)
    assert world.leftovers() == []
    assert reach(world.reach, parent, SHARED).mounts == HOST


def test_containerd_goes_after_the_view_and_comes_again(world: ContainerdWorld, parent: Parent) -> None:
    gone = Unavailable("containerd does not answer")
    state = world.containerd.state
    state.late["view"] = [gone]
    for call in ("unlease", "mounts", "remove"):
        state.faults[call] = [gone] * 2
    with pytest.raises(Unavailable):
        world.reach.reach(parent, SHARED)
    assert (len(world.views()), len(world.rows.all())) == (1, 1)
    for call in ("unlease", "mounts", "remove"):
        state.faults[call] = []
    assert world.reach.reach(parent, SHARED).mounts == HOST
    assert state.calls.count("view") == 1
    world.containerd.collect(SNAPSHOTTER)
    assert len(world.views()) == 1
    world.reach.give_back(parent.key, SHARED)
    assert world.leftovers() == []


def test_a_missing_parent_is_unavailable(world: ContainerdWorld, parent: Parent) -> None:
    with pytest.raises(NotFound):
        world.reach.reach(parent._replace(name="sha256:none"), SHARED)
    with pytest.raises(Unavailable, match=r"sha256:none cannot be reached"):
        reach(world.reach, parent._replace(name="sha256:none"), SHARED)
    assert world.leftovers() == []


def test_unknown_consumers_are_not_served(world: ContainerdWorld, parent: Parent) -> None:
    with pytest.raises(Unavailable, match="not connected"):
        world.reach.reach(parent._replace(consumer="engine"), SHARED)
    assert [world.reach.serves(one) for one in ("engine", CONSUMER, consumer_of("/other", "uuid"))] == [
        False,
        True,
        False,
    ]


def test_a_view_that_was_taken_away_is_made_again(world: ContainerdWorld, parent: Parent) -> None:
    reached = world.reach.reach(parent, SHARED)
    world.snapshots._shelf.remove(reached.view)
    assert world.reach.reach(parent, SHARED) == reached
    (row,) = world.rows.all()
    assert (world.containerd.leases.names(), row.old_lease) == ([row.lease], "")


def test_a_view_without_a_record_is_taken_as_it_is(world: ContainerdWorld, parent: Parent) -> None:
    reached = world.reach.reach(parent, SHARED)
    world.rows.remove(world.rows.all()[0])
    assert world.reach.reach(parent, SHARED) == reached
    world.containerd.collect(SNAPSHOTTER)
    assert world.views() == [reached.view]


def test_what_cannot_go_now_goes_later(world: ContainerdWorld, parent: Parent) -> None:
    world.reach.reach(parent, OWN, "c1")
    world.containerd.state.faults["remove"] = [Unavailable("away")]
    world.reach.give_back(parent.key, OWN, "c1")
    assert [row.giving for row in world.rows.all()] == [True]
    world.reach.tend()
    assert world.leftovers() == []


def test_what_was_to_go_may_be_wanted_again(world: ContainerdWorld, parent: Parent) -> None:
    world.reach.reach(parent, SHARED)
    world.containerd.state.faults["remove"] = [Unavailable("away")]
    with pytest.raises(Unavailable):
        world.reach.give_back(parent.key, SHARED)
    world.reach.reach(parent, SHARED)
    world.reach.tend()
    (row,) = world.rows.all()
    assert (row.giving, world.views(), world.containerd.leases.names()) == (False, [row.view], [row.lease])


def test_at_half_time_another_lease_takes_over(world: ContainerdWorld, parent: Parent) -> None:
    reached = world.reach.reach(parent, SHARED)
    (row,) = world.rows.all()
    world.reach.tend()
    assert world.rows.all() == [row]
    world.rows.put(row._replace(leased_ns=row.leased_ns - 13 * 3600 * 10**9))
    world.reach.tend()
    (now,) = world.rows.all()
    assert world.containerd.leases.names() == [now.lease] != [row.lease]
    world.containerd.collect(SNAPSHOTTER)
    assert world.views() == [reached.view]


@pytest.mark.parametrize("call", ["lease", "add_resource", "unlease"])
@pytest.mark.parametrize("late", [False, True])
def test_taking_over_may_be_interrupted(world: ContainerdWorld, parent: Parent, call: str, *, late: bool) -> None:
    reached = world.reach.reach(parent, SHARED)
    (row,) = world.rows.all()
    world.rows.put(row._replace(leased_ns=1))
    faults = world.containerd.state.late if late else world.containerd.state.faults
    faults[call] = [Unavailable("away")]
    for _ in range(2):
        world.reach.tend()
        world.containerd.collect(SNAPSHOTTER)
        assert world.views() == [reached.view]
    (now,) = world.rows.all()
    assert (world.containerd.leases.names(), now.old_lease) == ([now.lease], "")


def test_the_next_daemon_finds_and_removes(opened: Opener) -> None:
    first = opened()
    parent = first.source().parent
    shared = first.reach.reach(parent, SHARED).view
    first.reach.reach(parent, FILL)
    first.reach.reach(parent, OWN, "without a record")
    first.close()
    second = opened()
    freed = second.reach.sweep(CONSUMER)
    assert sorted(gone.kind for gone in freed) == [FILL, OWN]
    assert second.views() == [shared]
    second.files.drop_idle()
    assert second.leftovers() == []


def test_the_sweep_takes_what_nobody_claims_and_only_ours(world: ContainerdWorld, parent: Parent) -> None:
    world.reach.reach(parent, SHARED)
    world.rows.remove(world.rows.all()[0])
    strangers = {
        "unikeel-0123456789abcdef-shared-1": {leasing.INSTANCE: "0123456789abcdef"},
        "theirs": {leasing.INSTANCE: world.reach.instance},
        f"unikeel-{world.reach.instance}-shared-unlabelled": {},
    }
    for name, labels in strangers.items():
        world.snapshots._put(name, CHAIN, "view", [], labels, 1)
    freed = world.reach.sweep(CONSUMER)
    assert sorted(gone.kind for gone in freed) == ["lease", "view"]
    assert sorted(world.views()) == sorted(strangers)
    assert world.containerd.leases.names() == []
    assert world.reach.sweep(CONSUMER) == []


def test_a_lease_without_its_view_is_swept(world: ContainerdWorld, parent: Parent) -> None:
    reached = world.reach.reach(parent, SHARED)
    world.rows.remove(world.rows.all()[0])
    world.snapshots._shelf.remove(reached.view)
    assert [gone.kind for gone in world.reach.sweep(CONSUMER)] == ["lease"]
    assert world.leftovers() == []


def test_the_records_of_an_earlier_containerd_at_the_address_go(world: ContainerdWorld) -> None:
    parent = world.source().parent
    world.reach.reach(parent, SHARED)
    newer = consumer_of("/run/fake.sock", "another")
    world.reach.detach(CONSUMER)
    world.reach.attach(Identifier(world.containerd, newer), world.containerd)
    assert world.reach.serves(CONSUMER)
    world.reach.sweep(newer)
    assert world.leftovers() == []


def test_a_snapshotter_that_is_no_longer_loaded(world: ContainerdWorld, parent: Parent) -> None:
    world.reach.reach(parent, SHARED)
    world.snapshots._shelf.remove(world.views()[0])
    world.containerd.state.faults["remove"] = [InvalidArgument("snapshotter not loaded")]
    world.reach.give_back(parent.key, SHARED)
    assert world.leftovers() == []


def test_other_calls_go_on_while_one_is_slow(world: ContainerdWorld, parent: Parent) -> None:
    held = threading.Event()
    with world.reach._one_at_a_time((parent.key, SHARED, "")):

        def other() -> None:
            world.reach.reach(parent, SHARED)
            held.set()

        thread = threading.Thread(target=other)
        thread.start()
        assert world.reach.reach(parent, OWN, "c").mounts == HOST
        assert not held.is_set()
    thread.join()
    assert held.is_set()


def test_a_lease_keeps_the_view_by_name(world: ContainerdWorld, parent: Parent) -> None:
    view = world.reach.reach(parent, SHARED).view
    (lease,) = world.containerd.leases.names()
    from unikeel.testing.boot_containerd import resources_of

    kept = resources_of(world.containerd.leases._shelf, lease)
    assert kept == [LeaseResource(f"snapshots/{SNAPSHOTTER}", view)]
