"""What image.toml and flags may say, and the annotations that follow."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unikeel.errors import InvalidArgument
from unikeel.images.description import (
    Description,
    LayerSource,
    Overrides,
    annotations_of,
    checked,
    overridden,
    parse,
    urunc_json,
)
from unikeel.model.image_config import from_annotations, from_urunc_json

FULL = """
name = "hello"
kernel = "/boot/hello"
initrd = "/boot/initrd"
type = "linux"
monitor = "qemu"
version = "6.12"
block = "/disk.img"
block_mount = "/data"
mount_rootfs = true
cmdline = "console=ttyS0 quiet"
entrypoint = ["/bin/a"]
cmd = ["x", "y"]
env = ["A=b"]
workdir = "/srv"
user = "0:0"
architecture = "arm64"
compression = "zstd"
[annotations]
"org.unikeel.rootfs" = "block"
[labels]
maintainer = "me"
[files]
"/boot/hello" = "hello.elf"
[[layers]]
tree = "layer1"
files = { "/boot/x" = "sub/x.bin" }
[[layers]]
tree = "layer2"
"""


def read(text: str, *, has_tree: bool = False) -> Description:
    return parse(text, "/context", has_tree=has_tree)


def test_every_key() -> None:
    assert read(FULL) == Description(
        name="hello",
        kernel="/boot/hello",
        initrd="/boot/initrd",
        type="linux",
        monitor="qemu",
        version="6.12",
        block="/disk.img",
        block_mount="/data",
        mount_rootfs=True,
        cmdline="console=ttyS0 quiet",
        entrypoint=("/bin/a",),
        cmd=("x", "y"),
        env=("A=b",),
        workdir="/srv",
        user="0:0",
        architecture="arm64",
        compression="zstd",
        annotations={"org.unikeel.rootfs": "block"},
        labels={"maintainer": "me"},
        layers=(
            LayerSource("/context/layer1", {"/boot/x": "/context/sub/x.bin"}),
            LayerSource("/context/layer2", {"/boot/hello": "/context/hello.elf"}),
        ),
    )


def test_annotations_and_urunc_json_say_the_same() -> None:
    values = annotations_of(read(FULL))
    assert values == {
        "com.urunc.unikernel.unikernelType": "linux",
        "com.urunc.unikernel.hypervisor": "qemu",
        "com.urunc.unikernel.binary": "/boot/hello",
        "com.urunc.unikernel.initrd": "/boot/initrd",
        "com.urunc.unikernel.unikernelVersion": "6.12",
        "com.urunc.unikernel.block": "/disk.img",
        "com.urunc.unikernel.blkMntPoint": "/data",
        "com.urunc.unikernel.mountRootfs": "true",
        "com.urunc.unikernel.cmdline": "console=ttyS0 quiet",
        "org.unikeel.rootfs": "block",
    }
    data = urunc_json({**values, "org.opencontainers.image.title": "not for urunc"})
    assert {name: base64.b64decode(value).decode() for name, value in json.loads(data).items()} == values
    assert from_urunc_json(data, "test") == from_annotations(values, "test")


def test_what_is_empty_is_left_out() -> None:
    assert set(annotations_of(Description(kernel="/k"))) == {
        "com.urunc.unikernel.unikernelType",
        "com.urunc.unikernel.hypervisor",
        "com.urunc.unikernel.binary",
    }


def test_a_disk_is_the_root_unless_said_otherwise() -> None:
    assert annotations_of(Description(kernel="/k", block="/d"))["com.urunc.unikernel.blkMntPoint"] == "/"


@pytest.mark.parametrize(("has_tree", "text", "layers"), [
    (True, "", (LayerSource("/context/tree", {}),)),
    (True, '[files]\n"/a" = "b"', (LayerSource("/context/tree", {"/a": "/context/b"}),)),
    (False, '[files]\n"/a" = "b"', (LayerSource("", {"/a": "/context/b"}),)),
    (False, "", ()),
    (True, '[[layers]]\ntree = "x"', (LayerSource("/context/x", {}),)),
])  # fmt: skip
def test_layers_by_default(text: str, layers: tuple[LayerSource, ...], *, has_tree: bool) -> None:
    assert read(text, has_tree=has_tree).layers == layers


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("kernal = '/k'", "unknown key 'kernal'", "did you mean kernel?"),
        ("[[layers]]\ntre = 'x'", r"layers\[0\]: unknown key 'tre'", "did you mean tree?"),
        ("zzzz = 1", "unknown key 'zzzz'", "known are name, kernel"),
        ("kernel = 1", "kernel is not a text", ""),
        ("mount_rootfs = 'true'", "mount_rootfs is not true or false", ""),
        ("cmd = 'x'", "cmd is not a list of texts", ""),
        ("cmd = [1]", "cmd is not a list of texts", ""),
        ('cmdline = "a\\u0000"', "cmdline holds a NUL", ""),
        ("annotations = 1", "annotations is not a table", ""),
        ("[annotations]\na = 1", "annotations: a is not a text", ""),
        ("layers = 'x'", "layers is not a list of tables", ""),
        ("layers = []", "layers is not a list of tables", ""),
        ("layers = [1]", r"layers\[0\] is not a table", ""),
        ("[[layers]]", "neither a tree nor files", ""),
        ("[files]\n'boot/k' = 'k'", "not a plain absolute path", ""),
        ("[files]\n'/boot/../k' = 'k'", "not a plain absolute path", ""),
        ("[files]\n'/k' = '../k'", "'../k' is not beneath /context", "copy it there"),
        ("[files]\n'/k' = '/etc/passwd'", "'/etc/passwd' is not beneath /context", ""),
        ("[[layers]]\ntree = '..'", "is not beneath", ""),
        ("a = ", "/context/image.toml is not valid TOML", ""),
        ("a = " + "[" * 5000, "is not valid TOML", ""),
    ],
)
def test_mistakes_in_the_file(text: str, message: str, hint: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as caught:
        read(text)
    assert hint in caught.value.hint


GOOD: dict[str, Any] = {"kernel": "/k", "layers": (LayerSource("tree"),)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel": ""}, "has no kernel"),
        ({"type": ""}, "has no type"),
        ({"monitor": ""}, "has no monitor"),
        ({"layers": ()}, "has no content"),
        ({"layers": (LayerSource("tree"),) * 101}, "101 layers"),
        ({"kernel": "k"}, "kernel 'k' is not a plain absolute path"),
        ({"initrd": "/a b"}, "initrd '/a b'"),
        ({"block": "//a"}, "block '//a'"),
        ({"workdir": "/a/"}, "workdir '/a/'"),
        ({"compression": "xz"}, "compression 'xz' is unknown"),
        ({"architecture": "x86_64"}, "architecture 'x86_64' is unknown"),
        ({"env": ("A",)}, "env 'A'"),
        ({"env": ("=A",)}, "env '=A'"),
        ({"block_mount": "/"}, "no block"),
    ],
)
def test_values_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        checked(Description(**{**GOOD, **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "linx"}, "guest type 'linx' is unknown"),
        ({"monitor": "vbox"}, "monitor 'vbox' is unknown"),
        ({"monitor": "firecracker", "type": "mewz"}, "cannot run guest"),
        ({"annotations": {"org.unikeel.rootfs": "tape"}}, "org.unikeel.rootfs must be block"),
        ({"annotations": {"com.urunc.unikernel.binary": "/x"}}, "binary is given twice"),
        ({"cmdline": "a\x07"}, "control characters"),
    ],
)
def test_annotations_that_no_engine_would_take(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        annotations_of(Description(**{**GOOD, **changes}))


def test_flags_alone() -> None:
    flags = Overrides(kernel="/host/k", initrd="/host/i", rootfs="/host/tree", type="generic", env=("A=b",))
    found = checked(overridden(Description(), flags, rootfs_is_directory=True))
    assert (found.kernel, found.initrd, found.type, found.env) == ("/boot/kernel", "/boot/initrd", "generic", ("A=b",))
    assert found.layers == (LayerSource("/host/tree", {"/boot/kernel": "/host/k", "/boot/initrd": "/host/i"}),)
    disk = overridden(Description(), Overrides(kernel="k", rootfs="d"), rootfs_is_directory=False)
    assert (disk.block, disk.block_mount) == ("/disk.img", "/")
    assert disk.layers == (LayerSource("", {"/boot/kernel": "k", "/disk.img": "d"}),)


def test_flags_against_a_file() -> None:
    flags = Overrides(
        cmdline="new", kernel="k", annotations={"a": "b"}, labels={"maintainer": "you"}, mount_rootfs=False
    )
    found = overridden(read(FULL), flags, rootfs_is_directory=False)
    assert (found.cmdline, found.kernel, found.initrd) == ("new", "/boot/kernel", "/boot/initrd")
    assert (found.mount_rootfs, found.labels) == (False, {"maintainer": "you"})
    assert found.annotations == {"org.unikeel.rootfs": "block", "a": "b"}
    assert found.layers[1].files == {"/boot/hello": "/context/hello.elf", "/boot/kernel": "k"}
    assert overridden(read(FULL), Overrides(), rootfs_is_directory=False) == read(FULL)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60) | st.lists(st.sampled_from(FULL.strip().splitlines()), max_size=12).map("\n".join))
def test_any_text_is_a_description_or_an_error_of_ours(text: str) -> None:
    try:
        found = checked(read(text))
        values = annotations_of(found)
    except InvalidArgument:
        return
    assert from_annotations(values, "test") is not None


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["kernel", "initrd", "cmdline", "version", "type", "block"]), st.text(max_size=20))
)
def test_annotations_can_always_be_read_back(values: dict[str, Any]) -> None:
    description = Description(**{**GOOD, **values})
    try:
        found = annotations_of(checked(description))
    except InvalidArgument:
        return
    config = from_annotations(found, "test")
    assert config is not None
    assert (config.binary, config.initrd, config.type) == (description.kernel, description.initrd, description.type)
    assert from_urunc_json(urunc_json(found), "test") == config
