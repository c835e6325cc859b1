"""Everything that a monitor needs, made ready before its sandbox exists: boot files, disk, launch plan, sockets, bundle."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing

from unikeel import monitors
from unikeel.boot.contract import Acquired, Choice, HostMount, Source
from unikeel.engine import networking
from unikeel.engine.containers import Container
from unikeel.engine.initrds import complete
from unikeel.engine.networking import Network
from unikeel.engine.services import Services
from unikeel.engine.settings import Settings
from unikeel.engine.timeline import Timeline
from unikeel.errors import BadContent
from unikeel.kernel.fd import OwnedFd
from unikeel.kernel.paths import remove_tree
from unikeel.lean import TYPE_CHECKING, Final
from unikeel.model.plan import Console, DiskSpec, FileRole, LaunchPlan, LaunchRequest, Net
from unikeel.model.rootfs import Rootfs
from unikeel.records.failpoint import failpoint
from unikeel.values import NamedTuple

if TYPE_CHECKING:
    from unikeel.engine.extra_disks import Extra
    from unikeel.monitors.contract import Facts
    from unikeel.snapshots.contract import Disk


_LISTENING: Final = {FileRole.QMP: "qmp.sock", FileRole.CONSOLE: "console.sock", FileRole.API: "api.sock"}


class Prepared(NamedTuple):
    """What a launch needs: the plan, the descriptors in the plan's order, and the helper's socket if there is a network."""

    plan: LaunchPlan
    fds: tuple[int, ...]
    helper: tuple[str, ...]
    helper_fd: int
    boot: Acquired
    #: The monitor's standard input and output, where those are the guest's console.
    streams: tuple[int, ...] = ()


def prepare(
    services: Services, container: Container, settings: Settings, timeline: Timeline, stack: ExitStack
) -> Prepared:
    """Have boot files, disk, sockets and bundle ready. Descriptors are closed by ``stack``. Raises as :func:`unikeel.engine.starting.start`."""
    uid = services.uid(container.slot)
    traits = monitors.monitor(settings.guest.monitor).traits
    with timeline.span("monitor"):
        facts = services.facts(settings.guest.monitor)
        accel = services.accelerator(settings.guest.monitor, facts, settings.accel)
    boot = stack.enter_context(_acquire(services, container, settings, uid, timeline))
    failpoint("start.boot-files")
    with timeline.span("disk"):
        disk, disk_fds = _open_disk(services, container, settings, boot, stack)
    failpoint("start.disk")
    with timeline.span("network", kind=settings.network):
        network = networking.make(services, container, settings, uid, stack)
    failpoint("start.network")
    with timeline.span("plan"):
        request = _request(container, settings, accel, disk, network.net)
        share_fds: tuple[int, ...] = ()
        extra_fds: tuple[int, ...] = ()
        if settings.share or settings.volumes:
            request, share_fds, extra_fds = _shared(services, container, settings, request, uid, stack)
        if settings.image_disk or any(volume.disk for volume in settings.volumes):
            extra = _extra(services, container, settings, boot, uid, stack)
            request, extra_fds = request._replace(extra=(*extra.disks, *request.extra)), (*extra.fds, *extra_fds)
        own = boot.files["initrd"].fd.fileno() if "initrd" in boot.files else -1
        kernel_fd = boot.files["kernel"].fd.fileno() if "kernel" in boot.files else -1
        if settings.guest.kernel:
            request, kernel_fd = boot_default_kernel(services, request, stack)
        request, initrd_fd = complete(request, own, stack)
        plan = _plan(request, facts)
        directory = services.layout.container(container.id)
        descriptors = {**sockets(directory, plan, stack), **disk_fds}
        helper_fd, net = _helper_socket(network.helper, stack)
        if net >= 0:
            descriptors[FileRole.NET] = net
        if kernel_fd >= 0:
            descriptors[FileRole.KERNEL] = kernel_fd
        if initrd_fd >= 0:
            descriptors[FileRole.INITRD] = initrd_fd
        if plan.reopens and FileRole.DISK in descriptors:
            os.fchown(descriptors[FileRole.DISK], uid, uid)
        fds = in_order(plan, descriptors, {**network.fds, FileRole.EXTRA: extra_fds, FileRole.SHARE: share_fds})
        standard = streams(directory, plan, stack)
    with timeline.span("bundle"):
        blocks = block_numbers(fds) if traits.reopens else ()
        _write_bundle(services, container, settings, plan, uid, network, blocks)
    failpoint("start.bundle")
    return Prepared(plan, fds, network.helper, helper_fd, boot, standard)


def block_numbers(fds: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The numbers (major, minor) of the block devices among descriptors."""
    for fd in fds:
        info = os.fstat(fd)
        if stat.S_ISBLK(info.st_mode):
            yield os.major(info.st_rdev), os.minor(info.st_rdev)


