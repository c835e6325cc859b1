"""Taps in real network namespaces: who gets which frames, what is left afterwards, and what iproute2 says of what we have made."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from network_world import (
    ADDRESS,
    ADDRESS6,
    GATEWAY,
    GATEWAY6,
    FakeGuest,
    inside,
    namespaces,
    ping,
    pod_and_peer,
    send_datagram,
    until,
)
from unikeel.errors import FailedPrecondition, Unavailable
from unikeel.kernel import netns
from unikeel.network import tap
from unikeel.network.ports import parse_forwarded
from unikeel.network.tap import Attached, Wanted


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[str, str]]:
    with pod_and_peer(str(tmp_path)) as found:
        yield found


def attach(pod: str, stack: ExitStack, name: str = "uk-test", **wanted: object) -> Attached:
    """A guest's tap in a pod's namespace."""
    with netns.open_network(pod) as namespace:
        found = tap.attach(namespace, Wanted(name, **wanted), "10.9.0.53", stack)  # type: ignore[arg-type]  # by name
    assert found is not None
    return found


def sweep(pod: str) -> None:
    with netns.open_network(pod) as namespace:
        tap.sweep(namespace)


def guest(found: Attached) -> FakeGuest:
    return FakeGuest(found.fds[0], ADDRESS, found.net.mac)


def filters(pod: str) -> list[dict[str, object]]:
    """What leads away from the pod's link, as tc(8) shows it."""
    found: list[dict[str, object]] = json.loads(inside(pod, "tc", "-json", "filter", "show", "dev", "e0", "ingress"))
    return [entry for entry in found if "actions" in entry.get("options", {})]  # type: ignore[operator]  # JSON


def devices(pod: str) -> dict[str, dict[str, object]]:
    return {link["ifname"]: link for link in json.loads(inside(pod, "ip", "-json", "-details", "link"))}


def test_a_guest_takes_the_link_over(world: tuple[str, str]) -> None:
    pod, peer = world
    before = devices(pod)["e0"]
    with ExitStack() as stack:
        found = attach(pod, stack)
        net = found.net
        assert (net.address, net.prefix, net.gateway, net.dns) == (ADDRESS, 24, GATEWAY, "10.9.0.53")
        assert (net.address6, net.prefix6, net.gateway6) == (ADDRESS6, 64, GATEWAY6)
        assert (net.mac, net.mtu, net.name) == (before["address"], 1400, "uk-test")
        made = devices(pod)["uk-test"]
        assert made["mtu"] == 1400
        # It goes with its descriptor, whoever is killed.
        assert made["linkinfo"]["info_data"]["persist"] is False  # type: ignore[index]  # JSON
        (entry,) = filters(pod)
        assert (entry["protocol"], entry["kind"]) == ("all", "u32")
        with guest(found):
            assert ping(peer, ADDRESS)
    assert "uk-test" not in devices(pod)
    sweep(pod)
    assert filters(pod) == []
    assert "ingress" not in inside(pod, "tc", "qdisc", "show", "dev", "e0")
    assert ping(peer, ADDRESS)  # the namespace itself answers again


def test_a_guest_is_replaced(world: tuple[str, str]) -> None:
    """What led to the one before is taken away by its successor, if nobody has done that."""
    pod, peer = world
    for name in ("uk-a", "uk-b", "uk-c"):
        with ExitStack() as stack:
            found = attach(pod, stack, name)
            assert len(filters(pod)) == 1
            with guest(found):
                assert ping(peer, ADDRESS)


def test_two_guests_share_an_address(world: tuple[str, str]) -> None:
    """The second gets the ports that it names, and the first all else; each is told who has which address."""
    pod, peer = world
    with ExitStack() as stack:
        first = attach(pod, stack, "uk-a")
        with pytest.raises(FailedPrecondition, match="another guest has the link e0"):
            attach(pod, stack, "uk-no")
        second = attach(pod, stack, "uk-b", ports=parse_forwarded("53/udp,8000-8010"))
        assert first.net.mac == second.net.mac
        with guest(first) as one, guest(second) as two:
            assert ping(peer, ADDRESS)
            for port in (53, 54):
                send_datagram(peer, ADDRESS, port)
            until(lambda: 54 in one.ports and 53 in two.ports, "the datagrams come")
            assert 53 not in one.ports
            assert 54 not in two.ports


def test_several_queues_and_a_device_by_name(world: tuple[str, str]) -> None:
    pod, _ = world
    with ExitStack() as stack:
        found = attach(pod, stack, "uk-many", queues=3)
        assert (len(found.fds), found.net.queues) == (3, 3)
        assert devices(pod)["uk-many"]["linkinfo"]["info_data"]["multi_queue"] is True  # type: ignore[index]  # JSON
    sweep(pod)
    with ExitStack() as stack:
        assert attach(pod, stack, "uk-named", owner=4321).fds == ()
    data = devices(pod)["uk-named"]["linkinfo"]["info_data"]  # type: ignore[index]  # JSON
    assert (data["persist"], data["user"]) == (True, 4321)
    with netns.open_network(pod) as namespace:
        tap.sweep(namespace, "uk-named")
    assert "uk-named" not in devices(pod)
    assert filters(pod) == []


def test_what_cannot_be_is_a_sentence(world: tuple[str, str]) -> None:
    pod, _ = world
    with ExitStack() as stack:
        attach(pod, stack, "uk-a")
        with pytest.raises(Unavailable, match="tap device cannot be made"):
            attach(pod, stack, "uk-a")
    sweep(pod)
    inside(pod, "ip", "addr", "flush", "dev", "e0")
    with (
        ExitStack() as stack,
        pytest.raises(FailedPrecondition, match="no link of the network namespace has an address"),
    ):
        attach(pod, stack)
    inside(pod, "ip", "link", "set", "e0", "down")
    with ExitStack() as stack, netns.open_network(pod) as namespace:
        assert tap.attach(namespace, Wanted("uk-a"), "", stack) is None


def test_the_first_link_with_a_route_is_taken(tmp_path: Path) -> None:
    with namespaces(str(tmp_path), "pod") as (pod,):
        lines = ["link add a0 type veth peer name a1", "link set a0 up", "addr add 10.8.0.2/24 dev a0"]
        lines += ["link add b0 type veth peer name b1", "link set b0 up", "addr add fd0b::2/64 dev b0 nodad"]
        lines += ["link set a1 up", "link set b1 up", "route add default via fd0b::1 dev b0"]
        inside(pod, "ip", "-batch", "-", stdin="\n".join(lines))
        with ExitStack() as stack:
            net = attach(pod, stack).net
        assert (net.address, net.address6, net.gateway6) == ("", "fd0b::2", "fd0b::1")


def test_a_namespace_is_not_ours_to_change(tmp_path: Path) -> None:
    """All is done in a thread that ends: this process's namespace has none of it."""
    before = socket.if_nameindex()
    with pod_and_peer(str(tmp_path)) as (pod, _), ExitStack() as stack:
        attach(pod, stack)
        assert socket.if_nameindex() == before
