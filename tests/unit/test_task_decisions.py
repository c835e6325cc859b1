"""The task service's pure parts: callers' configurations, annotations, decisions, what carries over into a sandbox, states."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from unikeel.config import defaults
from unikeel.containerd.wire import bootstrap_pb2, options_runtime_pb2
from unikeel.errors import FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from unikeel.model.image_fields import GuestConfig
from unikeel.model.task_states import TRANSITIONS, TaskState, check
from unikeel.network.ports import Forwarded
from unikeel.sandbox.carrying import Carried, carry, is_systemd
from unikeel.shim import ocispec, wishes
from unikeel.shim.connecting import Network, Way
from unikeel.shim.deciding import decide, resources_of, with_network
from unikeel.shim.disks import RootMount, block_mount
from unikeel.shim.launching import upstream_of
from unikeel.shim.looking import options_of
from unikeel.shim.ocispec import Spec
from unikeel.shim.stdio import Place, parse
from unikeel.shim.wishes import Wishes

_GUEST = GuestConfig(type="generic", monitor="qemu", binary="/boot/kernel", mount_rootfs=True)
_EXT4 = RootMount("ext4", "/dev/mapper/snap-1", ("rw",))


def _parse(**top: Any) -> Spec:
    return ocispec.parse(json.dumps(top).encode())


def test_what_matters_of_a_configuration_is_read() -> None:
    hook = {"path": "/bin/true", "args": ["true"]}
    assert _parse(
        ociVersion="1.0.2",
        hostname="web",
        annotations={"a": "b"},
        root={"path": "rootfs", "readonly": True},
        hooks={"prestart": [hook], "poststop": [hook], "unknown": [hook]},
        process={
            "args": ["hello", "exit=3"],
            "env": ["A=1"],
            "user": {"uid": 7, "gid": 8, "additionalGids": [9]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "oomScoreAdj": -998,
        },
        linux={
            "cgroupsPath": "/default/web",
            "namespaces": [
                {"type": "network", "path": "/run/netns/x"},
                {"type": "pid", "path": "/proc/1/ns/pid"},
                {"type": "ipc"},
            ],
            "resources": {
                "memory": {"limit": 64 << 20},
                "cpu": {"shares": 512, "quota": 150000, "period": 100000, "idle": 1},
            },
        },
    ) == Spec(
        annotations={"a": "b"},
        args=("hello", "exit=3"),
        env=("A=1",),
        hostname="web",
        uid=7,
        gid=8,
        groups=(9,),
        rlimits=({"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024},),
        oom_score_adj=-998,
        cgroup="/default/web",
        namespaces={"network": "/run/netns/x"},
        hooks={"prestart": [hook], "poststop": [hook]},
        memory_limit=64 << 20,
        cpu={"shares": 512, "quota": 150000, "period": 100000},
        read_only=True,
        apart=True,
    )


@pytest.mark.parametrize(
    "top",
    [
        {"annotations": {"a": 1}},
        {"process": []},
        {"process": {"args": "hello"}},
        {"process": {"args": ["a\0b"]}},
        {"process": {"user": {"uid": -1}}},
        {"process": {"user": {"uid": True}}},
        {"linux": {"cgroupsPath": "/a/../../b"}},
        {"linux": {"cgroupsPath": "a\nb"}},
        {"linux": {"cgroupsPath": "system.slice:..:x"}},
        {"linux": {"namespaces": [{"type": "network", "path": "relative"}]}},
        {"linux": {"resources": {"memory": {"limit": "1G"}}}},
        {"hooks": {"prestart": [1]}},
    ],
)
def test_a_configuration_that_is_none_is_refused(top: Mapping[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        _parse(**top)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidArgument):
        ocispec.parse(text)


def test_a_configuration_that_is_huge_or_no_file_is_not_read(tmp_path: Any) -> None:
    with pytest.raises(NotFound):
        ocispec.read(str(tmp_path))
    (tmp_path / "config.json").symlink_to("/etc/passwd")
    with pytest.raises(NotFound):
        ocispec.read(str(tmp_path))
    (tmp_path / "config.json").unlink()
    with open(tmp_path / "config.json", "wb") as file:
        file.truncate(ocispec.LIMIT + 1)
    with pytest.raises(InvalidArgument, match="bytes"):
        ocispec.read(str(tmp_path))


def test_annotations_of_ours_are_wishes() -> None:
    assert wishes.from_annotations(
        {
            "org.unikeel.boot-files": "shared-view",
            "org.unikeel.boot-layer": "lowest",
            "org.unikeel.monitor": "qemu",
            "org.unikeel.accel": "tcg",
            "org.unikeel.memory": "64MiB",
            "org.unikeel.cpus": "2",
            "org.unikeel.machine": "q35",
            "com.example": "x,y\n",
        }
    ) == Wishes("shared-view", "lowest", "qemu", "", "tcg", 64 << 20, 2)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("boot-files", "cache,id=x"),
        ("boot-files", "cache\nview"),
        ("boot-layer", "../whole"),
        ("monitor", "../../bin/sh"),
        ("memory", "1e9"),
        ("memory", "-1"),
        ("cpus", "0"),
        ("cpus", "9" * 5000),
        ("cpus", "²"),
        ("boot_files", "cache"),
        ("unknown", "x"),
    ],
)
def test_any_other_annotation_of_ours_is_refused_by_its_name(key: str, value: str) -> None:
    with pytest.raises(InvalidArgument, match=f"org.unikeel.{key}"):
        wishes.from_annotations({f"org.unikeel.{key}": value})


def _options(body: bytes) -> bytes:
    from google.protobuf.any_pb2 import Any as Packed

    options = options_runtime_pb2.Options(config_body=body)
    return Packed(type_url="runtimeoptions.v1.Options", value=options.SerializeToString()).SerializeToString()


def test_options_come_alone_or_within_parameters() -> None:
    from google.protobuf.any_pb2 import Any as Packed

    body = b'[boot]\nstrategy = "view"\n[monitor]\nmemory = "32MiB"\ncpus = 3\n'
    wanted = Wishes(boot_files="view", memory=32 << 20, cpus=3)
    assert options_of(_options(body), "c1", "default") == wanted
    parameters = bootstrap_pb2.BootstrapParams(instance_id="c1", namespace="default")
    parameters.extensions.add().value.CopyFrom(Packed.FromString(_options(body)))
    assert options_of(parameters.SerializeToString(), "c1", "default") == wanted
    assert options_of(b"", "c1", "default") == Wishes()
    assert options_of(b"\xff\xff", "c1", "default") == Wishes()


@pytest.mark.parametrize(
    "body", [b"[boot]\nstrategy = 'x'", b"root = '/x'", b"[boot]\nunknown = 1", b"=", b"x" * 70_000]
)
def test_wrong_options_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidArgument):
        options_of(_options(body), "c1", "default")


def test_a_task_is_decided_by_annotation_limit_option_configuration_in_this_order() -> None:
    config = defaults()._replace(boot_strategy="copy", monitor_memory=256 << 20)
    spec = Spec(args=("hello",), memory_limit=(64 << 20) + 5, cpu={"quota": 150_000, "period": 100_000})
    settings = decide("t", spec, _GUEST, Wishes(boot_files="view", memory=32 << 20), config, [_EXT4])
    assert (settings.memory_mib, settings.cpus, settings.boot_files) == (64, 2, "view")
    assert (settings.disk, settings.initrd, settings.hostname, settings.machine) == (_EXT4, False, "t", "")
    given = spec._replace(annotations={"org.unikeel.memory": "48MiB", "org.unikeel.boot-files": "cache"})
    settings = decide("t", given, _GUEST, Wishes(boot_files="view"), config, [_EXT4])
    assert (settings.memory_mib, settings.boot_files) == (48, "cache")
    assert decide("t", Spec(), _GUEST, Wishes(), config, [_EXT4]).memory_mib == 256


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="15 MiB"):
        decide("t", Spec(memory_limit=15 << 20), _GUEST, Wishes(), defaults(), [_EXT4])


def test_a_guest_that_needs_a_disk_gets_one_made_of_its_image_s_own_layers_only() -> None:
    layers = [RootMount("overlay", "overlay", ("lowerdir=/a:/b",))]
    with pytest.raises(Unimplemented, match="not a block device, and no disk is made of a snapshot that is not"):
        decide("t", Spec(), _GUEST, Wishes(), defaults(), layers)
    made = decide("t", Spec(read_only=True), _GUEST, Wishes(), defaults(), layers, trusted=True)
    assert (made.disk, made.made, made.read_only, made.to_json()["made"]) == (None, True, True, True)
    own = decide("t", Spec(), _GUEST, Wishes(), defaults(), [_EXT4], trusted=True)
    assert (own.disk, own.made) == (_EXT4, False)
    none = decide("t", Spec(), _GUEST._replace(mount_rootfs=False), Wishes(), defaults(), layers, trusted=True)
    assert (none.disk, none.made) == (None, False)
    alone = decide("t", Spec(), _GUEST._replace(mount_rootfs=False, initrd="/initrd"), Wishes(), defaults(), layers)
    assert (alone.disk, alone.initrd) == (None, True)


@pytest.mark.parametrize(
    ("mounts", "is_disk"),
    [
        ([_EXT4], True),
        ([RootMount("xfs", "/dev/mapper/x")], True),
        ([_EXT4, _EXT4], False),
        ([], False),
        ([RootMount("bind", "/dir")], False),
        ([RootMount("overlay", "overlay")], False),
        ([RootMount("ext4", "relative")], False),
    ],
)
def test_only_one_mount_of_a_file_system_is_a_disk(mounts: list[RootMount], is_disk: bool) -> None:
    assert (block_mount(mounts) is not None) == is_disk


_BUILT: Mapping[str, Any] = {
    "hostname": "sandbox",
    "process": {"user": {"uid": 5, "gid": 5}, "rlimits": [{"type": "RLIMIT_CORE", "hard": 0, "soft": 0}]},
    "linux": {
        "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}],
        "cgroupsPath": "/unikeel-x",
        "resources": {"memory": {"limit": 7}, "cpu": {"quota": 200000, "period": 100000, "shares": 1024}},
    },
}


def test_nothing_carried_over_changes_nothing() -> None:
    assert carry(_BUILT, Carried()) == _BUILT


def test_what_carries_over_into_a_sandbox() -> None:
    before = json.dumps(_BUILT)
    hook = {"path": "/bin/true"}
    carried = Carried(
        cgroup="kubepods.slice:cri:x",
        namespaces={"network": "/run/netns/x", "uts": "/proc/7/ns/uts"},
        hooks={"createRuntime": [hook]},
        rlimits=({"type": "RLIMIT_NOFILE", "hard": 9, "soft": 9}, {"type": "RLIMIT_CORE", "hard": 9, "soft": 9}),
        oom_score_adj=3,
        groups=(11,),
        cpu={"shares": 2, "cpus": "0", "quota": -1},
        annotations={"a": "b"},
    )
    assert carry(_BUILT, carried) == {
        "process": {
            "user": {"uid": 5, "gid": 5, "additionalGids": [11]},
            "rlimits": [{"type": "RLIMIT_CORE", "hard": 0, "soft": 0}, {"type": "RLIMIT_NOFILE", "hard": 9, "soft": 9}],
            "oomScoreAdj": 3,
        },
        "linux": {
            "namespaces": [
                {"type": "pid"},
                {"type": "ipc"},
                {"type": "uts", "path": "/proc/7/ns/uts"},
                {"type": "network", "path": "/run/netns/x"},
            ],
            "cgroupsPath": "kubepods.slice:cri:x",
            "resources": {"memory": {"limit": 7}, "cpu": {"quota": 200000, "period": 100000, "shares": 2, "cpus": "0"}},
        },
        "hooks": {"createRuntime": [hook]},
        "annotations": {"a": "b"},
    }
    assert json.dumps(_BUILT) == before
    assert is_systemd(carried.cgroup)
    assert not is_systemd("/default/x")


def test_new_limits_leave_the_monitor_its_allowance() -> None:
    document = {"memory": {"limit": 100, "reservation": None, "swap": -1}, "cpu": {"shares": 5}, "pids": {"limit": 1}}
    assert resources_of(document, 28) == {"memory": {"limit": 128, "swap": -1}, "cpu": {"shares": 5}}
    with pytest.raises(InvalidArgument):
        resources_of({"memory": {"limit": "1"}}, 28)


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("/run/fifo/x", Place("fifo", "/run/fifo/x")),
        ("fifo:///run/fifo/x", Place("fifo", "/run/fifo/x")),
        ("file:///var/log/a%20b", Place("file", "/var/log/a b")),
        ("binary:///bin/log?-k=v&flag", Place("binary", "/bin/log", ("-k", "v", "flag"))),
    ],
)
def test_streams_are_paths_and_uris(uri: str, place: Place) -> None:
    assert parse(uri) == place


@pytest.mark.parametrize("uri", ["relative", "file://", "binary:///a/../b", "x" * 5000, "/a\nb"])
def test_what_is_no_stream_is_refused(uri: str) -> None:
    with pytest.raises(InvalidArgument):
        parse(uri)


def test_streams_of_another_kind_are_not_offered() -> None:
    with pytest.raises(Unimplemented, match="ttrpc"):
        parse("ttrpc+unix:///run/x?streaming_id=y")


def test_a_relay_is_made_only_for_version_3_over_ttrpc() -> None:
    answer = {"version": 3, "address": "unix:///run/s/x", "protocol": "ttrpc"}
    assert upstream_of(json.dumps(answer).encode()) == "/run/s/x"
    result = bootstrap_pb2.BootstrapResult(version=3, address="unix:///run/s/x", protocol="ttrpc")
    assert upstream_of(result.SerializeToString()) == "/run/s/x"
    for other in (b"unix:///run/s/x", b"", b"\xff", json.dumps(answer | {"version": 2}).encode(), b"[]", b"{"):
        assert upstream_of(other) == ""


def test_a_task_goes_only_forward() -> None:
    for before, after in ((a, b) for a in TaskState for b in TaskState):
        if after in TRANSITIONS[before]:
            check("t", before, after)
        else:
            with pytest.raises(FailedPrecondition, match=before.value):
                check("t", before, after)
    assert TRANSITIONS[TaskState.STOPPED] == {TaskState.DELETING}


def test_a_monitor_that_cannot_have_its_guest_halted_is_started_when_the_guest_is() -> None:
    for monitor, halts in (("qemu", True), ("uml", False), ("firecracker", False)):
        guest = GuestConfig("linux", monitor, "/k", initrd="/i")
        assert decide("t", Spec(), guest, Wishes(), defaults(), []).halts is halts
    with pytest.raises(Unimplemented, match="'hyperlight-unikraft' is known but not offered"):
        decide("t", Spec(), GuestConfig("unikraft", "hyperlight-unikraft", "/k"), Wishes(), defaults(), [])


def test_a_network_that_a_monitor_has_not_is_left_out_or_refused() -> None:
    network = Network("/proc/7/ns/net", "", Forwarded(), if_apart=True, way=Way.TAP)
    settings = decide("t", Spec(), GuestConfig("linux", "uml", "/k", initrd="/i"), Wishes(), defaults(), [])
    found = with_network(settings, network)
    assert (found.network, found.left_out) == (
        None,
        ("the monitor uml has no network of the kind tap: its guest has none",),
    )
    with pytest.raises(InvalidArgument, match="the monitor uml has no network of the kind user"):
        with_network(settings, network._replace(if_apart=False, way=Way.USER))
    qemu = settings._replace(guest=settings.guest._replace(monitor="qemu"))
    assert with_network(qemu, network).network == network
    assert with_network(settings, None).left_out == ()


def test_a_pod_that_does_not_pay_for_the_monitor_has_the_guest_pay() -> None:
    spec = Spec(memory_limit=256 << 20, cpu={"cpus": "0-2"})
    settings = decide("t", spec, _GUEST, Wishes(), defaults(), [_EXT4], room=256 << 20)
    assert (settings.memory_mib, settings.allowance, settings.on_top, settings.cpus) == (128, 128 << 20, 0, 3)
    settings = decide("t", spec, _GUEST, Wishes(), defaults(), [_EXT4], room=384 << 20)
    assert (settings.memory_mib, settings.allowance, settings.on_top) == (256, 128 << 20, 128 << 20)
    asked = spec._replace(annotations={"org.unikeel.memory": "64MiB"})
    assert decide("t", asked, _GUEST, Wishes(), defaults(), [_EXT4], room=1 << 20).memory_mib == 64
    assert (settings.rootfs, settings.rootfs_reason) == ("snapshot", "mountRootfs, and generic can use ext4")
