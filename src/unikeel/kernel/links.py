"""Links of a network namespace with their addresses and default routes, as rtnetlink(7) tells them; in that of the calling thread.

The numbers are those of linux/if_link.h, linux/if_addr.h and linux/rtnetlink.h.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

from unikeel.kernel.netlink import CREATE, EXCLUSIVE, Netlink, Request, attribute, attributes
from unikeel.lean import Final
from unikeel.values import NamedTuple

_NEW_LINK, _DELETE_LINK, _GET_LINK = 16, 17, 18
_NEW_ADDRESS, _GET_ADDRESS, _GET_ROUTE = 20, 22, 26
_LINK: Final = struct.Struct("=BxHiII")
_ADDRESS: Final = struct.Struct("=BBBBi")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_UP: Final = 1
_LOOPBACK: Final = 8
_MAIN: Final = 254
_UNICAST: Final = 1
#: Of addresses: not usable yet, or never (duplicate), or on its way out.
_UNUSABLE: Final = 0x08 | 0x20
_UNIVERSE: Final = 0
_LENGTHS: Final = {socket.AF_INET: 4, socket.AF_INET6: 16}


class Link(NamedTuple):
    """A network interface. ``mtu`` is in bytes."""

    number: int
    name: str
    mac: str
    mtu: int
    up: bool
    loopback: bool


class Address(NamedTuple):
    """An address of an interface; ``family`` is AF_INET or AF_INET6, ``prefix`` in bits."""

    number: int
    family: int
    address: str
    prefix: int


class Route(NamedTuple):
    """A default route. An empty ``gateway``: everybody is reached directly. The lowest ``metric`` wins."""

    number: int
    family: int
    gateway: str
    metric: int


def links(netlink: Netlink) -> list[Link]:
    """All interfaces, in the order of their numbers."""
    found = []
    for body in netlink.dump(_GET_LINK, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        _, _, index, flags, _ = _LINK.unpack_from(body)
        values = attributes(body[_LINK.size :])
        name = values.get(3, b"").rstrip(b"\0").decode(errors="replace")
        mac = values.get(1, b"").hex(":")
        mtu = int.from_bytes(values.get(4, b""), "little")
        found.append(Link(index, name, mac, mtu, bool(flags & _UP), bool(flags & _LOOPBACK)))
    return sorted(found)


def addresses(netlink: Netlink) -> list[Address]:
    """All addresses that can be used from elsewhere, in the kernel's order."""
    found = []
    for body in netlink.dump(_GET_ADDRESS, _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        family, prefix, flags, scope, index = _ADDRESS.unpack_from(body)
        values = attributes(body[_ADDRESS.size :])
        raw = values.get(2) or values.get(1, b"")  # IFA_LOCAL, else IFA_ADDRESS
        if scope == _UNIVERSE and not flags & _UNUSABLE and len(raw) == _LENGTHS.get(family):
            found.append(Address(index, family, socket.inet_ntop(family, raw), prefix))
    return found


def default_routes(netlink: Netlink) -> list[Route]:
    """The default routes of the main table, the preferred one of each family first."""
    found = []
    for body in netlink.dump(_GET_ROUTE, _ROUTE.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0, 0)):
        family, length, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(body)
        if length or table != _MAIN or kind != _UNICAST or family not in _LENGTHS:
            continue
        values = attributes(body[_ROUTE.size :])
        index = int.from_bytes(values.get(4, b""), "little")
        gateway = values.get(5, b"")
        metric = int.from_bytes(values.get(6, b""), "little")
        if index:
            text = socket.inet_ntop(family, gateway) if len(gateway) == _LENGTHS[family] else ""
            found.append(Route(index, family, text, metric))
    return sorted(found, key=lambda route: (route.family, route.metric))


def up(index: int, mtu: int = 0) -> Request:
    """Bring an interface up, and set its MTU unless that is 0."""
    body = _LINK.pack(socket.AF_UNSPEC, 0, index, _UP, _UP)
    return Request(_NEW_LINK, body + (attribute(4, struct.pack("=I", mtu)) if mtu else b""))


def delete(index: int) -> Request:
    """Delete an interface. The kernel takes its time for it."""
    return Request(_DELETE_LINK, _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0))


def add_address(index: int, address: str, prefix: int) -> Request:
    """Give an interface an IPv4 address."""
    raw = ipaddress.IPv4Address(address).packed
    body = _ADDRESS.pack(socket.AF_INET, prefix, 0, _UNIVERSE, index)
    return Request(_NEW_ADDRESS, body + attribute(2, raw) + attribute(1, raw), CREATE | EXCLUSIVE)
