"""Knative's network: the guest beside its pod's proxy, behind a tap that the pod's namespace routes to and translates the addresses of.

The guest is always 172.16.1.2 and the namespace 172.16.1.1, so that a proxy in the pod, which keeps the pod's address for itself, knows where its guest is. Numbers and rules as urunc has them, so that what is made for
it finds the guest; but the rule goes when the guest does.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

from unikeel.errors import FailedPrecondition, Unavailable
from unikeel.kernel import links, tap
from unikeel.kernel.fd import OwnedFd
from unikeel.kernel.netlink import Netlink
from unikeel.kernel.paths import PROGRAM_DIRECTORIES, find_program
from unikeel.kernel.process import spawn
from unikeel.lean import Final
from unikeel.model.plan import TapNet
from unikeel.network.stations import Station
from unikeel.network.tap import Attached, Wanted, look, open_vhost, within

HOST: Final = "172.16.1.1"
GUEST: Final = "172.16.1.2"
PREFIX: Final = 24
#: Of the namespace of the thread that opens it.
_FORWARDING: Final = "/proc/sys/net/ipv4/ip_forward"
_SECONDS: Final = 10.0


def attach(namespace: OwnedFd, wanted: Wanted, dns: str, stack: ExitStack) -> Attached | None:
    """Make a guest's tap in a pod's namespace; descriptors are closed by ``stack``. None: there is no link.

    :raise FailedPrecondition: the pod has such a guest already. :raise Unavailable: the kernel or iptables lacks something.
    """
    return within(namespace, lambda: _attach(wanted, dns, stack))


def _attach(wanted: Wanted, dns: str, stack: ExitStack) -> Attached | None:
    station = look()
    if station is None:
        return None
    with Netlink() as netlink:
        if any(found.address == HOST for found in links.addresses(netlink)):
            raise FailedPrecondition("the pod has a guest with Knative's network already", "run one in each pod")
        fds = tap.create(stack, wanted.name, virtio=wanted.virtio, queues=wanted.queues, owner=wanted.owner)
        number = socket.if_nametoindex(wanted.name)
        netlink.order(links.up(number, station.mtu), links.add_address(number, HOST, PREFIX))
    with open(_FORWARDING, "w", encoding="ascii") as file:
        file.write("1")
    if _iptables("-C", station.name):
        _order(station)
    vhost = open_vhost(wanted, stack)
    net = TapNet(
        GUEST,
        PREFIX,
        HOST,
        dns,
        station.mac,
        wanted.name,
        mtu=station.mtu,
        queues=wanted.queues,
        vhost=bool(vhost),
    )
    if wanted.owner is not None:
        for fd in fds:
            fd.close()
        fds = ()
    return Attached(net, tuple(fd.fileno() for fd in fds), vhost)


def _order(station: Station) -> None:
    said = _iptables("-A", station.name)
    if said:
        raise Unavailable(f"addresses of the pod's guest cannot be translated: {said}", "load the module iptable_nat")


def remove(namespace: OwnedFd) -> None:
    """Take the translation of addresses away. :raise Unavailable: iptables is not there."""

    def work() -> None:
        station = look()
        if station is not None:
            _iptables("-D", station.name)

    within(namespace, work)


def _iptables(command: str, interface: str) -> str:
    """Do something with the rule, in the calling thread's namespace; what iptables complains of. :raise Unavailable: it is not installed."""
    program = find_program("iptables")
    if not program:
        raise Unavailable("Knative's network needs iptables, which is not installed", "apt-get install iptables")
    rule = ["POSTROUTING", "-s", f"{HOST}/{PREFIX}", "-o", interface, "-j", "MASQUERADE"]
    said = os.memfd_create("said", os.MFD_CLOEXEC)
    try:
        environment = {"PATH": ":".join(PROGRAM_DIRECTORIES), "LC_ALL": "C"}
        process = spawn([program, "--wait", "1", "-t", "nat", command, *rule], environment, {2: said})
        ended = process.wait(_SECONDS)
        text = " ".join(os.pread(said, 4096, 0).decode(errors="replace").split())[:300]
    finally:
        os.close(said)
    return "" if ended is not None and not ended.code and not ended.signal else text or "it failed"
