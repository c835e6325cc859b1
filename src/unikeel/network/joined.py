"""The network of a pod or another namespace that a guest is to answer in: what its address there is, and who is asked for names."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import socket
import stat
import struct

from unikeel.kernel import netns
from unikeel.kernel.fd import OwnedFd
from unikeel.lean import Final
from unikeel.values import NamedTuple

_LIMIT: Final = 64 << 10
#: Of the namespace of the thread that opens it.
_LOW_PORTS: Final = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
_GET_ADDRESS: Final = 0x8915  # SIOCGIFADDR and others of netdevice(7)
_GET_FLAGS: Final = 0x8913
_GET_MASK: Final = 0x891B
_UP: Final = 1
_LOOPBACK: Final = 8
_REQUEST: Final = struct.Struct("16s24s")
#: proc(5), /proc/net/route: a route in use by way of a gateway.
_BY_GATEWAY: Final = 3


class Link(NamedTuple):
    """An interface with an IPv4 address. ``gateway`` is the default route's; empty: there is none."""

    name: str
    address: str
    prefix: int
    gateway: str


def link_in(namespace: OwnedFd) -> Link | None:
    """The interface of a namespace's default route, else the first that is up and is not the loopback; None: there is none with an address."""
    return netns.within(namespace, _look)


def allow_low_ports(namespace: OwnedFd) -> None:
    """Have whoever is in a namespace bind its low ports, as containerd 2 has it in pods: passt of 2025 and later binds when it has no privileges any more."""

    def allow() -> None:
        with contextlib.suppress(OSError), open(_LOW_PORTS, "w", encoding="ascii") as file:
            file.write("0")

    netns.within(namespace, allow)


def _look() -> Link | None:
    name, gateway = _default_route()
    names = [name] if name else [found for _, found in socket.if_nameindex()]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        for candidate in names:
            with contextlib.suppress(OSError):
                flags = struct.unpack_from("=H", _ask(sock, _GET_FLAGS, candidate))[0]
                if not flags & _UP or flags & _LOOPBACK:
                    continue
                address = socket.inet_ntoa(_ask(sock, _GET_ADDRESS, candidate)[4:8])
                mask = int.from_bytes(_ask(sock, _GET_MASK, candidate)[4:8], "big")
                return Link(candidate, address, mask.bit_count(), gateway)
    return None


def _ask(sock: socket.socket, what: int, name: str) -> bytes:
    """What an interface answers, behind its name."""
    answer: bytes = fcntl.ioctl(sock, what, _REQUEST.pack(name.encode(), bytes(24)))
    return answer[16:]


def _default_route() -> tuple[str, str]:
    """Interface and gateway of the default route; empty: there is none."""
    with open("/proc/thread-self/net/route", encoding="ascii") as file:
        next(file, None)
        for line in file:
            words = line.split()
            if words[1] == "00000000" and int(words[3], 16) & _BY_GATEWAY == _BY_GATEWAY:
                return words[0], socket.inet_ntoa(struct.pack("=I", int(words[2], 16)))
    return "", ""


def nameserver(path: str) -> str:
    """The first IPv4 name server in a ``resolv.conf`` that can be asked from elsewhere; empty: there is none, or no such file."""
    try:
        with OwnedFd(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)) as fd:
            if not stat.S_ISREG(os.fstat(fd.fileno()).st_mode):
                return ""
            text = os.read(fd.fileno(), _LIMIT).decode(errors="replace")
    except OSError:
        return ""
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            with contextlib.suppress(ValueError):
                address = ipaddress.IPv4Address(words[1])
                if not address.is_loopback and not address.is_unspecified:
                    return str(address)
    return ""
