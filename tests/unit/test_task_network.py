"""The network of tasks: which ports, which of them have one, what a pod's files say, and the helper's command line."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from unikeel.config import defaults
from unikeel.errors import FailedPrecondition, InvalidArgument, NotFound
from unikeel.kernel import devmapper, netns
from unikeel.kernel.devmapper import Target
from unikeel.model.image_fields import GuestConfig
from unikeel.model.plan import UserNet
from unikeel.network import joined, user
from unikeel.network.ports import USUAL, Forwarded, parse_forwarded
from unikeel.shim.connecting import Way, connect
from unikeel.shim.ocispec import Spec
from unikeel.shim.wishes import Wishes

_LINUX = GuestConfig(type="linux", monitor="qemu", binary="/boot/kernel", mount_rootfs=True)
_GENERIC = _LINUX._replace(type="generic")
_POD = Spec(namespaces={"network": "/proc/7/ns/net"}, apart=True, resolv_conf="/pod/resolv.conf")


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", Forwarded(((80, 80),))),
        ("80/tcp,53/udp,8000-8010", Forwarded(((80, 80), (8000, 8010)), ((53, 53),))),
        ("none", Forwarded()),
    ],
)
def test_ports_are_numbers_and_ranges(text: str, ports: Forwarded) -> None:
    assert parse_forwarded(text) == ports


@pytest.mark.parametrize(
    "text",
    ["", "x", "80,", "0", "65536", "90-80", "80/sctp", "80/", "80 --runas 0", "-80", "80-", ",".join(["80"] * 200)],
)
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ports|ranges"):
        parse_forwarded(text)


def test_who_has_a_network() -> None:
    """By default guests that are told their address at boot, in the namespace of a pod; else who asks for one."""
    config = defaults()
    found = connect(_POD, _LINUX, Wishes(), config)
    assert found is not None
    assert (found.namespace, found.resolv_conf, found.if_apart) == ("/proc/7/ns/net", "/pod/resolv.conf", True)
    assert (found.forwarded, found.named, found.way) == (USUAL, False, Way.TAP)
    assert connect(_POD, _GENERIC, Wishes(), config) is None
    assert connect(Spec(apart=True), _LINUX, Wishes(), config) is None
    assert connect(Spec(), _LINUX, Wishes(), config) is None
    assert connect(_POD, _LINUX, Wishes(network="none"), config) is None
    asked = connect(_POD, _GENERIC, Wishes(network="user"), config)
    assert asked is not None
    assert (asked.if_apart, asked.way) == (False, Way.USER)
    off = _POD._replace(annotations={"org.unikeel.network": "none"})
    assert connect(off, _LINUX, Wishes(network="user"), config) is None


def test_which_ports_lead_to_the_guest() -> None:
    """Those that are asked for, else those that the image names, else the usual ones; of the host's own only what is asked for."""
    config = defaults()
    named = connect(_POD, _LINUX, Wishes(), config, ("80/tcp", "nonsense"))
    assert named is not None
    assert (named.forwarded, named.named) == (Forwarded(((80, 80),)), True)
    chosen = connect(_POD._replace(annotations={"org.unikeel.ports": "81"}), _LINUX, Wishes(), config, ("80/tcp",))
    assert chosen is not None
    assert chosen.forwarded == Forwarded(((81, 81),))
    host = connect(Spec(), _LINUX, Wishes(network="user"), config, ("80/tcp",))
    assert host is not None
    assert host.forwarded == Forwarded()


def test_which_way_a_guest_is_connected() -> None:
    """Knative's guest is known by its name, as urunc knows it; whoever asks for another way gets that."""
    config = defaults()
    knative = _POD._replace(annotations={"io.kubernetes.cri.container-name": "user-container"})
    for spec, wish, way in (
        (_POD, "", Way.TAP),
        (knative, "", Way.STATIC),
        (knative, "tap", Way.TAP),
        (_POD, "static", Way.STATIC),
        (_POD, "user", Way.USER),
    ):
        found = connect(spec, _LINUX, Wishes(network=wish), config)
        assert found is not None
        assert (found.way, found.if_apart) == (way, not wish)
    with pytest.raises(InvalidArgument, match="names no network namespace"):
        connect(Spec(), _LINUX, Wishes(network="tap"), config)


