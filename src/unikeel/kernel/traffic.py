"""Traffic control: what comes in at one interface goes out at another (tc-u32(8), tc-mirred(8)); in the calling thread's network namespace.

``u32`` because every kernel has it; ``matchall`` is missing on some. The numbers are those of linux/pkt_sched.h, linux/pkt_cls.h and linux/tc_act/tc_mirred.h.
"""

from __future__ import annotations

import socket
import struct

from unikeel.kernel.netlink import CREATE, EXCLUSIVE, Netlink, Request, attribute, attributes
from unikeel.lean import Final
from unikeel.values import NamedTuple

#: Ethernet protocols (linux/if_ether.h).
EVERY_PROTOCOL: Final = 0x0003
IPV4: Final = 0x0800
ARP: Final = 0x0806
IPV6: Final = 0x86DD

_NEW_QDISC, _DELETE_QDISC, _GET_QDISC = 36, 37, 38
_NEW_FILTER, _DELETE_FILTER, _GET_FILTER = 44, 45, 46
_TC: Final = struct.Struct("=BxxxiIII")
_INGRESS: Final = 0xFFFF0000
_INGRESS_PARENT: Final = 0xFFFFFFF1
_KIND, _OPTIONS = 1, 2
_CLASS, _SELECTOR, _ACTIONS = 1, 5, 7
_TERMINAL: Final = 1
_MIRRED_PARAMETERS: Final = 2
_MIRRED: Final = struct.Struct("=IIiiiiI")
_STOLEN: Final = 4
_GO_ON: Final = -1
_REDIRECT, _MIRROR = 1, 2


class Key(NamedTuple):
    """Bits of a packet, behind its Ethernet header: four bytes at ``offset`` under ``mask`` are ``value``."""

    offset: int
    mask: int
    value: int


class Filter(NamedTuple):
    """One filter of an interface's incoming packets.

    ``protocol`` is Ethernet's. ``priority`` 0: before all that there are. ``target`` is the number of the interface that packets leave at, 0: it is gone. ``copy``: a copy of
    them does, and the next filter sees them, too. ``handle`` 0: any; else there can be only one of this priority with it.
    """

    protocol: int
    target: int
    priority: int = 0
    keys: tuple[Key, ...] = ()
    copy: bool = False
    handle: int = 0


def add_ingress(index: int) -> Request:
    """Let an interface have filters of what comes in. Fails with EEXIST if it can."""
    return Request(
        _NEW_QDISC,
        _TC.pack(socket.AF_UNSPEC, index, _INGRESS, _INGRESS_PARENT, 0) + attribute(_KIND, b"ingress\0"),
        CREATE | EXCLUSIVE,
    )


def delete_ingress(index: int) -> Request:
    """Take all filters of what comes in away."""
    return Request(_DELETE_QDISC, _TC.pack(socket.AF_UNSPEC, index, _INGRESS, _INGRESS_PARENT, 0))


def has_ingress(netlink: Netlink) -> set[int]:
    """The numbers of the interfaces that can have filters of what comes in."""
    found = set()
    for body in netlink.dump(_GET_QDISC, _TC.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        _, index, handle, _, _ = _TC.unpack_from(body)
        if handle == _INGRESS:
            found.add(index)
    return found


def add(index: int, wanted: Filter) -> Request:
    """Add a filter to an interface. Fails with EEXIST if there is one of its priority and handle."""
    action, how = (_GO_ON, _MIRROR) if wanted.copy else (_STOLEN, _REDIRECT)
    mirred = attribute(_MIRRED_PARAMETERS, _MIRRED.pack(0, 0, action, 0, 0, how, wanted.target))
    actions = attribute(1, attribute(_KIND, b"mirred\0") + attribute(_OPTIONS, mirred))
    options = attribute(_CLASS, struct.pack("=I", 0x10000))
    options += attribute(_SELECTOR, _selector(wanted.keys or (Key(0, 0, 0),)))
    options += attribute(_ACTIONS, actions)
    body = _TC.pack(
        socket.AF_UNSPEC,
        index,
        wanted.handle,
        _INGRESS,
        wanted.priority << 16 | socket.htons(wanted.protocol),
    )
    return Request(_NEW_FILTER, body + attribute(_KIND, b"u32\0") + attribute(_OPTIONS, options), CREATE | EXCLUSIVE)


def _selector(keys: tuple[Key, ...]) -> bytes:
    """``struct tc_u32_sel``: the keys' masks and values are in the network's byte order."""
    head = struct.pack("=BBBxHHhhI", _TERMINAL, 0, len(keys), 0, 0, 0, 0, 0)
    return head + b"".join(struct.pack(">II", key.mask, key.value) + struct.pack("=ii", key.offset, 0) for key in keys)


def filters(netlink: Netlink, index: int) -> list[Filter]:
    """An interface's filters that redirect or copy, without their keys."""
    found = []
    for body in netlink.dump(_GET_FILTER, _TC.pack(socket.AF_UNSPEC, index, 0, _INGRESS, 0)):
        _, _, handle, _, info = _TC.unpack_from(body)
        values = attributes(body[_TC.size :])
        actions = attributes(attributes(values.get(_OPTIONS, b"")).get(_ACTIONS, b""))
        mirred = attributes(attributes(actions.get(1, b"")).get(_OPTIONS, b"")).get(_MIRRED_PARAMETERS, b"")
        if values.get(_KIND) == b"u32\0" and len(mirred) >= _MIRRED.size:
            how, target = _MIRRED.unpack_from(mirred)[5:7]
            protocol = socket.ntohs(info & 0xFFFF)
            found.append(Filter(protocol, target, info >> 16, copy=how == _MIRROR, handle=handle))
    return found


def delete(index: int, found: Filter) -> Request:
    """Delete one filter."""
    info = found.priority << 16 | socket.htons(found.protocol)
    body = _TC.pack(socket.AF_UNSPEC, index, found.handle, _INGRESS, info)
    return Request(_DELETE_FILTER, body + attribute(_KIND, b"u32\0"))
