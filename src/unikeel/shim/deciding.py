"""How a task is run: pure decisions, from the caller's configuration, the image's, the wishes and the root file system."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, Final

from unikeel.config import Config
from unikeel.engine.disk_making import FILE_SYSTEM
from unikeel.errors import InvalidArgument, Unimplemented
from unikeel.guests import guest as find_guest
from unikeel.guests.urunit import mounts_disks
from unikeel.model import resources
from unikeel.model.image_fields import GuestConfig
from unikeel.model.names import check_pair
from unikeel.model.rootfs import NO_DEVICE, Able, Rootfs, RootfsChoice, choose_rootfs
from unikeel.model.volumes import Volume
from unikeel.model.ways import Placed, Receiver, Way, place
from unikeel.monitors import monitor as find_monitor
from unikeel.sandbox import file_server
from unikeel.sandbox.carrying import Carried
from unikeel.shim import wishes
from unikeel.shim.connecting import Network
from unikeel.shim.connecting import Way as Connection
from unikeel.shim.disks import RootMount, block_mount
from unikeel.shim.ocispec import Spec
from unikeel.shim.task_roots import is_shareable
from unikeel.shim.wishes import Wishes
from unikeel.values import NamedTuple

_NOT_MADE: Final = f"{NO_DEVICE}, and no disk is made of a snapshot that is not the image's own (its name is not that of the image's layers)"
_LONGEST_NAME: Final = 63
#: How many devices are named that a guest does not get.
_NAMED: Final = 5


class TaskSettings(NamedTuple):
    """What a task is run with. ``uid`` is 0 where the monitor gets a user of its own; ``guest_args`` replace the image's command line.

    ``made``: its disk is made of the image's files, since containerd has none (``disk``) to give; ``read_only``: it cannot write to that.
    """

    guest: GuestConfig
    args: tuple[str, ...]
    env: tuple[str, ...]
    hostname: str
    memory_mib: int
    cpus: int
    boot_files: str
    boot_layer: str
    machine: str
    accel: str
    disk: RootMount | None
    initrd: bool
    uid: int
    gid: int
    made: bool = False
    read_only: bool = False
    network: Network | None = None
    #: Bytes that the monitor may use beside the guest's memory.
    allowance: int = 0
    #: How much of that its cgroup's limit has beyond the caller's.
    on_top: int = 0
    #: What the guest's root file system is (:class:`unikeel.model.rootfs.Rootfs`), and why.
    rootfs: str = ""
    rootfs_reason: str = ""
    #: By which file system a root of the kind ``shared`` is shared.
    share: str = ""
    #: Where the program in the guest runs.
    workdir: str = "/"
    volumes: tuple[Volume, ...] = ()
    way: Way = Way.NONE
    #: By which file system volumes are shared that are not in the root.
    volumes_share: str = ""
    #: Where the image's own disk image is mounted as a further disk; empty: nowhere.
    image_disk: str = ""
    #: What the guest does not get of what the caller's configuration mounts, a sentence each.
    left_out: tuple[str, ...] = ()

    @property
    def halts(self) -> bool:
        """Whether its monitor is started with the guest halted, and told to let it run; if not, it is started when the guest is to run."""
        return find_monitor(self.guest.monitor).traits.halts

    def to_json(self) -> dict[str, object]:
        """What is recorded: enough to look after the task, and to show it."""
        return {
            "guest": self.guest.type,
            "monitor": self.guest.monitor,
            "memory_mib": self.memory_mib,
            "cpus": self.cpus,
            "boot_files": self.boot_files,
            "boot_layer": self.boot_layer,
            "disk": self.disk.source if self.disk else "",
            "made": self.made,
            "network": self.network is not None,
            "namespace": self.network.namespace if self.network else "",
            "way": self.network.way.value if self.network else "",
            "on_top": self.on_top,
            "rootfs": self.rootfs,
            "rootfs_reason": self.rootfs_reason,
            "volumes": {volume.target: volume.source for volume in self.volumes},
            "volumes_way": self.way.value,
            "left_out": list(self.left_out),
        }


def decide(
    name: str,
    spec: Spec,
    guest: GuestConfig,
    options: Wishes,
    config: Config,
    rootfs: Sequence[RootMount],
    *,
    trusted: bool = False,
    room: int | None = None,
) -> TaskSettings:
    """Decide for one task.

    :param options: the wishes in the runtime's options. :param trusted: the container's committed snapshot is its image's, so that a disk may be made of it.
    :param room: the memory limit of the cgroup above the caller's, in bytes, or None: it has none (:func:`unikeel.model.resources.memory`).
    :raise InvalidArgument: an annotation or a limit is out of range. :raise BadContent, Unimplemented: as
        :func:`unikeel.model.rootfs.choose_rootfs`, or the guest or monitor is not offered.
    """
    given = wishes.from_annotations(spec.annotations)
    asked = given.over(_limits(spec)).over(options).over(wishes.from_config(config))
    if asked.monitor:
        guest = guest._replace(monitor=asked.monitor)
        check_pair(guest.type, guest.monitor, name)
    find_monitor(guest.monitor)
    disk = block_mount(rootfs)
    choice = _choose(guest, spec, disk.type if disk else FILE_SYSTEM if trusted else "", rootfs, config)
    placed = _place(spec, asked, guest, choice.kind, config)
    # What an annotation asks for is the guest's own, whatever the limit is.
    memory = _memory(name, asked.memory, config, room if spec.memory_limit and not given.memory else None)
    if not 1 <= asked.cpus <= resources.MOST_CPUS:
        raise InvalidArgument(f"{asked.cpus} processors are out of range for the guest of {name}")
    return TaskSettings(
        guest=guest,
        args=spec.args,
        env=spec.env,
        hostname=_hostname(spec, name),
        memory_mib=memory.guest_mib,
        cpus=asked.cpus,
        boot_files=asked.boot_files,
        boot_layer=asked.boot_layer,
        machine="" if asked.machine == "auto" else asked.machine,
        accel=asked.accel,
        disk=disk if choice.disk else None,
        initrd=choice.initrd,
        uid=spec.uid,
        gid=spec.gid,
        made=choice.disk and disk is None,
        read_only=spec.read_only,
        allowance=memory.allowance,
        on_top=memory.on_top,
        rootfs=choice.kind.value,
        rootfs_reason=choice.reason,
        share=choice.share,
        workdir=spec.workdir,
        volumes=placed.volumes,
        way=placed.way,
        volumes_share=placed.share,
        image_disk=choice.image_disk,
        left_out=placed.left_out,
    )


def _choose(
    guest: GuestConfig, spec: Spec, file_system: str, rootfs: Sequence[RootMount], config: Config
) -> RootfsChoice:
    kind, extra_disks = find_guest(guest.type), mounts_disks(guest, spec.args)
    able = Able(kind.block, kind.initrd, file_system, _NOT_MADE, image_disk=True, extra_disks=extra_disks)
    if guest.mount_rootfs or guest.rootfs:
        if is_shareable(rootfs):
            able = able._replace(shared=shareable(guest, config))
        else:
            able = able._replace(no_share="a snapshot on a block device is not shared: the host would have to mount it")
    return choose_rootfs(guest, able)


def with_network(settings: TaskSettings, network: Network | None) -> TaskSettings:
    """The settings with the network that is wanted, if the monitor has that kind; that one which nobody asked for is left out is told.

    :raise InvalidArgument: it is asked for.
    """
    kind = "user" if network is not None and network.way is Connection.USER else "tap"
    if network is None or kind in find_monitor(settings.guest.monitor).traits.networks:
        return settings._replace(network=network)
    text = f"the monitor {settings.guest.monitor} has no network of the kind {kind}"
    if not network.if_apart:
        raise InvalidArgument(text, "choose another monitor, or say org.unikeel.network=none")
    return settings._replace(left_out=(*settings.left_out, f"{text}: its guest has none"))


def _place(spec: Spec, asked: Wishes, guest: GuestConfig, root: Rootfs, config: Config) -> Placed:
    """The bind mounts and disks as volumes. :raise Unimplemented: this guest cannot be given one that it is to have."""
    shared = shareable(guest, config) if spec.volumes else ()
    receiver = Receiver(guest.type, guest.monitor, root, bool(guest.kernel), mounts_disks(guest, spec.args), shared)
    is_optional = asked.volumes == "optional"
    # A guest that mounts what it is told to could not be told what such a device is called.
    blocks = spec.blocks if guest.kernel else ()
    volumes = [volume._replace(optional=volume.optional or is_optional) for volume in (*spec.volumes, *blocks)]
    try:
        placed = place(volumes, receiver)
    except Unimplemented as error:
        raise Unimplemented(error.message, "say org.unikeel.volumes=optional if the guest can do without") from None
    told = tuple(
        f"the mount of the type {mount} is left out: guests are given bind mounts and file systems on disks"
        for mount in spec.unmounted
    )
    return placed._replace(left_out=(*placed.left_out, *told, *_devices(spec, {block.source for block in blocks})))


def _devices(spec: Spec, given: Container[str]) -> Iterator[str]:
    left = [path for path in spec.devices if path not in given]
    if left:
        named = ", ".join(left[:_NAMED]) + (f" and {len(left) - _NAMED} more" if len(left) > _NAMED else "")
        yield f"devices are left out: {named}: guests have devices of their own"


def shareable(guest: GuestConfig, config: Config) -> tuple[str, ...]:
    """The shared file systems that guest, monitor and host can all three, best first."""
    both = [name for name in find_guest(guest.type).shared if name in find_monitor(guest.monitor).traits.shared]
    if "virtiofs" in both and not file_server.is_there(config.monitor_virtiofsd_path):
        both.remove("virtiofs")
    return tuple(both)


def _memory(name: str, asked: int, config: Config, room: int | None) -> resources.Memory:
    try:
        return resources.memory(asked, config.sandbox_monitor_allowance, room)
    except InvalidArgument as error:
        raise InvalidArgument(f"{error.message} ({name})", error.hint) from None


def _hostname(spec: Spec, name: str) -> str:
    """The configuration's; else a pod's, which it tells in the environment; else what of the container's name can be one (a pod's are too long)."""
    told = spec.hostname or next((item.partition("=")[2] for item in spec.env if item.startswith("HOSTNAME=")), "")
    if told:
        return told
    usable = "".join(char if char.isascii() and char.isalnum() else "-" for char in name)[:_LONGEST_NAME].strip("-")
    return usable or "unikeel"


def _limits(spec: Spec) -> Wishes:
    """What the caller's limits wish: memory in whole MiB, never more; as many processors as the quota fills and the set has."""
    cpuset = spec.cpu.get("cpus")
    cpus = resources.processors(
        _positive(spec.cpu.get("quota")), _positive(spec.cpu.get("period")), cpuset if isinstance(cpuset, str) else ""
    )
    return Wishes(memory=spec.memory_limit, cpus=cpus)


