"""A guest as the neighbour of a container's link: a tap device in its network namespace, and traffic control that hands every frame over.

What comes in at the link goes out at the tap, and the other way round, so that the guest has the link's addresses, its MAC and its MTU. The link keeps its
configuration; nothing reaches the namespace's own sockets any more.

Nothing here outlives a guest for long, whoever is killed when: the tap is the monitor's open descriptor and goes with it. The filters that led to it lead nowhere then;
:func:`sweep` takes those away, and so does the next guest in the namespace before its own are made.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack

from unikeel.errors import FailedPrecondition, Unavailable
from unikeel.kernel import links, netns, tap, traffic
from unikeel.kernel.fd import OwnedFd
from unikeel.kernel.netlink import Netlink
from unikeel.lean import Final, TypeVar
from unikeel.model.plan import TapNet
from unikeel.network import redirect, stations
from unikeel.network.ports import Forwarded
from unikeel.network.stations import Station
from unikeel.values import NamedTuple

T = TypeVar("T")

VHOST: Final = "/dev/vhost-net"
_PREFIX: Final = "uk-"
#: What the kernel says of a link that somebody has just taken away.
_GONE: Final = frozenset({errno.ENODEV, errno.ENOENT, errno.EINVAL})
#: One set-up or sweep of this process at a time: a sweep between a guest's tap and its filters would find an idle qdisc.
_LOCK: Final = threading.Lock()


class Wanted(NamedTuple):
    """What is to be made. ``name`` is the device's; ``virtio``, ``queues``, ``owner``: as of :func:`unikeel.kernel.tap.create`.

    ``ports``: what the guest gets if another has taken the link already; None: then there is an error.
    """

    name: str
    virtio: bool = True
    queues: int = 1
    owner: int | None = None
    ports: Forwarded | None = None
    #: Use the kernel's own virtio back end where this host has it.
    vhost: bool = True


class Attached(NamedTuple):
    """A guest's network, the descriptors of its tap, and as many of vhost-net, or none."""

    net: TapNet
    fds: tuple[int, ...]
    vhost: tuple[int, ...]


def name_of(ident: str) -> str:
    """What the tap of a container is called: no two of a host have the same name."""
    return (
        _PREFIX + hashlib.sha256(ident.encode("utf-8", "surrogateescape")).hexdigest()[: tap.NAME_LIMIT - len(_PREFIX)]
    )


def attach(namespace: OwnedFd, wanted: Wanted, dns: str, stack: ExitStack) -> Attached | None:
    """Make a guest's tap in a namespace; descriptors are closed by ``stack``. None: there is no link.

    :raise FailedPrecondition: no link can be taken over, or another guest has it. :raise Unavailable: the kernel lacks something.
    """
    return within(namespace, lambda: _attach(wanted, dns, stack))


def within(namespace: OwnedFd, work: Callable[[], T]) -> T:
    """Do some of this module's work in a namespace. Raises as it does, and Unavailable for what the kernel refuses."""
    with _LOCK:
        try:
            return netns.within(namespace, work)
        except OSError as error:
            raise Unavailable(
                f"the guest's tap device cannot be made: {error.strerror or error}",
                "see `unikeel doctor`; the kernel needs tun, sch_ingress, cls_u32 and act_mirred",
            ) from error


def look() -> Station | None:
    """The link of the calling thread's namespace that a guest takes over. Raises as :func:`unikeel.network.stations.choose`."""
    with Netlink() as netlink:
        return _look(netlink)


def _look(netlink: Netlink) -> Station | None:
    return stations.choose(links.links(netlink), links.addresses(netlink), links.default_routes(netlink))


def _attach(wanted: Wanted, dns: str, stack: ExitStack) -> Attached | None:
    with Netlink() as netlink:
        station = _look(netlink)
        if station is None:
            return None
        _sweep(netlink, station.number)
        fds = tap.create(stack, wanted.name, virtio=wanted.virtio, queues=wanted.queues, owner=wanted.owner)
        index = socket.if_nametoindex(wanted.name)
        netlink.order(
            links.up(index, station.mtu), traffic.add_ingress(index), traffic.add(index, redirect.back(station.number))
        )
        _lead(netlink, station, index, wanted.ports)
    vhost = open_vhost(wanted, stack)
    if wanted.owner is not None:  # whoever opens it by its name needs its only queue
        for fd in fds:
            fd.close()
        fds = ()
    numbers = tuple(fd.fileno() for fd in fds)
    return Attached(_net(station, wanted, dns, vhost=bool(vhost)), numbers, vhost)


def _lead(netlink: Netlink, station: Station, index: int, ports: Forwarded | None) -> None:
    """Have the link's traffic come to a tap: all of it, or the ports that are named where another guest has the rest."""
    ready, taken = netlink.tell(
        [traffic.add_ingress(station.number), traffic.add(station.number, redirect.everything(index))]
    )
    if ready is not None and ready.errno != errno.EEXIST:
        raise ready
    if taken is None:
        return
    if taken.errno not in (errno.EEXIST, errno.ENOSPC):
        raise taken
    if ports is None:
        raise FailedPrecondition(
            f"another guest has the link {station.name} of this network namespace",
            "name the ports of this one with the annotation org.unikeel.ports; it gets those then",
        )
    netlink.order(*(traffic.add(station.number, wanted) for wanted in redirect.shares(index, ports)))


def _net(station: Station, wanted: Wanted, dns: str, *, vhost: bool) -> TapNet:
    ipv4 = station.ipv4 or stations.Place("", 0, "")
    ipv6 = station.ipv6 or stations.Place("", 0, "")
    gateway = ipv4.gateway
    if ipv4.address and not gateway:
        gateway = stations.neighbour(ipv4.address, ipv4.prefix)
    return TapNet(
        address=ipv4.address,
        prefix=ipv4.prefix,
        gateway=gateway,
        dns=dns,
        mac=station.mac,
        name=wanted.name,
        mtu=station.mtu,
        address6=ipv6.address,
        prefix6=ipv6.prefix,
        gateway6=ipv6.gateway,
        queues=wanted.queues,
        vhost=vhost,
    )


def open_vhost(wanted: Wanted, stack: ExitStack) -> tuple[int, ...]:
    """Descriptors of the kernel's virtio back end for each queue; none where the host has no such thing, or frames are bare."""
    if not (wanted.vhost and wanted.virtio and wanted.owner is None):
        return ()
    found = []
    for _ in range(wanted.queues):
        try:
            found.append(stack.enter_context(OwnedFd(os.open(VHOST, os.O_RDWR | os.O_CLOEXEC))))
        except OSError:
            return ()
    return tuple(fd.fileno() for fd in found)


def sweep(namespace: OwnedFd, name: str = "") -> None:
    """Take away what led to taps that are gone, and first the tap of this name if it is still there. :raise Unavailable: the kernel refuses."""

    def work() -> None:
        with Netlink() as netlink:
            if name and any(found == name for _, found in socket.if_nameindex()):
                netlink.tell([links.delete(socket.if_nametoindex(name))])
            for index in traffic.has_ingress(netlink):
                try:
                    _sweep(netlink, index)
                    if not traffic.filters(netlink, index):
                        netlink.tell([traffic.delete_ingress(index)])
                except OSError as error:
                    if error.errno not in _GONE:
                        raise

    within(namespace, work)


def _sweep(netlink: Netlink, index: int) -> None:
    dead = [found for found in traffic.filters(netlink, index) if not found.target]
    if dead:
        netlink.tell([traffic.delete(index, found) for found in dead])