def in_order(
    plan: LaunchPlan, descriptors: Mapping[FileRole, int], several: Mapping[FileRole, Sequence[int]]
) -> tuple[int, ...]:
    """Descriptors in the order of a plan's files. ``several``: those of a role that the plan has more than once."""
    queues = {role: iter(numbers) for role, numbers in several.items()}
    return tuple(next(queues[file.role]) if file.role in queues else descriptors[file.role] for file in plan.files)


def _acquire(services: Services, container: Container, settings: Settings, uid: int, timeline: Timeline) -> Acquired:
    from unikeel.monitors import monitor as find_monitor

    disk = services.snapshots.disk(container.id) if settings.disk else None
    source = Source(
        services.parent(container.parent),
        container=container.id,
        rootfs=(HostMount("ext4", disk.path),) if disk is not None and disk.format == "raw" else (),
        guest_ran=container.runs > 0,
        monitor_uid=uid,
    )
    own_kernel = bool(settings.guest.kernel) or not find_monitor(settings.guest.monitor).traits.kernel
    paths = {} if own_kernel else {"kernel": settings.guest.binary}
    if settings.initrd:
        paths["initrd"] = settings.guest.initrd
    if settings.rootfs == Rootfs.IMAGE_DISK.value or settings.image_disk:
        paths["disk"] = settings.guest.block
    if not paths:
        return Acquired("none", hit=True, fallbacks=[], files={}, bytes=0, notes=[])
    with timeline.span("boot-files", strategy=settings.boot_files) as span:
        try:
            acquired = services.boot.acquire(source, paths, Choice(settings.boot_files), timeline.note)
        except BadContent as error:
            error.message = f"{container.image}: {error.message}"
            raise
        span.attributes.update(strategy=acquired.strategy, hit=acquired.hit, bytes=acquired.bytes)
    for strategy, reason in acquired.fallbacks:
        services.notice(f"boot files: {strategy} does not work here ({reason}); {acquired.strategy} served")
    for note in acquired.notes:
        services.notice(f"boot files: {note}")
    return acquired


def _open_disk(
    services: Services, container: Container, settings: Settings, boot: Acquired, stack: ExitStack
) -> tuple[DiskSpec | None, dict[FileRole, int]]:
    """The guest's disk as descriptors: the writable one as itself, what lies beneath through a sealed clone of its directory."""
    if "disk" in boot.files and not settings.image_disk:
        return _image_disk(services, container, settings, boot, stack)
    if not settings.disk:
        return None, {}
    return open_snapshot(services.snapshots.disk(container.id), stack)


def _image_disk(
    services: Services, container: Container, settings: Settings, boot: Acquired, stack: ExitStack
) -> tuple[DiskSpec, dict[FileRole, int]]:
    from unikeel.engine import image_disks

    directory, image = services.layout.container(container.id), boot.files["disk"].fd.fileno()
    formats = frozenset(monitors.monitor(settings.guest.monitor).traits.disks)
    return image_disks.provide(directory, image, formats, stack)


