"""Creating a container: what the image and the options say becomes a record, a directory and a writable snapshot."""

from __future__ import annotations

import os

from unikeel.boot.contract import Choice
from unikeel.engine import networking
from unikeel.engine.containers import Container, NewContainer, check_name
from unikeel.engine.describing import guest_config, read_file
from unikeel.engine.layout import OWN_ROOT
from unikeel.engine.services import Services
from unikeel.engine.settings import Options, Settings, whole_mib
from unikeel.engine.timeline import Timeline
from unikeel.engine.unpacking import ensure_unpacked
from unikeel.errors import BadContent, InvalidArgument, Unimplemented
from unikeel.images.manifests import Image
from unikeel.images.progress import Progress
from unikeel.kernel.paths import remove_strange_tree, remove_tree
from unikeel.lean import TYPE_CHECKING
from unikeel.model.image_fields import GuestConfig
from unikeel.model.states import ContainerState
from unikeel.records.failpoint import failpoint

if TYPE_CHECKING:
    from unikeel.guests.contract import Guest
    from unikeel.images.users import User
    from unikeel.model.rootfs import RootfsChoice
    from unikeel.model.ways import Placed, Receiver
    from unikeel.monitors.contract import Traits

_MEMORY_MIN_MIB = 16
_CPUS_MAX = 64


def create(
    services: Services, reference: str, options: Options, timeline: Timeline, progress: Progress | None
) -> Container:
    """Make a container from an image of the store; it is ``created`` when this returns, and nothing is left if it raises.

    :raise NotFound: no such image. :raise AlreadyExists: the name is taken. :raise BadContent: the image is no unikernel image, or wrong.
    :raise InvalidArgument: an option is out of range. :raise Unimplemented: the image is for another kind of machine.
    """
    if options.name:
        check_name(options.name)
    with timeline.span("image", reference=reference):
        image = services.images.get(reference)
    _check_platform(image, reference)
    with timeline.span("unpack") as span:
        parent = ensure_unpacked(services, image, progress)
        span.attributes["parent"] = parent
    with timeline.span("configuration"):
        guest = guest_config(services, image, options, parent, timeline)
        user = _user(services, image, options, guest, parent, timeline)
        settings = _settings(services, image, options, guest, user)
    new = NewContainer(
        name=options.name,
        image=image.name or reference,
        image_digest=image.digest,
        parent=parent,
        settings=settings.to_json(),
        auto_remove=options.auto_remove,
    )
    with timeline.span("record"):
        container = services.containers.add(new)
    failpoint("create.recorded")
    try:
        return _make(services, container, settings, timeline)
    except BaseException:
        discard(services, container)
        raise


def _make(services: Services, container: Container, settings: Settings, timeline: Timeline) -> Container:
    os.mkdir(services.layout.container(container.id), mode=0o700)
    failpoint("create.directory")
    if settings.disk:
        from unikeel.monitors import monitor

        formats = frozenset(monitor(settings.guest.monitor).traits.disks)
        with timeline.span("snapshot") as span:
            services.snapshots.prepare(container.id, container.parent, formats=formats)
            span.attributes["how"] = services.snapshots.disk(container.id).how.value
        failpoint("create.snapshot")
    container = services.containers.move(container, ContainerState.CREATED)
    failpoint("create.created")
    return container


def discard(services: Services, container: Container) -> None:
    """Take a container away that never ran: snapshot, directory, record, in this order, whatever of them is there."""
    services.boot.release(container.id)
    services.remove_snapshot(container.id)
    _remove_directory(services.layout.container(container.id))
    services.containers.delete(container.id)


def _remove_directory(path: str) -> None:
    """Out of the way first: whoever looks for it by its name from then on (a keeper, another command's lock) finds nothing to add to."""
    removed = path + ".removed"
    _remove(removed)
    if os.path.isdir(path):
        os.rename(path, removed)
        failpoint("remove.renamed")
        _remove(removed)


def _remove(path: str) -> None:
    """A guest may have made anything of a root that it shared."""
    root = os.path.join(path, OWN_ROOT)
    if os.path.lexists(root):
        remove_strange_tree(root)
    remove_tree(path)


def _user(
    services: Services, image: Image, options: Options, guest: GuestConfig, parent: str, timeline: Timeline
) -> User:
    """Who the program in the guest runs as. :raise BadContent: the image names somebody who is not in it."""
    from unikeel.images.users import User, resolve

    if guest.type != "linux" or not image.user:
        return User()
    return resolve(image.user, lambda path: read_file(services, path, options, parent, timeline))


