"""A task's network: whether it has one, decided from the caller's configuration and the wishes, and what its guest and its helper get.

In the namespace that the configuration names, a pod's, the guest takes over the pod's link by a tap, or stands behind it as Knative expects; or passt runs there, and leads the pod's ports to it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from enum import Enum
from typing import TYPE_CHECKING, Final

from unikeel.errors import FailedPrecondition, InvalidArgument, Unavailable, UnikeelError
from unikeel.guests import guest as find_guest
from unikeel.model.plan import FileRole, Net, UserNet
from unikeel.monitors import monitor as find_monitor
from unikeel.network.stations import neighbour
from unikeel.shim import wishes
from unikeel.values import NamedTuple

if TYPE_CHECKING:
    from unikeel.config import Config
    from unikeel.engine.tasks import Task
    from unikeel.kernel.fd import OwnedFd
    from unikeel.model.image_fields import GuestConfig
    from unikeel.network.ports import Forwarded
    from unikeel.shim.node import Node
    from unikeel.shim.ocispec import Spec
    from unikeel.shim.wishes import Wishes

_LOG = logging.getLogger("unikeel.tasks")
_HELPER_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.005
#: By which the guest of a Knative service is known, as urunc knows it.
_CONTAINER_NAME: Final = "io.kubernetes.cri.container-name"
_KNATIVE_GUEST: Final = "user-container"


class Way(Enum):
    """How a guest is connected."""

    #: It takes over the link of the namespace (:mod:`unikeel.network.tap`).
    TAP = "tap"
    #: It is behind the namespace, as Knative's proxies expect it (:mod:`unikeel.network.static`).
    STATIC = "static"
    #: Ports of the namespace lead to it by passt (:mod:`unikeel.network.user`).
    USER = "user"


class Network(NamedTuple):
    """A network that is wanted.

    ``namespace`` is a path; empty: the host's. ``if_apart``: nobody asked for it, so that there is none where the path turns out to be the host's, or to have
    no link.
    """

    namespace: str
    resolv_conf: str
    forwarded: Forwarded
    if_apart: bool
    way: Way = Way.USER
    #: The ports are named, by an annotation or by the image.
    named: bool = False


class Connected(NamedTuple):
    """A network as the guest sees it, the helper's command line, its descriptors, and the monitor's, in the order of the card's queues."""

    net: Net
    helper: tuple[str, ...]
    helper_fds: tuple[int, ...]
    fds: Mapping[FileRole, tuple[int, ...]]


def connect(
    spec: Spec, guest: GuestConfig, options: Wishes, config: Config, exposed: Sequence[str] = ()
) -> Network | None:
    """Decide whether a task has a network, and how.

    :param exposed: the ports that its image names. :raise InvalidArgument: an annotation is wrong, or there is no namespace for the network that is asked for.
    """
    given = wishes.from_annotations(spec.annotations)
    wish = given.over(options).over(wishes.from_config(config))
    asked, monitor = wish.network, wish.monitor or guest.monitor
    networks = find_monitor(monitor).traits.networks
    namespace = spec.namespaces.get("network", "")
    kind = find_guest(guest.type)
    if asked == "none" or not kind.network:
        return None
    if asked == "auto":
        if not namespace or not kind.addressed or "tap" not in networks:
            return None
    elif ("user" if asked == "user" else "tap") not in networks:
        known = ", ".join((*networks, "none"))
        raise InvalidArgument(f"the monitor {monitor} has no network {asked}", f"org.unikeel.network can be: {known}")
    elif not namespace and (spec.apart or asked != "user"):
        raise InvalidArgument(
            f"a network ({asked}) is asked for, but the container's configuration names no network namespace that is configured",
            "name one by its path (a pod does; ctr: --with-ns network:PATH), or have the host's with org.unikeel.network=user (ctr: --net-host)",
        )
    forwarded, named = _forwarded(given.ports, exposed, namespace)
    return Network(namespace, spec.resolv_conf, forwarded, asked == "auto", _way(asked, spec), named)


def _way(asked: str, spec: Spec) -> Way:
    if asked != "auto":
        return Way(asked)
    return Way.STATIC if spec.annotations.get(_CONTAINER_NAME) == _KNATIVE_GUEST else Way.TAP


def _forwarded(text: str, exposed: Sequence[str], namespace: str) -> tuple[Forwarded, bool]:
    """What is asked for, else what the image names, else the usual ones; of the host's own ports only what is asked for. And whether somebody named them."""
    from unikeel.network.ports import USUAL, Forwarded, parse_forwarded

    if text:
        return parse_forwarded(text), True
    if not namespace:
        return Forwarded(), False
    valid = []
    for port in exposed:
        with contextlib.suppress(ValueError):
            parse_forwarded(port)
            valid.append(port)
    with contextlib.suppress(ValueError):
        return parse_forwarded(",".join(valid)), True
    return USUAL, False


