"""What networks need of the host: tap devices and traffic control, tried in a network namespace that ends with the trial; CNI's plugins."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from unikeel.doctor.findings import Finding, Level, attempt
from unikeel.errors import Unavailable

if TYPE_CHECKING:
    from unikeel.config import Config

_NAME: Final = "uk-trial"
#: A bridge with addresses of its own is what most networks are made of.
_PLUGINS: Final = ("bridge", "host-local", "portmap")


def tap() -> Finding:
    """Tap devices, for pods and ``--net CONFLIST``: made for real, with the filters."""
    mend = "load the modules tun, sch_ingress, cls_u32, act_mirred; until then guests have user-mode networking"
    return attempt("tap", Level.WARNING, mend, _tried)


def _tried() -> str:
    from unikeel.kernel import links, netns, tap, traffic
    from unikeel.kernel.netlink import Netlink
    from unikeel.network import redirect

    def work() -> None:
        with ExitStack() as stack, Netlink() as netlink:
            tap.create(stack, _NAME, virtio=True)
            number, loopback = socket.if_nametoindex(_NAME), socket.if_nametoindex("lo")
            netlink.order(
                links.up(number, 1400), traffic.add_ingress(number), traffic.add(number, redirect.back(loopback))
            )

    netns.apart_in_new(work)
    vhost = "with vhost-net" if os.path.exists("/dev/vhost-net") else "without vhost-net"
    return f"guests can take over the link of a network namespace, {vhost}"


def cni(config: Config) -> Finding:
    """CNI's plugins, which only ``--net CONFLIST`` needs."""
    from unikeel.network import plugins

    try:
        found = [plugins.find(name, config.network_cni_plugins) for name in _PLUGINS]
    except Unavailable as error:
        return Finding("cni", Level.OK, f"not there, needed for --net CONFLIST only: {error.message}", error.hint)
    return Finding("cni", Level.OK, f"plugins are in {os.path.dirname(found[0])}")