def _extra(
    services: Services, container: Container, settings: Settings, boot: Acquired, uid: int, stack: ExitStack
) -> Extra:
    """The guest's further disks, with their descriptors."""
    from unikeel.engine import extra_disks

    directory = services.layout.container(container.id)
    reopens = monitors.monitor(settings.guest.monitor).traits.reopens
    taker = extra_disks.Taker(uid, directory, reopens, extra_disks.mounted_by(settings.guest))
    own = extra_disks.Extra()
    if settings.image_disk:
        spec, fds = _image_disk(services, container, settings, boot, stack)
        own = extra_disks.of_image(spec, fds, boot.files["disk"].fd.fileno(), settings.image_disk, taker)
    return extra_disks.joined(own, extra_disks.of_volumes(settings.volumes, taker, stack))


def open_snapshot(disk: Disk, stack: ExitStack) -> tuple[DiskSpec, dict[FileRole, int]]:
    """A snapshot of our own store as a guest's disk: see :func:`_open_disk`; one that is read-only is shared, too."""
    if disk.read_only:
        shared = stack.enter_context(open_sealed(disk.path))
        return DiskSpec(disk.format, read_only=True), {FileRole.DISK: shared.fileno()}
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    writable = stack.enter_context(OwnedFd(os.open(disk.path, flags)))
    fds = {FileRole.DISK: writable.fileno()}
    if disk.backing is not None:
        fds[FileRole.BACKING] = stack.enter_context(open_sealed(disk.backing)).fileno()
    return DiskSpec(disk.format, backing=disk.backing is not None), fds


def open_sealed(path: str) -> OwnedFd:
    """Open a shared file read-only, in a way that nobody who gets the descriptor can change the file."""
    from unikeel.kernel.mounts import sealed_clone

    with sealed_clone(os.path.dirname(path)) as directory:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        return OwnedFd(os.open(os.path.basename(path), flags, dir_fd=directory.fileno()))


def _request(
    container: Container, settings: Settings, accel: str, disk: DiskSpec | None, network: Net | None
) -> LaunchRequest:
    from unikeel.guests import guest

    return LaunchRequest(
        name=container.name,
        guest=settings.guest,
        args=settings.args,
        env=settings.env,
        memory_mib=settings.memory_mib,
        vcpus=settings.cpus,
        machine=settings.machine or guest(settings.guest.type).machine(accel, settings.guest.machine),
        accel=accel,
        disk=disk,
        initrd=settings.initrd,
        network=network,
        hostname=container.name,
        uid=settings.uid,
        gid=settings.gid,
        workdir=settings.workdir or "/",
    )


def _plan(request: LaunchRequest, facts: Facts) -> LaunchPlan:
    return monitors.plan(request, facts)


def boot_default_kernel(services: Services, request: LaunchRequest, stack: ExitStack) -> tuple[LaunchRequest, int]:
    """This host's kernel, and our init with its drivers; of a monitor that has a kernel of its own, just the init."""
    from unikeel.engine import default_kernel
    from unikeel.monitors import monitor

    if not monitor(request.guest.monitor).traits.kernel:
        return request._replace(own=default_kernel.own_init(None)), -1
    kernel = default_kernel.find(services.config.kernel_image, services.config.kernel_modules)
    opened = stack.enter_context(default_kernel.open_image(kernel))
    more = {driver for share in request.shares for driver in default_kernel.SHARE_DRIVERS[share.kind]}
    more |= {driver for disk in request.extra for driver in default_kernel.DISK_DRIVERS.get(disk.file_system, ())}
    more.update(default_kernel.CONSOLE_DRIVERS if request.virtio_console else ())
    return request._replace(own=default_kernel.own_init(kernel, sorted(more))), opened.fileno()