def _settings(services: Services, image: Image, options: Options, guest: GuestConfig, user: User) -> Settings:
    from unikeel.guests import guest as find_guest
    from unikeel.model.names import check_pair
    from unikeel.monitors import monitor as find_monitor

    config = services.config
    try:
        check_pair(guest.type, guest.monitor, image.name or image.digest)
    except BadContent as error:
        raise InvalidArgument(error.message, error.hint) if options.monitor else error from None
    traits = find_monitor(guest.monitor).traits
    kind = find_guest(guest.type)
    # As other container tools have it: given arguments replace the image's command, not its entry point.
    args = (*image.entrypoint, *(options.args or image.cmd))
    choice, placed = _root_and_volumes(services, options, guest, args, traits)
    memory = whole_mib(options.memory or config.monitor_memory)
    cpus = options.cpus or config.monitor_cpus
    if memory < _MEMORY_MIN_MIB:
        raise InvalidArgument(f"{memory} MiB of memory is too little", f"give at least {_MEMORY_MIN_MIB} MiB")
    if not 1 <= cpus <= _CPUS_MAX:
        raise InvalidArgument(f"{cpus} CPUs are out of range", f"give 1 to {_CPUS_MAX}")
    network = networking.decide(config, options, guest.monitor, kind, traits)
    environment = (*image.env, *options.env)
    if options.env and not kind.environment:
        services.notice(f"guest {guest.type} takes no environment variables: -e has no effect")
    if options.args and not kind.arguments:
        services.notice(f"guest {guest.type} takes no arguments: those given have no effect")
    return Settings(
        guest=guest,
        args=args,
        env=_merged(environment),
        memory_mib=memory,
        cpus=cpus,
        boot_files=Choice(options.boot_files or config.boot_strategy).value,
        ports=options.ports,
        network=network.kind,
        cni_source=network.source,
        cni=network.configuration,
        machine=options.machine or ("" if config.monitor_machine == "auto" else config.monitor_machine),
        accel=options.accel,
        sandbox=options.sandbox,
        disk=choice.disk,
        initrd=choice.initrd,
        rootfs=choice.kind.value,
        rootfs_reason=choice.reason,
        uid=user.uid,
        gid=user.gid,
        workdir=image.workdir,
        share=choice.share,
        volumes=placed.volumes,
        way=placed.way.value,
        volumes_share=placed.share,
        image_disk=choice.image_disk,
    )


def _root_and_volumes(
    services: Services, options: Options, guest: GuestConfig, args: tuple[str, ...], traits: Traits
) -> tuple[RootfsChoice, Placed]:
    from unikeel.guests import guest as find_guest
    from unikeel.model.rootfs import Able, choose_rootfs
    from unikeel.model.ways import Receiver

    kind = find_guest(guest.type)
    shared, no_share = _shareable(services, kind, traits)
    extra_disks = bool(traits.disks) and _mounts_disks(guest, args)
    able = Able(
        kind.block,
        kind.initrd,
        "ext4",
        shared=shared,
        no_share=no_share,
        image_disk=bool(traits.disks),
        extra_disks=extra_disks,
    )
    choice = choose_rootfs(guest, able)
    return choice, _place(
        options, Receiver(guest.type, guest.monitor, choice.kind, bool(guest.kernel), extra_disks, shared)
    )


def _mounts_disks(guest: GuestConfig, args: tuple[str, ...]) -> bool:
    from unikeel.guests.urunit import mounts_disks

    return mounts_disks(guest, args)


def _place(options: Options, receiver: Receiver) -> Placed:
    from unikeel.model.ways import NOWHERE, place

    if not options.volumes:
        return NOWHERE
    from unikeel.engine.extra_disks import recognised

    return place(recognised(options.volumes), receiver)


def _shareable(services: Services, kind: Guest, traits: Traits) -> tuple[tuple[str, ...], str]:
    """The shared file systems that guest, monitor and host can all three, best first; and why there is none, if it is for the host's sake."""
    both = tuple(name for name in kind.shared if name in traits.shared)
    if "virtiofs" not in both:
        return both, ""
    from unikeel.sandbox import file_server

    if file_server.is_there(services.config.monitor_virtiofsd_path):
        return both, ""
    return tuple(name for name in both if name != "virtiofs"), "virtiofs needs virtiofsd, which is not installed"


def _check_platform(image: Image, reference: str) -> None:
    """:raise Unimplemented: the image is for another kind of machine than this one; what says nothing passes."""
    from unikeel.images.manifests import host_platform

    architecture = host_platform()[1]
    if image.architecture and image.architecture != architecture:
        raise Unimplemented(
            f"{image.name or reference} is for {image.architecture}, and this host is {architecture}",
            f"get the image for {architecture}",
        )


def _merged(environment: tuple[str, ...]) -> tuple[str, ...]:
    """Later values of the same name win; the order of first appearance stays."""
    values: dict[str, str] = {}
    for item in environment:
        name, equals, _ = item.partition("=")
        if not name or not equals:
            raise InvalidArgument(f"{item!r} is not an environment variable", "write NAME=value")
        values[name] = item
    return tuple(values.values())
