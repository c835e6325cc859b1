"""Create: everything that a monitor needs is made ready, then its sandbox, in which it waits for Start.

The record comes first; should any step fail, all that was made goes again (:mod:`.clearing`), and so does the record.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from unikeel import monitors
from unikeel.boot.contract import Acquired, Choice, HostMount, Source
from unikeel.engine import extra_disks
from unikeel.engine.extra_disks import Extra
from unikeel.engine.image_disks import provide
from unikeel.engine.initrds import complete
from unikeel.engine.launching import LAUNCH_SECONDS, Order
from unikeel.engine.preparing import block_numbers, boot_default_kernel, in_order, open_snapshot, sockets, streams
from unikeel.engine.sharing import Shared, share
from unikeel.engine.sharing import Wanted as Asked
from unikeel.engine.tasks import Task
from unikeel.engine.timeline import Timeline
from unikeel.errors import BadContent, FailedPrecondition, Unimplemented
from unikeel.guests import guest
from unikeel.kernel.fd import OwnedFd
from unikeel.kernel.paths import remove_tree
from unikeel.model.plan import DiskSpec, FileRole, LaunchPlan, LaunchRequest
from unikeel.model.rootfs import Rootfs
from unikeel.records.failpoint import failpoint
from unikeel.records.owners import boot_id, start_time
from unikeel.sandbox import cgroups
from unikeel.sandbox.carrying import Carried, carry, is_systemd
from unikeel.sandbox.remains import cgroup_path
from unikeel.sandbox.spec import SandboxRequest, build
from unikeel.shim.bundle_log import say
from unikeel.shim.connecting import Connected, attach, await_helper
from unikeel.shim.disks import open_disk
from unikeel.shim.stdio import open_streams
from unikeel.values import NamedTuple

if TYPE_CHECKING:
    from unikeel.boot.contract import Parent
    from unikeel.shim.deciding import TaskSettings
    from unikeel.shim.disks import RootMount
    from unikeel.shim.node import Node

TIMELINE: Final = "timeline.json"


class Wanted(NamedTuple):
    """What Create is to make."""

    task: Task
    settings: TaskSettings
    carried: Carried
    parent: Parent
    rootfs: tuple[RootMount, ...]


class Created(NamedTuple):
    """What Create has made."""

    pid: int
    start_time: int
    boot_id: str
    cgroups: Mapping[str, str]
    strategy: str
    hit: bool
    fallbacks: tuple[tuple[str, str], ...]


class _Ready(NamedTuple):
    plan: LaunchPlan
    fds: tuple[int, ...]
    boot: Acquired
    network: Connected | None
    #: The monitor's standard input and output, where those are the guest's console.
    streams: tuple[int, ...]


def create(node: Node, wanted: Wanted, timeline: Timeline) -> Created:
    """Make a task that is recorded; its monitor waits when this returns. What there is of it if this raises is the caller's to clear.

    :raise FailedPrecondition: the sandbox could not be made, or the disk is in use. Others: as :meth:`unikeel.boot.service.BootFiles.acquire`.
    """
    task = wanted.task
    directory = node.layout.container(task.ident)
    remove_tree(directory)
    os.mkdir(directory, mode=0o700)
    failpoint("task.create.directory")
    with ExitStack() as stack:
        uid = wanted.settings.uid or node.services.uid(task.slot)
        ready = _prepare(node, wanted, uid, timeline, stack)
        with timeline.span("stdio"):
            stdio = open_streams(task, node.keeper, stack)
        failpoint("task.create.stdio")
        sandboxes = node.services.sandboxes
        bundle = node.layout.bundle(task.ident)
        pid_file = os.path.join(bundle, "pid")
        argv = sandboxes.create_argv(
            task.ident,
            bundle,
            pid_file,
            len(ready.fds),
            systemd=is_systemd(wanted.carried.cgroup),
            go=task.is_early,
        )
        helper_fds = ready.network.helper_fds if ready.network else ()
        order = Order(
            task.ident,
            directory,
            tuple(argv),
            pid_file,
            node.config.console_log_size,
            holds=(f"view:{wanted.parent.key}",),
            helper=ready.network.helper if ready.network else (),
            helper_fds=len(helper_fds),
            stdio=stdio.names,
            streams=bool(ready.streams),
        )
        failpoint("task.create.launching")
        with timeline.span("sandbox"):
            fds = (*ready.fds, *helper_fds, *stdio.fds, *ready.streams)
            answer = node.keeper.connection().call(order.message(), fds, seconds=LAUNCH_SECONDS)
        failpoint("task.create.launched")
        pid = answer.get("pid")
        if not isinstance(pid, int) or pid <= 1:
            raise FailedPrecondition(f"the sandbox of {task.id} could not be made: {said(node, task)}")
        if helper_fds:
            with timeline.span("helper"):
                await_helper(node, task, uid)
        boot = ready.boot
        return Created(
            pid, start_time(pid), boot_id(), cgroups.of_process(pid), boot.strategy, boot.hit, tuple(boot.fallbacks)
        )


def said(node: Node, task: Task) -> str:
    """The line that tells why a monitor, or the OCI runtime that was to make its sandbox, failed."""
    from unikeel.engine.services import read_text
    from unikeel.sandbox.runtime import last_line

    return last_line(read_text(os.path.join(node.layout.container(task.ident), "monitor.log")))


def _prepare(node: Node, wanted: Wanted, uid: int, timeline: Timeline, stack: ExitStack) -> _Ready:
    services, task, settings = node.services, wanted.task, wanted.settings
    with timeline.span("monitor"):
        facts = services.facts(settings.guest.monitor)
        accel = services.accelerator(settings.guest.monitor, facts, "" if settings.accel == "auto" else settings.accel)
    boot = stack.enter_context(_acquire(node, wanted, uid, timeline))
    failpoint("task.create.boot-files")
    descriptors = {FileRole.KERNEL: boot.files["kernel"].fd.fileno()} if "kernel" in boot.files else {}
    disk, disk_fds = _disk(node, wanted, boot, timeline, stack)
    descriptors |= disk_fds
    failpoint("task.create.disk")
    network = None
    if settings.network is not None:
        with timeline.span("network", way=settings.network.way.value):
            network = attach(node, task, settings.network, uid, stack)
    failpoint("task.create.network")
    shared, extra = Shared(), Extra()
    if settings.volumes or settings.share or settings.image_disk:
        with timeline.span("volumes", way=settings.way.value, root=settings.share):
            extra = _extra(node, wanted, boot, uid, stack)
            shared = share(services, _shares(node, wanted, uid), stack)
    _tell(node, task, (*settings.left_out, *extra.left_out, *shared.told))
    failpoint("task.create.volumes")
    with timeline.span("plan"):
        request = _request(task, settings, accel, disk, network)
        request = request._replace(
            shares=shared.shares,
            volumes=shared.volumes,
            added=shared.added,
            extra=(*extra.disks, *shared.extra),
        )
        if settings.guest.kernel:
            request, kernel_fd = boot_default_kernel(services, request, stack)
            if kernel_fd >= 0:
                descriptors[FileRole.KERNEL] = kernel_fd
        own = boot.files["initrd"].fd.fileno() if settings.initrd else -1
        request, initrd_fd = complete(request, own, stack)
        plan = monitors.plan(request, facts)
        if initrd_fd >= 0:
            descriptors[FileRole.INITRD] = initrd_fd
        directory = node.layout.container(task.ident)
        descriptors |= sockets(directory, plan, stack)
        if plan.reopens and disk is not None:
            _hand_over(disk, descriptors[FileRole.DISK], uid)
        several = {FileRole.EXTRA: (*extra.fds, *shared.extra_fds), FileRole.SHARE: shared.fds}
        fds = in_order(plan, descriptors, {**(network.fds if network else {}), **several})
    with timeline.span("bundle"):
        _write_bundle(node, wanted, plan, uid, tuple(block_numbers(fds)) if plan.reopens else ())
    failpoint("task.create.bundle")
    return _Ready(plan, fds, boot, network, streams(directory, plan, stack))


def _disk(
    node: Node, wanted: Wanted, boot: Acquired, timeline: Timeline, stack: ExitStack
) -> tuple[DiskSpec | None, dict[FileRole, int]]:
    """The guest's disk and its descriptors: containerd's own, or one that is made of the image or lies in it."""
    task, settings = wanted.task, wanted.settings
    formats = frozenset(monitors.monitor(settings.guest.monitor).traits.disks)
    if "disk" in boot.files and not settings.image_disk:
        with timeline.span("disk", image=settings.guest.block):
            return provide(node.layout.container(task.ident), boot.files["disk"].fd.fileno(), formats, stack)
    if settings.made:
        with timeline.span("disk", made=True) as span:
            found = node.services.disks.provide(
                wanted.parent, task.ident, timeline.note, read_only=settings.read_only, formats=formats
            )
            span.attributes.update(how=found.how.value, size=found.size, read_only=found.read_only)
            return open_snapshot(found, stack)
    if settings.disk is None:
        return None, {}
    with timeline.span("disk", source=settings.disk.source) as span:
        opened = open_disk(settings.disk)
        fds = {FileRole.DISK: stack.enter_context(opened.fd).fileno()}
        span.attributes.update(opened.identity._asdict())
        return opened.spec, fds


def _extra(node: Node, wanted: Wanted, boot: Acquired, uid: int, stack: ExitStack) -> Extra:
    """The guest's further disks, and their descriptors."""
    settings, directory = wanted.settings, node.layout.container(wanted.task.ident)
    traits = monitors.monitor(settings.guest.monitor).traits
    taker = extra_disks.Taker(uid, directory, traits.reopens, extra_disks.mounted_by(settings.guest))
    own = Extra()
    if settings.image_disk:
        image = boot.files["disk"].fd.fileno()
        spec, fds = provide(directory, image, frozenset(traits.disks), stack)
        own = extra_disks.of_image(spec, fds, image, settings.image_disk, taker)
    return extra_disks.joined(own, extra_disks.of_volumes(settings.volumes, taker, stack))


