"""How a task is run: pure decisions, from the caller's configuration, the image's, the wishes and the root file system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from unikeel.config import Config
from unikeel.engine.disk_making import FILE_SYSTEM
from unikeel.errors import InvalidArgument, Unimplemented
from unikeel.guests import guest as find_guest
from unikeel.model import resources
from unikeel.model.image_fields import GuestConfig
from unikeel.model.names import check_pair
from unikeel.model.rootfs import NO_DEVICE, Able, choose_rootfs
from unikeel.monitors import monitor as find_monitor
from unikeel.sandbox.carrying import Carried
from unikeel.shim import wishes
from unikeel.shim.connecting import Network
from unikeel.shim.disks import RootMount, block_mount
from unikeel.shim.ocispec import Spec
from unikeel.shim.wishes import Wishes
from unikeel.values import NamedTuple

_NOT_MADE: Final = f"{NO_DEVICE}, and no disk is made of a snapshot that is not the image's own (its name is not that of the image's layers)"
_LONGEST_NAME: Final = 63


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
    #: Where the program in the guest runs.
    workdir: str = "/"

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
        :func:`unikeel.model.rootfs.choose_rootfs`, or the guest or monitor is not offered, or the monitor not for tasks.
    """
    given = wishes.from_annotations(spec.annotations)
    asked = given.over(_limits(spec)).over(options).over(wishes.from_config(config))
    if asked.monitor:
        guest = guest._replace(monitor=asked.monitor)
        check_pair(guest.type, guest.monitor, name)
    _check_monitor(name, guest)
    disk = block_mount(rootfs)
    file_system = disk.type if disk else FILE_SYSTEM if trusted else ""
    kind = find_guest(guest.type)
    choice = choose_rootfs(guest, Able(kind.block, kind.initrd, file_system, _NOT_MADE))
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
        workdir=spec.workdir,
    )


def _check_monitor(name: str, guest: GuestConfig) -> None:
    """See that a monitor can run tasks, and this guest. :raise Unimplemented: it cannot, or is not offered."""
    if guest.kernel:
        raise Unimplemented(
            f"the default kernel does not boot tasks of containerd, as {name} wishes", "use `unikeel run`"
        )
    if not find_monitor(guest.monitor).traits.containerd:
        raise Unimplemented(
            f"the monitor {guest.monitor} of {name} does not run tasks of containerd",
            "choose another with the annotation org.unikeel.monitor, or run the image with `unikeel run`",
        )


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
