"""An image's configuration: sources, their order, the base64 rule, and what is refused by name."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unikeel.errors import BadContent, UnikeelError
from unikeel.images import description
from unikeel.model import image_fields, names
from unikeel.model.image_config import choose, from_annotations, from_urunc_json, to_annotations
from unikeel.model.image_fields import FIELDS, OWN_PREFIX, PREFIX, GuestConfig

TYPE, MONITOR, BINARY = PREFIX + "unikernelType", PREFIX + "hypervisor", PREFIX + "binary"
PLAIN = {TYPE: "linux", MONITOR: "qemu", BINARY: "/boot/k1"}
LINUX = GuestConfig("linux", "qemu", "/boot/k1")


def b64(values: Mapping[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}


def urunc_json(values: Mapping[str, str]) -> bytes:
    return json.dumps(b64(values)).encode()


def no_file() -> bytes | None:
    return None


def test_plain_annotations() -> None:
    extra = {
        PREFIX + "cmdline": "a  b\n c",
        PREFIX + "initrd": "boot/initrd",
        PREFIX + "mountRootfs": "T",
        OWN_PREFIX + "rootfs": "block",
        OWN_PREFIX + "machine": "microvm",
        OWN_PREFIX + "console": "virtio",
        OWN_PREFIX + "powerdown": "0",
        "org.example": "x",
    }
    assert from_annotations(PLAIN | extra, "x") == GuestConfig(
        type="linux",
        monitor="qemu",
        binary="/boot/k1",
        cmdline="a b c",
        initrd="boot/initrd",
        mount_rootfs=True,
        rootfs="block",
        machine="microvm",
        console="virtio",
        powerdown=False,
    )


def test_annotations_in_base64() -> None:
    assert from_annotations(b64(PLAIN | {PREFIX + "cmdline": "x y"}), "x") == LINUX._replace(cmdline="x y")


def test_own_annotations_are_plain_beside_base64() -> None:
    config = from_annotations(b64(PLAIN) | {OWN_PREFIX + "machine": "q35"}, "x")
    assert config == LINUX._replace(machine="q35")


@pytest.mark.parametrize("value", ["qemu", "true", "/boot/k1", "hvt+", ""])
def test_one_value_that_is_not_base64_of_text_makes_the_set_plain(value: str) -> None:
    # These are plain texts that base64 would take, or nearly; the set as a whole decides.
    with pytest.raises(BadContent, match="unknown"):
        from_annotations(b64(PLAIN) | {PREFIX + "vAccel": value or "\n"}, "x")


def test_base64_that_names_unknown_things_is_plain() -> None:
    with pytest.raises(BadContent, match="guest type 'bGludXh4' is unknown"):
        from_annotations(b64(PLAIN | {TYPE: "linuxx"}), "x")


def test_base64_that_is_not_canonical_is_plain() -> None:
    # "aHZ0" is hvt; "aHZ1" would be another text; a last character with spare bits set is not canonical.
    values = b64(PLAIN | {PREFIX + "cmdline": "a"}) | {PREFIX + "cmdline": "YR=="}
    with pytest.raises(BadContent, match="unknown"):
        from_annotations(values, "x")


@pytest.mark.parametrize("missing", [TYPE, MONITOR, BINARY])
def test_incomplete_annotations_are_none(missing: str) -> None:
    assert from_annotations({key: value for key, value in PLAIN.items() if key != missing}, "x") is None
    assert from_annotations(PLAIN | {missing: ""}, "x") is None


def test_given_wins_over_manifest_and_manifest_over_labels() -> None:
    labels = PLAIN | {PREFIX + "cmdline": "labels", PREFIX + "initrd": "labels"}
    manifest = {PREFIX + "cmdline": "manifest", PREFIX + "initrd": "manifest"}
    config = choose({PREFIX + "cmdline": "given"}, manifest, labels, no_file, "image")
    assert config == LINUX._replace(cmdline="given", initrd="manifest")


def test_sources_may_differ_in_encoding() -> None:
    assert choose({PREFIX + "cmdline": "given"}, b64(PLAIN), {}, no_file, "image") == LINUX._replace(cmdline="given")


def test_the_file_is_not_read_if_annotations_are_complete() -> None:
    def fail() -> bytes | None:
        raise AssertionError

    assert choose({}, PLAIN, {}, fail, "image") == LINUX


def test_the_file_alone_counts_if_annotations_are_not_complete() -> None:
    file = urunc_json(PLAIN)
    assert choose({PREFIX + "cmdline": "given", TYPE: "hermit"}, {}, {}, lambda: file, "image") == LINUX


def test_no_source_is_no_unikernel() -> None:
    assert choose({}, {"a": "b"}, {}, no_file, "image") is None


def test_the_file_passes_over_keys_it_does_not_know_and_line_breaks() -> None:
    values = b64(PLAIN) | {"com.example": "not base64!"}
    values[TYPE] = values[TYPE][:4] + "\r\n" + values[TYPE][4:]
    assert from_urunc_json(json.dumps(values).encode(), "x") == LINUX


BAD_FILES = [
    (b"[]", "not a JSON object"),
    (b"", "not JSON"),
    (b"{", "not JSON"),
    (b"\xff{}", "not UTF-8: byte 0"),
    (b"[" * 200_000, "not JSON"),
    (b'{"a": 1' + b"0" * 5000 + b"}", "not JSON"),
    (b"{" + b" " * (1 << 20) + b"}", "1048576 are the limit"),
    (b'{"a": "", "a": ""}', "key 'a' is there twice"),
    (b'{"a": 1}', "value of 'a' is not a string"),
    (b'{"\\ud800": 1}', "value of '.ud800' is not a string"),
    (b"{}", "unikernelType, .*hypervisor, .*binary missing"),
    (json.dumps(PLAIN).encode(), "unikernelType is not base64 of UTF-8 text: 'linux'"),
    (json.dumps(b64(PLAIN) | {TYPE: "\ud800"}).encode(), "unikernelType is not base64"),
    (json.dumps(b64(PLAIN) | {TYPE: "/w=="}).encode(), "unikernelType is not base64 of UTF-8"),
    (urunc_json(PLAIN | {BINARY: "../k"}), "binary must be a clean path"),
]


@pytest.mark.parametrize(("data", "message"), BAD_FILES)
def test_bad_files_are_refused_with_input_and_reason(data: bytes, message: str) -> None:
    with pytest.raises(BadContent, match=message) as caught:
        from_urunc_json(data, "image x: urunc.json")
    assert str(caught.value).startswith("image x: urunc.json")
    assert len(str(caught.value)) < 1000


BAD_VALUES = [
    (BINARY, "/boot//k", "clean path"),
    (BINARY, "/boot/./k", "clean path"),
    (BINARY, "/boot/..", "clean path"),
    (BINARY, "/boot/", "clean path"),
    (BINARY, "/", "clean path"),
    (BINARY, "/boot/a b", "only letters"),
    (BINARY, "/boot/a,b", "only letters"),
    (BINARY, "/boot/\u00e4", "only letters"),
    (BINARY, "/" + "a" * 4096, "longer than 4096"),
    (PREFIX + "initrd", "..", "clean path"),
    (PREFIX + "mountRootfs", "yes", "must be true or false"),
    (PREFIX + "cmdline", "a\0b", "control characters"),
    (PREFIX + "cmdline", "a" * 70_000, "longer than 65536"),
    (PREFIX + "unikernelVersion", "1\n", "control characters"),
    (PREFIX + "block", "/disk", "needs com.urunc.unikernel.blkMntPoint"),
    (PREFIX + "blkMntPoint", "data", "absolute"),
    (OWN_PREFIX + "rootfs", "initrd", "must be block"),
    (OWN_PREFIX + "machine", "pc", "must be microvm or q35"),
    (OWN_PREFIX + "console", "hvc0,x", "must be serial or virtio"),
    (TYPE, "linus", "guest type 'linus' is unknown"),
    (MONITOR, "qemuu", "monitor 'qemuu' is unknown"),
    (MONITOR, "hvt", "monitor 'hvt' cannot run guest 'linux'"),
]


@pytest.mark.parametrize(("key", "value", "message"), BAD_VALUES)
def test_bad_values_are_refused_with_key_and_rule(key: str, value: str, message: str) -> None:
    with pytest.raises(BadContent, match=message):
        from_annotations(PLAIN | {key: value}, "x")


def test_an_unknown_name_comes_with_the_nearest_and_all_known() -> None:
    with pytest.raises(BadContent) as caught:
        from_annotations(PLAIN | {TYPE: "unikarft"}, "x")
    assert caught.value.hint.startswith("did you mean 'unikraft'? known: ")
    assert all(name in caught.value.hint for name in names.GUESTS)


def test_a_pair_that_does_not_fit_names_those_that_do() -> None:
    with pytest.raises(BadContent) as caught:
        from_annotations(PLAIN | {TYPE: "mirage", MONITOR: "firecracker"}, "x")
    assert caught.value.hint == "monitors that can: qemu, hvt, spt"


def test_the_table_fits_the_value() -> None:
    parsed_types: dict[str, object] = {"mount_rootfs": bool, "powerdown": bool | None}
    assert [field.name for field in FIELDS.values()] == list(GuestConfig._fields)
    for field in FIELDS.values():
        assert get_type_hints(GuestConfig)[field.name] == parsed_types.get(field.name, str)
        assert (field.parse is image_fields._boolean) == (field.name in parsed_types)


paths = st.from_regex(r"/?[A-Za-z0-9_-]{1,8}(/[A-Za-z0-9_-]{1,8}){0,2}", fullmatch=True)
words = st.text(st.characters(exclude_categories=("C", "Z")), max_size=12)
configs = st.builds(
    GuestConfig,
    type=st.just("linux"),
    monitor=st.sampled_from(["qemu", "firecracker", "cloud-hypervisor"]),
    binary=paths,
    cmdline=st.lists(words.filter(bool), max_size=3).map(" ".join),
    version=words,
    initrd=st.just("") | paths,
    block=paths,
    block_mount=st.just("/") | paths.map(lambda path: "/" + path.removeprefix("/")),
    mount_rootfs=st.booleans(),
    rootfs=st.sampled_from(["", "block"]),
    machine=st.sampled_from(["", "q35"]),
    console=st.sampled_from(["", "serial", "virtio"]),
    powerdown=st.sampled_from([None, True, False]),
    net_device=st.sampled_from(["", "service", "x" * 67]),
    block_device=st.sampled_from(["", "storage", "9"]),
    kernel=st.sampled_from(["", "default"]),
)


@settings(max_examples=60, deadline=None)
@given(configs)
def test_what_is_written_is_read_back(config: GuestConfig) -> None:
    assert from_annotations(to_annotations(config), "x") == config
    assert from_urunc_json(description.urunc_json(to_annotations(config)), "x") == config
    own = {key: value for key, value in to_annotations(config).items() if key.startswith(OWN_PREFIX)}
    encoded = {key: value for key, value in b64(to_annotations(config)).items() if key.startswith(PREFIX)}
    assert from_annotations(encoded | own, "x") == config


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(sorted(FIELDS)), st.text(max_size=30) | st.sampled_from(["linux", "qemu", "/k", "cWVtdQ=="])
    )
)
def test_any_annotations_give_a_value_or_our_error(annotations: dict[str, str]) -> None:
    try:
        config = from_annotations(annotations, "x")
    except UnikeelError:
        return
    assert config is None or config.type in names.PAIRS[config.monitor]


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=200)
    | st.dictionaries(st.sampled_from(sorted(FIELDS)), st.text(max_size=20)).map(lambda d: json.dumps(d).encode())
)
def test_any_file_gives_a_value_or_our_error(data: bytes) -> None:
    try:
        config = from_urunc_json(data, "x")
    except UnikeelError:
        return
    assert config.binary