def _shares(node: Node, wanted: Wanted, uid: int) -> Asked:
    settings, server = wanted.settings, uid if wanted.settings.share == "9p" else 0

    def root() -> OwnedFd:
        from unikeel.engine.sharing import scratch
        from unikeel.shim.task_roots import open_root

        return open_root(wanted.rootfs, server, scratch(node.services), read_only=settings.read_only)

    return Asked(
        wanted.task.ident,
        uid,
        root=root if settings.share else None,
        root_kind=settings.share,
        root_read_only=settings.read_only,
        volumes=[volume for volume in settings.volumes if not volume.disk],
        way=settings.way,
        volumes_kind=settings.volumes_share,
        own_init=bool(settings.guest.kernel),
        cgroup=wanted.carried.cgroup,
        memory_mib=settings.memory_mib,
    )


def _tell(node: Node, task: Task, sentences: Iterable[str]) -> None:
    for text in sentences:
        node.services.notice(f"{task.id}: {text}")
        say(str(task.request.get("bundle", "")), f"{task.id}: {text}")


def _acquire(node: Node, wanted: Wanted, uid: int, timeline: Timeline) -> Acquired:
    settings = wanted.settings
    source = Source(
        wanted.parent,
        container=wanted.task.ident,
        rootfs=tuple(HostMount(mount.type, mount.source, mount.options) for mount in wanted.rootfs),
        guest_ran=False,
        monitor_uid=uid,
        layer=settings.boot_layer,
    )
    own_kernel = settings.guest.kernel or not monitors.monitor(settings.guest.monitor).traits.kernel
    paths = {} if own_kernel else {"kernel": settings.guest.binary}
    if settings.initrd:
        paths["initrd"] = settings.guest.initrd
    if settings.rootfs == Rootfs.IMAGE_DISK.value or settings.image_disk:
        paths["disk"] = settings.guest.block
    if not paths:
        return Acquired("none", hit=True, fallbacks=[], files={}, bytes=0, notes=[])
    with timeline.span("boot-files", strategy=settings.boot_files) as span:
        try:
            acquired = node.services.boot.acquire(source, paths, Choice(settings.boot_files), timeline.note)
        except BadContent as error:
            error.message = f"{wanted.task.id}: {error.message}"
            raise
        span.attributes.update(strategy=acquired.strategy, hit=acquired.hit, bytes=acquired.bytes)
    notices = [
        f"{name} does not work here ({reason}); {acquired.strategy} served" for name, reason in acquired.fallbacks
    ]
    _tell(node, wanted.task, (f"boot files: {text}" for text in (*notices, *acquired.notes)))
    return acquired


