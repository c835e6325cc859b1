"""A task's network: whether it has one, decided from the caller's configuration and the wishes, and what its guest and its helper get.

The network is passt's, which runs in the namespace that the configuration names, a pod's: the guest has the pod's address there, and the pod's ports lead to it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from unikeel.errors import FailedPrecondition, InvalidArgument, Unavailable
from unikeel.guests import guest as find_guest
from unikeel.model.plan import UserNet
from unikeel.shim import wishes
from unikeel.values import NamedTuple

if TYPE_CHECKING:
    from unikeel.config import Config
    from unikeel.engine.tasks import Task
    from unikeel.model.image_fields import GuestConfig
    from unikeel.network.ports import Forwarded
    from unikeel.shim.node import Node
    from unikeel.shim.ocispec import Spec
    from unikeel.shim.wishes import Wishes

_HELPER_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.005


class Network(NamedTuple):
    """A network that is wanted.

    ``namespace`` is a path; empty: the host's. ``if_apart``: nobody asked for it, so that there is none where the path turns out to be the host's, or to have
    no address.
    """

    namespace: str
    resolv_conf: str
    forwarded: Forwarded
    if_apart: bool


class Connected(NamedTuple):
    """A network as the guest sees it, the helper's command line, its descriptors, and the monitor's end."""

    net: UserNet
    helper: tuple[str, ...]
    helper_fds: tuple[int, ...]
    monitor_fd: int


def connect(
    spec: Spec, guest: GuestConfig, options: Wishes, config: Config, exposed: Sequence[str] = ()
) -> Network | None:
    """Decide whether a task has a network.

    :param exposed: the ports that its image names. :raise InvalidArgument: an annotation is wrong, or there is no namespace for the network that is asked for.
    """
    given = wishes.from_annotations(spec.annotations)
    asked = given.over(options).over(wishes.from_config(config))
    namespace = spec.namespaces.get("network", "")
    kind = find_guest(guest.type)
    if asked.network == "none" or not kind.network:
        return None
    if asked.network != "user":
        if not namespace or not kind.addressed:
            return None
    elif not namespace and spec.apart:
        raise InvalidArgument(
            "a user-mode network is asked for, but the container's network namespace is a new one, with nothing in it",
            "name one by its path (a pod does; ctr: --with-ns network:PATH), or have the host's (ctr: --net-host)",
        )
    return Network(namespace, spec.resolv_conf, _forwarded(given.ports, exposed, namespace), asked.network != "user")


def _forwarded(text: str, exposed: Sequence[str], namespace: str) -> Forwarded:
    """What is asked for, else what the image names, else the usual ones; of the host's own ports only what is asked for."""
    from unikeel.network.ports import USUAL, Forwarded, parse_forwarded

    if text:
        return parse_forwarded(text)
    if not namespace:
        return Forwarded()
    valid = []
    for port in exposed:
        with contextlib.suppress(ValueError):
            parse_forwarded(port)
            valid.append(port)
    with contextlib.suppress(ValueError):
        return parse_forwarded(",".join(valid))
    return USUAL


def attach(node: Node, network: Network, uid: int, stack: ExitStack) -> Connected | None:
    """Have the guest's network and its helper ready to be launched; descriptors are closed by ``stack``. None: see :class:`Network`.

    :raise NotFound, FailedPrecondition: the namespace is none, or nothing is configured in it. :raise Unavailable: a program is missing.
    """
    from unikeel.kernel import netns
    from unikeel.network import joined, user

    passt, config = user.find_passt(), node.config
    mac = user.guest_mac(uid)
    if not network.namespace:
        address, _, prefix = config.network_address.partition("/")
        net = UserNet(address, int(prefix), config.network_gateway, config.network_dns, mac)
        argv = user.helper_argv(passt, net, (), uid, network.forwarded)
        monitor_end, helper_end = _pair(stack)
        return Connected(net, tuple(argv), (helper_end,), monitor_end)
    namespace = stack.enter_context(netns.open_network(network.namespace))
    ours = netns.is_ours(namespace)
    if network.if_apart and ours:
        return None
    link = joined.link_in(namespace)
    if link is None:
        if network.if_apart:
            return None
        raise FailedPrecondition(f"nothing in the network namespace {network.namespace} has an IPv4 address")
    dns = joined.nameserver(network.resolv_conf) if network.resolv_conf else ""
    net = UserNet(link.address, link.prefix, link.gateway or _neighbour(link.address, link.prefix), dns, mac)
    if not ours:
        joined.allow_low_ports(namespace)
    argv = user.joined_argv(passt, net, network.forwarded, link.name, uid)
    monitor_end, helper_end = _pair(stack)
    return Connected(net, tuple(argv), (helper_end, namespace.fileno()), monitor_end)


def _neighbour(address: str, prefix: int) -> str:
    """Some other address of a network, for a guest that cannot do without a gateway where there is none."""
    network = ipaddress.IPv4Interface(f"{address}/{prefix}").network
    return str(next((host for host in network.hosts() if str(host) != address), address))


def _pair(stack: ExitStack) -> tuple[int, int]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    return stack.enter_context(ours).fileno(), stack.enter_context(theirs).fileno()


def await_helper(node: Node, task: Task, uid: int) -> None:
    """Wait until a task's helper takes connections. :raise Unavailable: it has failed, or does not in time."""
    from unikeel.network import user

    end = time.monotonic() + _HELPER_SECONDS
    while True:
        helper = node.keeper.ask({"op": "helper", "id": task.ident})
        pid = helper.get("pid")
        if isinstance(pid, int) and pid > 1 and user.is_ready(pid, uid):
            return
        if not pid or time.monotonic() > end:
            from unikeel.engine.services import read_text
            from unikeel.sandbox.runtime import last_line

            said = last_line(read_text(os.path.join(node.layout.container(task.ident), "monitor.log")))
            raise Unavailable(f"the network of {task.id} does not come up; its helper said: {said or 'nothing'}")
        time.sleep(_LOOK_SECONDS)
