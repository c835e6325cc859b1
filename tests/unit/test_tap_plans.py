"""Which link a guest takes over, which frames come to it, what CNI's plugins are told, and the plans with taps: all without a device."""

from __future__ import annotations

import json
import socket
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unikeel.engine.preparing import in_order
from unikeel.errors import FailedPrecondition, InvalidArgument, NotFound, UnikeelError
from unikeel.guests import guest
from unikeel.kernel import netlink
from unikeel.kernel.links import Address, Link, Route
from unikeel.kernel.traffic import ARP, IPV4, IPV6
from unikeel.model.image_fields import GuestConfig
from unikeel.model.plan import FileRole, LaunchRequest, TapNet
from unikeel.monitors import plan
from unikeel.monitors.contract import Facts
from unikeel.network import conflist, redirect, stations, tap
from unikeel.network.ports import Forwarded, Port
from unikeel.network.stations import Place, Station

_MAC = "02:00:00:00:00:01"
_LO = Link(1, "lo", "00:00:00:00:00:00", 65536, up=True, loopback=True)
_ETH = Link(3, "eth0", _MAC, 1450, up=True, loopback=False)
_OTHER = Link(2, "net1", "02:00:00:00:00:02", 1500, up=True, loopback=False)
_TUNNEL = Link(4, "sit0", "", 1480, up=False, loopback=False)
_FOUR = Address(3, socket.AF_INET, "10.1.0.7", 16)
_SIX = Address(3, socket.AF_INET6, "fd00::7", 64)


def test_the_first_link_with_an_address_and_a_default_route() -> None:
    other = Address(2, socket.AF_INET, "10.2.0.7", 16)
    routes = [Route(3, socket.AF_INET, "10.1.0.1", 0), Route(3, socket.AF_INET6, "fd00::1", 0)]
    found = stations.choose([_LO, _OTHER, _ETH, _TUNNEL], [other, _FOUR, _SIX], routes)
    assert found == Station(3, "eth0", _MAC, 1450, Place("10.1.0.7", 16, "10.1.0.1"), Place("fd00::7", 64, "fd00::1"))
    without = stations.choose([_LO, _OTHER, _ETH], [other, _FOUR], [])
    assert without is not None
    assert (without.name, without.ipv4) == ("net1", Place("10.2.0.7", 16, ""))


def test_a_route_without_a_gateway_leads_to_a_neighbour() -> None:
    """Some plugins have a guest reach everybody directly, by proxy ARP."""
    found = stations.choose([_ETH], [_FOUR], [Route(3, socket.AF_INET, "", 0)])
    assert found is not None
    assert found.ipv4 == Place("10.1.0.7", 16, "10.1.0.1")
    assert stations.neighbour("10.1.0.1", 24) == "10.1.0.2"
    assert stations.neighbour("10.1.0.1", 32) == "10.1.0.1"


def test_no_link_is_no_error_and_one_without_an_address_is() -> None:
    assert stations.choose([_LO, _TUNNEL], [], []) is None
    with pytest.raises(FailedPrecondition, match="no link of the network namespace has an address: eth0"):
        stations.choose([_LO, _ETH], [], [])
    with pytest.raises(FailedPrecondition, match="no Ethernet link"):
        stations.choose([_ETH._replace(mac="")], [_FOUR], [])


@given(st.integers(1, 65535), st.integers(1, 65535))
def test_blocks_are_the_range(one: int, two: int) -> None:
    first, last = sorted((one, two))
    blocks = list(redirect.blocks(first, last))
    covered = chain.from_iterable(range(value, value + 0x10000 - mask) for value, mask in blocks)
    assert list(covered) == list(range(first, last + 1))
    assert all(value & mask == value for value, mask in blocks)
    assert len(blocks) <= 30


def test_a_further_guest_gets_its_ports_and_hears_of_addresses() -> None:
    found = list(redirect.shares(9, Forwarded(((80, 80),), ((53, 53),))))
    assert [(each.protocol, each.copy, len(each.keys)) for each in found] == [
        (ARP, True, 0),
        (IPV6, True, 1),
        (IPV4, False, 2),
        (IPV6, False, 2),
        (IPV4, False, 2),
        (IPV6, False, 2),
    ]
    assert {each.target for each in found} == {9}


def test_names_of_taps_fit_and_differ() -> None:
    names = {tap.name_of(f"container-{number}") for number in range(1000)}
    assert len(names) == 1000
    assert all(len(name) <= 15 and name.isascii() for name in names)


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=20)), max_size=8), st.binary(max_size=3))
def test_attributes_are_read_as_written(pairs: list[tuple[int, bytes]], rest: bytes) -> None:
    data = b"".join(netlink.attribute(kind, value) for kind, value in pairs)
    assert netlink.attributes(data + rest) == dict(pairs)


@given(st.binary(max_size=60))
def test_attributes_that_are_cut_short_are_no_crash(data: bytes) -> None:
    assert all(value in data for value in netlink.attributes(data).values())


# -- CNI -----------------------------------------------------------------------------------------------------------------

_PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
_LIST = {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge", "mtu": 1400}, _PORTMAP]}


def test_what_a_plugin_is_told() -> None:
    network = conflist.parse(json.dumps(_LIST), "net.conflist")
    ports = (Port("", 8080, 80, "tcp"), Port("127.0.0.1", 53, 53, "udp"))
    first = json.loads(conflist.derived(network, network.plugins[0], None, ports))
    assert first == {"cniVersion": "1.0.0", "name": "net", "type": "bridge", "mtu": 1400}
    assert json.loads(conflist.derived(network, network.plugins[1], {"ips": []}, ports)) == {
        "cniVersion": "1.0.0",
        "name": "net",
        "type": "portmap",
        "snat": True,
        "prevResult": {"ips": []},
        "runtimeConfig": {
            "portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
                {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "127.0.0.1"},
            ]
        },
    }
    assert network.publishes
    alone = conflist.parse('{"cniVersion":"0.3.1","name":"one","type":"ptp"}', "one.conf")
    assert (alone.name, alone.publishes, len(alone.plugins)) == ("one", False, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is not an object"),
        ('{"name":"n","plugins":[]}', "no list of plugins"),
        ('{"plugins":[{"type":"x"}]}', "the network's name"),
        ('{"name":"../n","plugins":[{"type":"x"}]}', "the network's name"),
        ('{"name":"n","cniVersion":"one","plugins":[{"type":"x"}]}', "cniVersion"),
        ('{"name":"n","plugins":[{"type":"../../bin/sh"}]}', "without a path"),
        ('{"name":"n","plugins":["x"]}', "is not an object"),
        ('{"name":"n","plugins":[{"type":"x","capabilities":[]}]}', "capabilities"),
    ],
)
def test_what_is_no_network_is_a_sentence(text: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        conflist.parse(text, "net.conflist")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["name", "plugins", "type", "cniVersion", "capabilities", "dns", "nameservers", "msg"]) | st.text(), inner)))  # fmt: skip
def test_no_configuration_and_no_answer_is_a_crash(value: object) -> None:
    text = json.dumps(value)
    for parse in (lambda: conflist.parse(text, "x"), lambda: conflist.name_server(conflist.result(text.encode(), "x"))):
        try:
            parse()
        except UnikeelError:
            continue
    assert "\n" not in conflist.complaint(text.encode())


def test_a_network_is_found_by_its_file_and_by_its_name(tmp_path: object) -> None:
    directory = str(tmp_path)
    path = f"{directory}/10-net.conflist"
    with open(path, "w", encoding="utf-8") as file:
        json.dump(_LIST, file)
    with open(f"{directory}/00-broken.conf", "w", encoding="utf-8") as file:
        file.write("{")
    assert conflist.find("net", directory) == (path, json.dumps(_LIST))
    assert conflist.find(path, "/nowhere")[0] == path
    with pytest.raises(NotFound, match="there is no network 'nett'") as refused:
        conflist.find("nett", directory)
    assert "did you mean net?" in refused.value.hint


# -- plans ---------------------------------------------------------------------------------------------------------------

_FACTS = Facts("/usr/bin/monitor", (99, 0), ("/usr/bin/monitor",), "")


def request(monitor: str, network: TapNet) -> LaunchRequest:
    config = GuestConfig(type="linux", monitor=monitor, binary="/kernel")
    return LaunchRequest("web", config, ("/app",), (), 256, 2, "q35", "kvm", network=network)


def options(monitor: str, network: TapNet) -> str:
    return " ".join(plan(request(monitor, network), _FACTS).argv)


_NET = TapNet("10.1.0.7", 16, "10.1.0.1", "", _MAC, "uk-1", mtu=1450)


def test_queues_and_vhost_of_qemu() -> None:
    """The netdev's options: qemu(1), ``-netdev tap``; two vectors for each queue and two more: hw/net/virtio-net.c."""
    many = _NET._replace(queues=2, vhost=True)
    files = plan(request("qemu", many), _FACTS).files
    roles = [file.role for file in files]
    assert roles.count(FileRole.NET) == roles.count(FileRole.VHOST) == 2
    first, back = 3 + roles.index(FileRole.NET), 3 + roles.index(FileRole.VHOST)
    text = options("qemu", many)
    assert f"-netdev tap,id=net0,fds={first}:{first + 1},vhost=on,vhostfds={back}:{back + 1}" in text
    assert "host_mtu=1450,mq=on,vectors=6" in text
    single = options("qemu", _NET._replace(vhost=True))
    assert f"-netdev tap,id=net0,fd={first},vhost=on,vhostfd={first + 1}" in single
    assert "mq=" not in single
    several = {FileRole.NET: (50, 51), FileRole.VHOST: (60, 61)}
    numbers = in_order(plan(request("qemu", many), _FACTS), dict.fromkeys(FileRole, 9), several)
    assert [number for number in numbers if number != 9] == [50, 51, 60, 61]


def test_queues_of_cloud_hypervisor() -> None:
    """As ``cloud-hypervisor --help`` has it: ``num_queues`` counts both directions."""
    assert "--net fd=[4,5],num_queues=4,mac=" in options("cloud-hypervisor", _NET._replace(queues=2))
    assert "--net fd=4,mac=" in options("cloud-hypervisor", _NET)


@pytest.mark.parametrize("kind", ["linux", "unikraft", "mewz", "mirage", "hermit", "rumprun"])
def test_a_guest_without_an_ipv4_address_is_told_none(kind: str) -> None:
    """It finds its own by router advertisements."""
    six = _NET._replace(address="", prefix=0, gateway="", address6="fd00::7", prefix6=64, gateway6="fd00::1")
    asked = request("qemu", six)
    line = guest(kind).cmdline(asked._replace(guest=asked.guest._replace(type=kind)))
    assert not any(word in line for word in ("ip=", "ipv4", "fd00", "inet"))
