"""What a snapshotter's mounts mean: the pure half."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unikeel.boot.contract import HostMount
from unikeel.boot.hostmounts import Place, Step, image_of, plan, split_layers
from unikeel.errors import Unavailable

LOOP = ("ro", "loop")


def test_a_block_image() -> None:
    mount = HostMount("ext4", "/dev/mapper/pool-snap-3", ("rw", "discard"))
    assert image_of([mount]) == mount
    assert plan([mount]) == (Step("ext4", mount.source, (), (("ro", None), ("noload", None)), "ext4"),)


@pytest.mark.parametrize(
    ("fstype", "driver", "options"),
    [
        ("ext2", "ext4", ("ro", "noload")),
        ("ext3", "ext4", ("ro", "noload")),
        ("xfs", "xfs", ("ro", "norecovery", "nouuid")),
        ("erofs", "erofs", ("ro",)),
    ],
)
def test_no_journal_is_replayed(fstype: str, driver: str, options: tuple[str, ...]) -> None:
    (step,) = plan([HostMount(fstype, "/image", ("rw", "nouuid", "noatime", "X-containerd.dmverity=/x"))])
    assert (step.driver, step.options) == (driver, tuple((name, None) for name in options))


def test_other_file_systems_keep_their_options() -> None:
    (step,) = plan([HostMount("btrfs", "/dev/sda", ("ro", "subvol=/a,b", "ssd"))])
    assert step.options == (("ro", None), ("subvol", "/a,b"), ("ssd", None))


def test_images_in_parts_are_not_for_our_readers() -> None:
    split = HostMount("erofs", "/meta", ("ro", "device=/blob"))
    assert image_of([split]) is None
    assert plan([split])[0].options == (("ro", None), ("device", "/blob"))
    assert image_of([HostMount("xfs", "/x")]) is None
    assert image_of([HostMount("ext4", "/x")] * 2) is None
    assert image_of([HostMount("ext4", "relative")]) is None
    assert image_of([]) is None


def test_overlays_are_read_with_their_upper_layer_on_top() -> None:
    options = ("index=off", "userxattr", "workdir=/w", "upperdir=/u", r"lowerdir=/a\:b:/c", "volatile", "metacopy=on")
    (step,) = plan([HostMount("overlay", "overlay", options)])
    assert step.layers == (Place("/u"), Place("/a:b"), Place("/c"))
    assert step.options == (("userxattr", None), ("metacopy", "on"))


def test_a_bind_mount_is_one_layer() -> None:
    assert plan([HostMount("bind", "/fs", ("ro", "rbind"))]) == (Step("overlay", layers=(Place("/fs"),)),)


def test_templates_are_filled_in() -> None:
    layers = [HostMount("erofs", f"/{number}", LOOP) for number in range(3)]
    steps = plan([*layers, HostMount("format/mkdir/overlay", "overlay", ("lowerdir={{ overlay 0 2 }}:/more",))])
    assert steps[-1].layers == (*(Place("", number) for number in range(3)), Place("/more"))
    steps = plan([*layers, HostMount("format/overlay", "overlay", ("lowerdir={{overlay 2 1}}:{{ mount 0 }}/sub",))])
    assert steps[-1].layers == (Place("", 2), Place("", 1), Place("/sub", 0))
    steps = plan([*layers, HostMount("format/bind", "{{ mount 1 }}/fs", ("ro", "rbind"))])
    assert steps[-1] == Step("overlay", layers=(Place("/fs", 1),))


@pytest.mark.parametrize(
    "mounts",
    [
        [],
        [HostMount("mkfs/ext4", "/image")],
        [HostMount("format/mkfs/overlay", "overlay", ("lowerdir=/a:/b",))],
        [HostMount("ext4", "")],
        [HostMount("ext4", "relative")],
        [HostMount("ext4", "/a"), HostMount("ext4", "/b")],
        [HostMount("ext4", "/a"), HostMount("bind", "/b", ("rbind",))],
        [HostMount("overlay", "overlay")],
        [HostMount("overlay", "overlay", ("lowerdir=relative:/b",))],
        [HostMount("overlay", "overlay", ("lowerdir=/a::/b",))],
        [HostMount("overlay", "overlay", ("datadir+=/a",))],
        [HostMount("", "/a")],
        [HostMount("bind", "relative")],
        *(
            [HostMount("erofs", "/a"), HostMount("format/overlay", "overlay", (f"lowerdir={text}",))]
            for text in (
                "{{ overlay 0 1 }}",
                "{{ overlay 0 }}",
                "{{ overlay 0 0 }}x",
                "{{ mount 1 }}",
                "{{ mount 0 0 }}",
                "{{ target 0 }}",
                "{{ mount -1 }}",
                "{{ exec 1 }}",
                "{{ mount 0 }}{{ mount 0 }}",
                "{{",
            )
        ),
    ],
)
def test_what_cannot_be_read_is_unavailable(mounts: list[HostMount]) -> None:
    with pytest.raises(Unavailable):
        plan(mounts)


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(st.lists(names, min_size=1, max_size=6))
def test_names_of_layers_survive_escaping(layers: list[str]) -> None:
    escaped = [layer.replace("\\", "\\\\").replace(":", "\\:") for layer in layers]
    assert split_layers(":".join(escaped)) == layers


mounts = st.builds(
    HostMount,
    st.sampled_from(["ext4", "erofs", "overlay", "bind", "format/overlay", "format/mkdir/bind", "mkfs/ext4", "tmpfs"]),
    st.sampled_from(["/a", "{{ mount 0 }}", "{{ source 0 }}/x", "overlay", "", "{{"]),
    st.lists(
        st.sampled_from(
            ["ro", "rbind", "lowerdir={{ overlay 0 1 }}", "lowerdir=/a:/b", "upperdir={{ mount 0 }}/u", "x=y"]
        )
    ).map(tuple),
)


@given(st.lists(mounts, max_size=4))
def test_a_plan_is_read_only_and_looks_back_only(given_mounts: list[HostMount]) -> None:
    try:
        steps = plan(given_mounts)
    except Unavailable:
        return
    assert len(steps) == len(given_mounts)
    for number, step in enumerate(steps):
        assert all(place.mount < number for place in step.layers)
        assert bool(step.layers) == (step.driver == "overlay")
        if not step.layers:
            assert step.options[0] == ("ro", None)
