"""Which link of a network namespace a guest takes over, and what it is told: pure decisions."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from unikeel.errors import FailedPrecondition
from unikeel.kernel.links import Address, Link, Route
from unikeel.values import NamedTuple


class Place(NamedTuple):
    """An address with its network's prefix in bits. An empty ``gateway``: there is none."""

    address: str
    prefix: int
    gateway: str


class Station(NamedTuple):
    """A link with what is configured on it: a guest that takes it over has its MAC, its addresses and its MTU."""

    number: int
    name: str
    mac: str
    mtu: int
    ipv4: Place | None
    ipv6: Place | None


def choose(links: Sequence[Link], addresses: Sequence[Address], routes: Sequence[Route]) -> Station | None:
    """The first link that is up and has an address and a default route; else the first with an address. None: no link is up, but loopbacks.

    :raise FailedPrecondition: links are up, and none has an address; or the chosen one has no Ethernet address.
    """
    usable = [link for link in links if link.up and not link.loopback]
    stations = [_station(link, addresses, routes) for link in usable]
    addressed = [station for station in stations if station.ipv4 or station.ipv6]
    routed = [station for station in addressed if _is_routed(station)]
    chosen = next(iter(routed or addressed), None)
    if chosen is None:
        if usable:
            names = ", ".join(link.name for link in usable)
            raise FailedPrecondition(
                f"no link of the network namespace has an address: {names}",
                "configure one before the guest starts, or have the guest go without a network",
            )
        return None
    if len(chosen.mac) != 17 or chosen.mac == "00:00:00:00:00:00":
        raise FailedPrecondition(
            f"the link {chosen.name} is no Ethernet link: a guest cannot take it over",
            "use user-mode networking: org.unikeel.network=user",
        )
    return chosen


def _is_routed(station: Station) -> bool:
    return any(place is not None and place.gateway for place in (station.ipv4, station.ipv6))


def _station(link: Link, addresses: Sequence[Address], routes: Sequence[Route]) -> Station:
    return Station(
        link.number,
        link.name,
        link.mac,
        link.mtu,
        _place(link, socket.AF_INET, addresses, routes),
        _place(link, socket.AF_INET6, addresses, routes),
    )


def _place(link: Link, family: int, addresses: Sequence[Address], routes: Sequence[Route]) -> Place | None:
    own = [found for found in addresses if found.number == link.number and found.family == family]
    if not own:
        return None
    ways = [route for route in routes if route.number == link.number and route.family == family]
    gateway = next((route.gateway for route in ways if route.gateway), "")
    if ways and not gateway:
        # Everybody is reached directly: any neighbour will do for a guest that wants to be told somebody.
        gateway = neighbour(own[0].address, own[0].prefix)
    return Place(own[0].address, own[0].prefix, gateway)


def neighbour(address: str, prefix: int) -> str:
    """Some other address of a network; its own where there is no other."""
    network = ipaddress.ip_network(f"{address}/{prefix}", strict=False)
    return str(next((host for host in network.hosts() if str(host) != address), address))
