"""A container's network: what it is decided to be when the container is created, and what is made of it for a run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from unikeel.errors import InvalidArgument
from unikeel.lean import TYPE_CHECKING, Final
from unikeel.model.plan import FileRole, Net, UserNet
from unikeel.values import NamedTuple

if TYPE_CHECKING:
    from unikeel.config import Config
    from unikeel.engine.containers import Container
    from unikeel.engine.services import Services
    from unikeel.engine.settings import Options, Settings
    from unikeel.guests.contract import Guest
    from unikeel.monitors.contract import Traits

_NOT_CNI: Final = ("user", "none")
_RESOLVER: Final = "/etc/resolv.conf"


class Decided(NamedTuple):
    """``user``, ``none``, or ``cni`` with where its configuration was found and what that says."""

    kind: str
    source: str = ""
    configuration: str = ""


class Network(NamedTuple):
    """A network for one run: as the guest sees it, the helper's command line, descriptors of the monitor's, and the namespace that it must be in."""

    net: Net | None = None
    helper: tuple[str, ...] = ()
    #: In the order of the card's queues.
    fds: Mapping[FileRole, tuple[int, ...]] = {}
    #: A path; empty: one of its own, with nothing in it.
    namespace: str = ""


def decide(config: Config, options: Options, monitor: str, guest: Guest, traits: Traits) -> Decided:
    """Decide which network a container gets.

    :raise InvalidArgument: it cannot be. :raise NotFound: there is no such network. :raise Unavailable: a plugin is not installed.
    """
    kind = options.network or _default(config.network_default, guest, traits, options)
    if kind == "user" and "user" not in traits.networks:
        raise InvalidArgument(f"the monitor {monitor} has no user-mode networking", "use --net none")
    if options.ports and kind == "none":
        raise InvalidArgument("ports can be published only with a network", "leave --net none out")
    if options.ports and not guest.network:
        raise InvalidArgument(f"guest {guest.name} has no network to publish ports of")
    if kind in _NOT_CNI:
        return Decided(kind)
    if "tap" not in traits.networks or not guest.network:
        raise InvalidArgument(
            f"the guest {guest.name} on {monitor} can have no network of CNI's", "use --net none or --net user"
        )
    from unikeel.network import conflist, plugins

    source, text = conflist.find(kind, config.network_cni_networks)
    plugins.check(conflist.parse(text, source), config.network_cni_plugins, options.ports, source)
    return Decided("cni", source, text)


def _default(configured: str, guest: Guest, traits: Traits, options: Options) -> str:
    """The network of a container whose options name none."""
    if not guest.network or (not options.ports and "user" not in traits.networks):
        return "none"
    if configured == "auto":
        return "user" if options.ports or guest.addressed else "none"
    return configured


def make(services: Services, container: Container, settings: Settings, uid: int, stack: ExitStack) -> Network:
    """Make a container's network for a run, as far as it has one; descriptors are closed by ``stack``.

    :raise AlreadyExists: a port is in use. :raise Unavailable: a program or a plugin is missing. :raise FailedPrecondition: a plugin fails.
    """
    if settings.network == "user":
        return _user(services, settings, uid)
    if settings.network == "cni":
        return _connected(services, container, settings, uid, stack)
    return Network()


def _user(services: Services, settings: Settings, uid: int) -> Network:
    from unikeel.network import ports, user

    ports.check_free(settings.ports)
    config = services.config
    address, _, prefix = config.network_address.partition("/")
    net = UserNet(address, int(prefix), config.network_gateway, config.network_dns, user.guest_mac(uid))
    return Network(net, tuple(user.helper_argv(user.find_passt(), net, settings.ports, uid)))


def _connected(services: Services, container: Container, settings: Settings, uid: int, stack: ExitStack) -> Network:
    from unikeel.monitors import monitor
    from unikeel.network import conflist, joined, tap
    from unikeel.network.attachments import Attachment

    config, traits = services.config, monitor(settings.guest.monitor).traits
    path = services.layout.namespace(container.id)
    wanted = Attachment(container.id, container.name, path, settings.cni, config.network_cni_plugins, settings.ports)
    namespace, result = services.attachments.make(wanted)
    with namespace:
        device = tap.Wanted(
            tap.name_of(container.id),
            virtio=not traits.bare_frames,
            queues=config.network_queues if traits.queues else 1,
            owner=uid if traits.tap_by_name else None,
            vhost=config.network_vhost == "auto" and traits.queues,
        )
        dns = conflist.name_server(result) or joined.nameserver(_RESOLVER)
        attached = tap.attach(namespace, device, dns, stack)
    if attached is None:
        raise InvalidArgument(f"the network {settings.cni_source} has given {container.name} no link")
    if traits.tap_by_name:
        return Network(attached.net, namespace=path)
    return Network(attached.net, fds={FileRole.NET: attached.fds, FileRole.VHOST: attached.vhost})


def described(net: Net | None) -> dict[str, object] | None:
    """What ``inspect`` shows of a network; None: there is none."""
    return {key: value for key, value in net._asdict().items() if value} if net is not None else None