def _request(
    task: Task, settings: TaskSettings, accel: str, disk: DiskSpec | None, network: Connected | None
) -> LaunchRequest:
    return LaunchRequest(
        name=task.id,
        guest=settings.guest,
        args=settings.args,
        env=settings.env,
        memory_mib=settings.memory_mib,
        vcpus=settings.cpus,
        machine=settings.machine or guest(settings.guest.type).machine(accel, settings.guest.machine),
        accel=accel,
        disk=disk,
        initrd=settings.initrd,
        network=network.net if network else None,
        hostname=settings.hostname,
        halted=monitors.monitor(settings.guest.monitor).traits.halts,
        uid=settings.uid,
        gid=settings.gid,
        workdir=settings.workdir,
    )


def _hand_over(disk: DiskSpec, fd: int, uid: int) -> None:
    """Have a monitor that opens its disk anew, as its own user, be able to. :raise Unimplemented: it is shared with others, who own it."""
    if not disk.read_only:
        os.fchown(fd, uid, uid)
    elif not os.fstat(fd).st_mode & stat.S_IROTH:
        raise Unimplemented(
            "this monitor cannot be given a disk that is only to be read",
            "let the container's root be writable, or choose qemu",
        )


def _write_bundle(node: Node, wanted: Wanted, plan: LaunchPlan, uid: int, blocks: tuple[tuple[int, int], ...]) -> None:
    """The bundle for the OCI runtime, and what is needed to know of the plan later."""
    ident = wanted.task.ident
    directory = node.layout.container(ident)
    write_json(
        os.path.join(directory, "plan.json"),
        {
            "argv": plan.argv,
            "exit": plan.exit.value,
            "powerdown": plan.powerdown,
            "control": plan.control.value,
            "uid": uid,
        },
    )
    node.services.prepare_root(plan.binds)
    bundle = node.layout.bundle(ident)
    os.mkdir(bundle, mode=0o700)
    request = SandboxRequest(
        ident=ident,
        plan=plan,
        root=node.layout.sandbox_root,
        cgroup=cgroup_path(ident),
        uid=uid,
        vcpus=wanted.settings.cpus,
        allowance=wanted.settings.allowance,
        blocks=blocks,
    )
    write_json(os.path.join(bundle, "config.json"), carry(build(request), wanted.carried))


def write_json(path: str, value: Mapping[str, object]) -> None:
    """A new file with a JSON document, for root alone."""
    data = json.dumps(value).encode()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)


def write_timeline(node: Node, task: Task, timeline: Timeline) -> None:
    """Keep the steps where ``unikeel timeline`` finds them; a task that is gone has none."""
    try:
        write_json(os.path.join(node.layout.container(task.ident), TIMELINE), timeline.to_json())
    except FileNotFoundError:
        return
