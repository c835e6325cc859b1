"""Ports: published ones, ``[ADDRESS:]HOST:GUEST[/tcp|udp]``, and those that a guest answers on at an address of its own, ``FIRST[-LAST][/tcp|udp],…``."""

from __future__ import annotations

import errno
from contextlib import closing

from unikeel.errors import AlreadyExists, InvalidArgument, PermissionDenied
from unikeel.lean import Final, socket
from unikeel.values import NamedTuple

_PROTOCOLS: Final = ("tcp", "udp")
_HINT: Final = "write HOST:GUEST, as in -p 8080:80, with an IPv4 address before it or /udp behind it if wanted"


class Port(NamedTuple):
    """One published port. An empty address means all of the host's."""

    address: str
    host: int
    guest: int
    protocol: str

    def __str__(self) -> str:
        return f"{self.address or '0.0.0.0'}:{self.host}->{self.guest}/{self.protocol}"  # noqa: S104 - shown, not bound


def parse(text: str) -> Port:
    """One ``-p`` value. :raise InvalidArgument: it is not of that form, or out of range."""
    body, slash, protocol = text.partition("/")
    protocol = protocol if slash else "tcp"
    address, _, rest = body.rpartition(":")[0].rpartition(":")
    host, guest = rest, body.rpartition(":")[2]
    if protocol not in _PROTOCOLS or not _is_port(host) or not _is_port(guest):
        raise InvalidArgument(f"{text!r} does not name ports to publish", _HINT)
    if address:
        try:
            socket.inet_pton(socket.AF_INET, address)
        except OSError:
            raise InvalidArgument(f"{address!r} in {text!r} is not an IPv4 address", _HINT) from None
    return Port(address, int(host), int(guest), protocol)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535


class Forwarded(NamedTuple):
    """Ports that lead to a guest under the same number: first and last of each range."""

    tcp: tuple[tuple[int, int], ...] = ()
    udp: tuple[tuple[int, int], ...] = ()


#: Of a guest whose image does not say what it answers on. Each port is a socket, which takes some 4 KiB of the host's memory.
USUAL: Final = Forwarded(tcp=((1, 1023), (8000, 8999)), udp=((1, 1023),))
_MOST_RANGES: Final = 128


def parse_forwarded(text: str) -> Forwarded:
    """``80,443/tcp,53/udp,8000-8010``, or ``none``. :raise ValueError: it is not of that form."""
    found: dict[str, list[tuple[int, int]]] = {"tcp": [], "udp": []}
    words = [] if text == "none" else text.split(",")
    for word in words:
        body, slash, protocol = word.partition("/")
        first, dash, last = body.partition("-")
        last = last if dash else first
        if (
            (slash and protocol not in _PROTOCOLS)
            or not _is_port(first)
            or not _is_port(last)
            or int(first) > int(last)
        ):
            raise ValueError("must be ports such as 80,443/tcp,53/udp,8000-8010, or none")
        found[protocol or "tcp"].append((int(first), int(last)))
    if len(words) > _MOST_RANGES:
        raise ValueError(f"can have {_MOST_RANGES} ranges at most")
    return Forwarded(tuple(found["tcp"]), tuple(found["udp"]))


def check_free(ports: tuple[Port, ...]) -> None:
    """See that the ports can be bound now.

    :raise AlreadyExists: one is in use. :raise PermissionDenied: one may not be bound. :raise InvalidArgument: one is named twice, or its
        address is not of this host.
    """
    if len({(port.host, port.protocol, port.address) for port in ports}) != len(ports):
        raise InvalidArgument("a host port is published twice", "publish each host port once")
    for port in ports:
        kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
        with closing(socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((port.address, port.host))
                if kind == socket.SOCK_STREAM:
                    probe.listen(1)
            except OSError as error:
                raise _bind_error(port, error) from error


def _bind_error(port: Port, error: OSError) -> Exception:
    where = f"port {port.host}/{port.protocol}" + (f" of {port.address}" if port.address else "")
    if error.errno == errno.EADDRINUSE:
        return AlreadyExists(f"{where} is in use on this host", "publish another one, or stop what listens there")
    if error.errno == errno.EACCES:
        return PermissionDenied(f"{where} may not be bound", "publish a port above 1023")
    return InvalidArgument(f"{where} cannot be bound: {error.strerror}", "name an address of this host")
