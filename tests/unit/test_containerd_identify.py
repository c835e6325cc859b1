"""From a container to its parent and image: what is asked, what is remembered, what is trusted, what is refused."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable

import pytest

from containerd_stages import CONSUMER, SNAPSHOTTER, ContainerdWorld
from unikeel.containerd.identify import ContainerFacts, Identifier, address_of, consumer_of
from unikeel.containerd.records import COMMITTED, ContainerRecord, Descriptor, ImageRecord
from unikeel.containerd.trust import chain_ids, is_trusted
from unikeel.errors import BadContent, FailedPrecondition, NotFound
from unikeel.images import digests, manifests
from unikeel.kernel.fd import OwnedFd

DIFFS = tuple(digests.of(bytes([n])) for n in range(3))
TOP = digests.chain_id(DIFFS)
IMAGE = "example.org/image:1"


def plain(path: str) -> OwnedFd:
    return OwnedFd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


class Stage:
    """A containerd with an image and a container of it."""

    def __init__(self, world: ContainerdWorld) -> None:
        self.world = world
        self.store = world.containerd.store
        self.identifier = Identifier(world.containerd, CONSUMER)
        self.manifest = self.add_image(DIFFS)
        self.store.image_records[IMAGE] = ImageRecord(IMAGE, self.manifest)
        below = ""
        for name in chain_ids(DIFFS):
            world.snapshots.commit(name, below, (), created_ns=5)
            below = name
        self.add_container("c1")

    def add_blob(self, media_type: str, value: object) -> Descriptor:
        data = json.dumps(value).encode()
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.store.blobs[digest] = data
        return Descriptor(media_type, digest, len(data))

    def add_image(self, diffs: tuple[str, ...], **labels: str) -> Descriptor:
        config = self.add_blob(
            manifests.OCI_CONFIG,
            {"config": {"Labels": {"a": "label", **labels}}, "rootfs": {"type": "layers", "diff_ids": list(diffs)}},
        )
        layers = [{"mediaType": "application/vnd.erofs.layer.v1", "digest": diff, "size": 1} for diff in diffs]
        return self.add_blob(
            manifests.OCI_MANIFEST,
            {
                "schemaVersion": 2,
                "mediaType": manifests.OCI_MANIFEST,
                "config": {"mediaType": config.media_type, "digest": config.digest, "size": config.size},
                "layers": layers,
                "annotations": {"an": "annotation"},
            },
        )

    def add_container(self, name: str, parent: str = TOP, image: str = IMAGE, key: str = "") -> None:
        self.store.container_records[name] = ContainerRecord(
            name, image=image, snapshotter=SNAPSHOTTER, snapshot_key=key or name
        )
        self.world.snapshots._put(key or name, parent, "active", [], {}, 6)

    def identify(self, name: str = "c1") -> ContainerFacts:
        from unikeel.containerd.bridge import Bridge

        return Bridge(self.world.loop.loop).call(self.identifier.identify("default", name), 30)

    def calls(self) -> list[str]:
        found = list(self.world.containerd.state.calls)
        self.world.containerd.state.calls.clear()
        return found


@pytest.fixture
def stage(tmp_path: os.PathLike[str]) -> Stage:
    return Stage(ContainerdWorld(os.path.join(tmp_path, "root"), door=plain))


def test_everything_about_a_container(stage: Stage) -> None:
    facts = stage.identify()
    assert (facts.parent.name, facts.parent.created_ns, facts.trusted) == (TOP, 5, True)
    assert (facts.image, facts.image_digest, facts.chain_ids) == (IMAGE, stage.manifest.digest, chain_ids(DIFFS))
    assert (facts.labels, facts.annotations) == ({"a": "label"}, {"an": "annotation"})
    parent = facts.boot_parent
    assert parent[:5] == (CONSUMER, "default", SNAPSHOTTER, TOP, 5)
    assert (parent.fstype, parent.trusted) == ("", True)


def test_warm_is_three_calls(stage: Stage) -> None:
    stage.identify()
    stage.add_container("c2")
    assert sorted(stage.calls()) == ["container", "image", "read", "read", "stat", "stat"]
    facts = stage.identify("c2")
    assert sorted(stage.calls()) == ["container", "stat", "stat"]
    assert facts.labels == {"a": "label"}


def test_another_key_costs_a_call(stage: Stage) -> None:
    stage.identify()
    stage.calls()
    stage.add_container("c2", key="snapshot-of-c2")
    assert stage.identify("c2").parent.name == TOP
    assert sorted(stage.calls()) == ["container", "stat", "stat", "stat"]


def test_a_snapshot_of_the_same_name_is_not_taken_for_the_containers(stage: Stage) -> None:
    """Somebody else's, or one that was made anew on something else: what the container's record names counts."""
    stage.identify()
    stage.add_container("other", parent=chain_ids(DIFFS)[0], key="c2")
    stage.add_container("c2", key="snapshot-of-c2")
    facts = stage.identify("c2")
    assert (facts.snapshot_key, facts.parent.name, facts.trusted) == ("snapshot-of-c2", TOP, True)


def test_the_time_of_creation_is_always_of_now(stage: Stage) -> None:
    """A parent that was removed and made again is another one."""
    first = stage.identify()
    stage.world.snapshots._shelf.remove(TOP)
    stage.world.snapshots._put(TOP, DIFFS[0], COMMITTED, [], {}, first.parent.created_ns + 1)
    assert stage.identify().boot_parent.key != first.boot_parent.key


def test_a_container_that_is_gone_is_not_found_by_guessing(stage: Stage) -> None:
    stage.identify()
    stage.add_container("c2")
    del stage.store.container_records["c2"]
    with pytest.raises(NotFound):
        stage.identify("c2")


def test_a_wrong_guess_costs_a_call(stage: Stage) -> None:
    stage.identify()
    stage.calls()
    stage.add_container("c2", parent=chain_ids(DIFFS)[0])
    facts = stage.identify("c2")
    assert (facts.parent.name, facts.trusted) == (DIFFS[0], False)
    assert stage.calls().count("stat") == 3


def test_a_name_that_was_moved_makes_it_untrusted(stage: Stage) -> None:
    stage.store.image_records[IMAGE] = ImageRecord(IMAGE, stage.add_image(DIFFS[:1]))
    assert not stage.identify().trusted


def test_without_its_image_nothing_is_known_of_it(stage: Stage) -> None:
    del stage.store.image_records[IMAGE]
    facts = stage.identify()
    assert (facts.trusted, facts.image, facts.image_digest, facts.chain_ids, dict(facts.labels)) == (
        False,
        IMAGE,
        "",
        (),
        {},
    )
    stage.store.image_records[IMAGE] = ImageRecord(IMAGE, stage.manifest)
    assert stage.identify().trusted


def test_without_its_content_likewise(stage: Stage) -> None:
    stage.store.blobs.clear()
    assert not stage.identify().trusted


def test_an_image_that_was_removed_is_remembered(stage: Stage) -> None:
    stage.identify()
    del stage.store.image_records[IMAGE]
    assert stage.identify().trusted


def platforms(stage: Stage, *entries: tuple[str, Descriptor]) -> Descriptor:
    return stage.add_blob(
        manifests.OCI_INDEX,
        {
            "schemaVersion": 2,
            "mediaType": manifests.OCI_INDEX,
            "manifests": [
                {
                    "mediaType": found.media_type,
                    "digest": found.digest,
                    "size": found.size,
                    "platform": {"os": "linux", "architecture": architecture},
                }
                for architecture, found in entries
            ],
        },
    )


def test_an_index_is_for_this_host(stage: Stage) -> None:
    mine = manifests.host_platform()[1]
    others = stage.add_image(DIFFS, other="host")
    variant = stage.add_image(DIFFS[:2])
    missing = Descriptor(manifests.OCI_MANIFEST, digests.of(b"not pulled"), 3)
    target = platforms(stage, ("wasm", others), (mine, missing), (mine, variant), (mine, stage.manifest))
    stage.store.image_records[IMAGE] = ImageRecord(IMAGE, target)
    facts = stage.identify()
    assert (facts.trusted, facts.image_digest, dict(facts.labels)) == (True, stage.manifest.digest, {"a": "label"})


def test_an_index_for_other_hosts_is_refused(stage: Stage) -> None:
    stage.store.image_records[IMAGE] = ImageRecord(
        IMAGE, platforms(stage, ("wasm", stage.manifest), ("vax", stage.manifest))
    )
    with pytest.raises(BadContent, match="only for linux/vax"):
        stage.identify()


Change = Callable[[ContainerRecord], ContainerRecord]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda record: record._replace(snapshot_key=""), FailedPrecondition),
        (lambda record: record._replace(snapshotter=""), FailedPrecondition),
        (lambda record: record._replace(snapshot_key="none"), NotFound),
        (lambda record: record._replace(snapshot_key="empty"), FailedPrecondition),
        (lambda record: record._replace(snapshot_key="on an active one"), FailedPrecondition),
    ],
)
def test_what_has_no_committed_parent_is_refused(stage: Stage, change: Change, error: type[Exception]) -> None:
    stage.world.snapshots._put("empty", "", "active", [], {}, 6)
    stage.world.snapshots._put("on an active one", "empty", "active", [], {}, 6)
    stage.store.container_records["c1"] = change(stage.store.container_records["c1"])
    for _ in range(2):
        with pytest.raises(error):
            stage.identify()
    with pytest.raises(NotFound):
        stage.identify("nobody")


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"schemaVersion": 2, "config": 3}', b'{"schemaVersion": 1}', b"\xff"])
def test_damaged_manifests_are_refused(stage: Stage, data: bytes) -> None:
    stage.store.blobs[stage.manifest.digest] = data
    with pytest.raises(BadContent):
        stage.identify()


def test_trust_is_in_the_whole_chain() -> None:
    chain = chain_ids(DIFFS)
    assert chain == tuple(digests.chain_id(DIFFS[: n + 1]) for n in range(3))
    assert [is_trusted(name, chain) for name in (*chain, "", "other")] == [False, False, True, False, False]
    assert not is_trusted("", ())


def test_consumers_tell_their_address() -> None:
    assert consumer_of("unix:///run/a#b.sock", "u") == consumer_of("/run/a#b.sock", "u")
    assert address_of(consumer_of("/run/a#b.sock", "u")) == "/run/a#b.sock"
    assert address_of("engine") == ""