def test_a_monitor_without_such_a_network() -> None:
    config = defaults()
    uml, spt = _LINUX._replace(monitor="uml"), _LINUX._replace(type="mirage", monitor="spt")
    assert connect(_POD, uml, Wishes(), config) is None
    with pytest.raises(InvalidArgument, match="the monitor uml has no network tap"):
        connect(_POD, uml, Wishes(network="tap"), config)
    with pytest.raises(InvalidArgument, match="the monitor spt has no network user"):
        connect(_POD, spt, Wishes(network="user"), config)
    found = connect(_POD, spt, Wishes(), config)
    assert found is not None
    assert found.way is Way.TAP
    assert connect(_POD, _LINUX, Wishes(monitor="uml"), config) is None


def test_a_new_namespace_holds_no_network() -> None:
    with pytest.raises(InvalidArgument, match="--with-ns"):
        connect(Spec(apart=True), _LINUX, Wishes(network="user"), defaults())


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (b"search x\nnameserver 10.96.0.10\nnameserver 1.1.1.1\n", "10.96.0.10"),
        (b"nameserver 127.0.0.53\nnameserver fe80::1\nnameserver 8.8.8.8\n", "8.8.8.8"),
        (b"nameserver\nnameserver 1.2.3.4,x\n\xff\n", ""),
        (b"", ""),
    ],
)
def test_the_name_server_of_a_pod(tmp_path: Path, text: bytes, address: str) -> None:
    (tmp_path / "resolv.conf").write_bytes(text)
    assert joined.nameserver(str(tmp_path / "resolv.conf")) == address


def test_what_is_no_file_names_no_server(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "missing", "."):
        assert joined.nameserver(str(tmp_path / name)) == ""


def test_a_namespace_is_known_by_what_it_is(tmp_path: Path) -> None:
    with netns.open_network("/proc/self/ns/net") as ours:
        assert netns.is_ours(ours)
    (tmp_path / "file").write_bytes(b"")
    for path in (str(tmp_path / "file"), "/proc/self/ns/mnt", "/dev/null"):
        with pytest.raises(FailedPrecondition, match="network namespace"):
            netns.open_network(path)
    with pytest.raises(NotFound):
        netns.open_network(str(tmp_path / "missing"))


def test_the_helper_s_command_line() -> None:
    net = UserNet("10.88.0.2", 16, "10.88.0.1", "10.96.0.10", "52:54:00:00:00:01")
    argv = user.joined_argv("/usr/bin/passt", net, Forwarded(((80, 80), (90, 99))), "eth0", 70000)
    assert argv[1:3] == ["--net=/proc/self/fd/4", "/usr/bin/passt"]
    text = " ".join(argv)
    for part in (
        "--fd 3",
        "--runas 70000:70000",
        "--address 10.88.0.2 --netmask 255.255.0.0 --gateway 10.88.0.1",
        "--interface eth0",
        "--dns 10.96.0.10",
        "--tcp-ports 80,90-99",
        "--udp-ports none",
    ):
        assert part in text
    assert "--dns-forward" not in text


def test_a_table_of_device_mapper_is_read() -> None:
    spec = struct.Struct("=Q Q i I 16s")
    first = spec.pack(0, 8, 0, 64, b"thin") + b"252:0 5\0"
    data = first.ljust(64, b"\0") + spec.pack(8, 8, 0, 0, b"linear") + b"7:0 0\0"
    assert devmapper.parse(data, 2) == (
        Target(0, 4096, "thin", "252:0 5"),
        Target(4096, 4096, "linear", "7:0 0"),
    )
    for cut in (data[:20], data[: spec.size + 3]):
        with pytest.raises(FailedPrecondition, match="cut short"):
            devmapper.parse(cut, 1)