def _shared(
    services: Services, container: Container, settings: Settings, request: LaunchRequest, uid: int, stack: ExitStack
) -> tuple[LaunchRequest, tuple[int, ...], tuple[int, ...]]:
    """The request with what the guest shares with the host, or has a copy of, and the descriptors for shares and for disks."""
    from unikeel.engine import own_roots, sharing
    from unikeel.model.ways import Way

    root = (
        (lambda: own_roots.open_root(services, container, uid if settings.share == "9p" else 0))
        if settings.share
        else None
    )
    wanted = sharing.Wanted(
        container.id,
        uid,
        root=root,
        root_kind=settings.share,
        volumes=[volume for volume in settings.volumes if not volume.disk],
        way=Way(settings.way),
        volumes_kind=settings.volumes_share,
        own_init=bool(settings.guest.kernel),
        memory_mib=settings.memory_mib,
    )
    found = sharing.share(services, wanted, stack)
    for text in found.told:
        services.notice(f"{container.name}: {text}")
    failpoint("start.shared")
    return (
        request._replace(shares=found.shares, volumes=found.volumes, added=found.added, extra=found.extra),
        found.fds,
        found.extra_fds,
    )


def sockets(directory: str, plan: LaunchPlan, stack: ExitStack) -> dict[FileRole, int]:
    """The sockets and the configuration file that a plan has."""
    from unikeel.sandbox.sockets import listen

    fds: dict[FileRole, int] = {}
    for file in plan.files:
        if file.role in _LISTENING:
            fds[file.role] = stack.enter_context(closing(listen(directory, _LISTENING[file.role]))).fileno()
        elif file.role is FileRole.CONFIG:
            from unikeel.kernel.memfd import sealed_bytes

            fds[file.role] = stack.enter_context(sealed_bytes("config", plan.config)).fileno()
    return fds


def streams(directory: str, plan: LaunchPlan, stack: ExitStack) -> tuple[int, ...]:
    """Fifos for a monitor whose standard input and output are its guest's console."""
    if plan.console is not Console.STDIO:
        return ()
    from unikeel.keeper.console import INPUT, OUTPUT
    from unikeel.sandbox.sockets import fifo

    return tuple(stack.enter_context(fifo(directory, name)).fileno() for name in (INPUT, OUTPUT))


def _helper_socket(helper: tuple[str, ...], stack: ExitStack) -> tuple[int, int]:
    """The helper's and the monitor's ends of a socket pair; -1 where there is no helper."""
    if not helper:
        return -1, -1
    import socket

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    return stack.enter_context(theirs).fileno(), stack.enter_context(ours).fileno()


def _write_bundle(
    services: Services,
    container: Container,
    settings: Settings,
    plan: LaunchPlan,
    uid: int,
    network: Network,
    blocks: Iterable[tuple[int, int]],
) -> None:
    """The bundle for the OCI runtime, and what later commands need to know of the plan."""
    summary = {
        "argv": plan.argv,
        "exit": plan.exit.value,
        "powerdown": plan.powerdown,
        "control": plan.control.value,
        "uid": uid,
        "network": networking.described(network.net),
    }
    _write_json(os.path.join(services.layout.container(container.id), "plan.json"), summary)
    for name in ("exit.json", "monitor.log"):
        path = os.path.join(services.layout.container(container.id), name)
        if os.path.lexists(path):
            os.unlink(path)
    if not settings.sandbox:
        return
    from unikeel.sandbox.root import prepare_root
    from unikeel.sandbox.spec import SandboxRequest, build

    prepare_root(services.layout.sandbox_root, plan.binds)
    bundle = services.layout.bundle(container.id)
    remove_tree(bundle)
    os.mkdir(bundle, mode=0o700)
    request = SandboxRequest(
        ident=container.id,
        plan=plan,
        root=services.layout.sandbox_root,
        cgroup=f"/unikeel-{container.id}",
        uid=uid,
        vcpus=settings.cpus,
        allowance=services.config.sandbox_monitor_allowance,
        network=network.namespace,
        blocks=tuple(blocks),
    )
    _write_json(os.path.join(bundle, "config.json"), build(request))


def _write_json(path: str, value: Mapping[str, object]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(value, file)