def attach(node: Node, task: Task, network: Network, uid: int, stack: ExitStack) -> Connected | None:
    """Have the guest's network, and its helper if it has one, ready to be launched; descriptors are closed by ``stack``. None: see :class:`Network`.

    :raise NotFound, FailedPrecondition: the namespace is none, or nothing is configured in it. :raise Unavailable: a program, or something of the kernel's, is missing.
    """
    from unikeel.kernel import netns

    if not network.namespace:
        return _hosts(node, network, uid, stack)
    namespace = stack.enter_context(netns.open_network(network.namespace))
    ours = netns.is_ours(namespace)
    if network.if_apart and ours:
        return None
    if network.way is Way.USER:
        return _joined(network, namespace, uid, stack, ours=ours)
    if ours:
        raise FailedPrecondition(
            f"the network namespace {network.namespace} is the host's: no guest takes over its links",
            "ask for user-mode networking: org.unikeel.network=user",
        )
    return _taken(node, task, network, namespace, uid, stack)


def _hosts(node: Node, network: Network, uid: int, stack: ExitStack) -> Connected:
    """User-mode networking in the host's namespace."""
    from unikeel.network import user

    config = node.config
    address, _, prefix = config.network_address.partition("/")
    net = UserNet(address, int(prefix), config.network_gateway, config.network_dns, user.guest_mac(uid))
    argv = user.helper_argv(user.find_passt(), net, (), uid, network.forwarded)
    monitor_end, helper_end = _pair(stack)
    return Connected(net, tuple(argv), (helper_end,), {FileRole.NET: (monitor_end,)})


def _joined(network: Network, namespace: OwnedFd, uid: int, stack: ExitStack, *, ours: bool) -> Connected | None:
    """User-mode networking in a pod's namespace."""
    from unikeel.network import joined, user

    link = joined.link_in(namespace)
    if link is None:
        if network.if_apart:
            return None
        raise FailedPrecondition(f"nothing in the network namespace {network.namespace} has an IPv4 address")
    dns = joined.nameserver(network.resolv_conf) if network.resolv_conf else ""
    gateway = link.gateway or neighbour(link.address, link.prefix)
    net = UserNet(link.address, link.prefix, gateway, dns, user.guest_mac(uid))
    if not ours:
        joined.allow_low_ports(namespace)
    argv = user.joined_argv(user.find_passt(), net, network.forwarded, link.name, uid)
    monitor_end, helper_end = _pair(stack)
    return Connected(net, tuple(argv), (helper_end, namespace.fileno()), {FileRole.NET: (monitor_end,)})


def _taken(
    node: Node, task: Task, network: Network, namespace: OwnedFd, uid: int, stack: ExitStack
) -> Connected | None:
    """A tap in a pod's namespace."""
    from unikeel.network import joined, static, tap

    config, traits = node.config, find_monitor(str(task.settings["monitor"])).traits
    device = tap.Wanted(
        tap.name_of(task.ident),
        virtio=not traits.bare_frames,
        queues=config.network_queues if traits.queues else 1,
        owner=uid if traits.tap_by_name else None,
        ports=network.forwarded if network.named else None,
        vhost=config.network_vhost == "auto" and traits.queues,
    )
    dns = joined.nameserver(network.resolv_conf) if network.resolv_conf else ""
    make = static.attach if network.way is Way.STATIC else tap.attach
    found = make(namespace, device, dns, stack)
    if found is None:
        if network.if_apart:
            return None
        raise FailedPrecondition(f"there is no link in the network namespace {network.namespace}")
    return Connected(found.net, (), (), {FileRole.NET: found.fds, FileRole.VHOST: found.vhost})


def disconnect(task: Task) -> None:
    """Take away what an ended guest's tap has left in its namespace. What cannot be taken away is logged, and no reason to keep the task: the next guest there does it."""
    path, way = str(task.settings.get("namespace", "")), task.settings.get("way", "")
    if not path or way == Way.USER.value:
        return
    from unikeel.kernel import netns
    from unikeel.network import static, tap

    try:
        namespace = netns.open_network(path)
    except UnikeelError:  # it has gone before, and all with it
        return
    with namespace:
        try:
            if way == Way.STATIC.value:
                static.remove(namespace)
            tap.sweep(namespace, tap.name_of(task.ident))
        except UnikeelError as error:
            _LOG.warning("what led to the guest of task %s is left in its network namespace: %s", task.id, error)


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