def _positive(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def carried(spec: Spec) -> Carried:
    """What of the caller's configuration the sandbox gets."""
    return Carried(
        cgroup=spec.cgroup,
        namespaces=spec.namespaces,
        hooks=spec.hooks,
        rlimits=spec.rlimits,
        oom_score_adj=spec.oom_score_adj,
        groups=spec.groups if spec.uid else (),
        cpu=spec.cpu,
        annotations=spec.annotations,
    )


def resources_of(document: Mapping[str, Any], on_top: int) -> dict[str, Any]:
    """``LinuxResources`` of an Update as the sandbox's cgroup gets them: the memory limit is the caller's, and ``on_top`` bytes for the monitor.

    :raise InvalidArgument: a value is no number.
    """
    result: dict[str, Any] = {}
    for part in ("memory", "cpu"):
        given = document.get(part)
        if given is None:
            continue
        if not isinstance(given, dict):
            raise InvalidArgument(f"the resources' {part} is not an object")
        result[part] = {key: value for key, value in given.items() if value is not None}
    memory = result.get("memory", {})
    for key in ("limit", "reservation", "swap"):
        value = memory.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise InvalidArgument(f"the resources' memory.{key} is not a number")
        if isinstance(value, int) and value > 0:
            memory[key] = value + on_top
    return result
